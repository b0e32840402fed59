"""From pytest-benchmark's JSON to ratios, one row for each rival of gesm in each group; tables of them, a plot of scaling."""

import math
import re
from collections import defaultdict
from pathlib import Path
from statistics import linear_regression, median, quantiles

from rich.markup import escape
from rich.table import Table

__all__ = ["curves", "measurements", "plot", "ratios", "scaling_table", "table"]

OURS = "gesm"


def measurements(benchmarks: list[dict]) -> dict[str, dict[str, list[list[float]]]]:
    """group -> contender -> a list for each turn: seconds of its rounds, or bytes."""
    groups: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for entry in benchmarks:
        extra = entry["extra_info"]
        values = [extra["peak_bytes"]] if "peak_bytes" in extra else entry["stats"]["data"]
        groups[entry["group"]][extra["contender"]].append(values)
    return {group: dict(contenders) for group, contenders in groups.items()}


def ratios(groups: dict[str, dict[str, list[list[float]]]]) -> list[dict]:
    """Rival over gesm (above 1: gesm is better), the range and quartiles of that over the turns, and both spreads.

    A contender's value is the median of its turns' medians, so that a turn with more rounds counts no more than another and the
    ratio lies within its range. A spread is the interquartile range of all rounds over their median.
    """
    rows = []
    for group, contenders in groups.items():
        if OURS not in contenders:
            continue
        ours = contenders[OURS]
        for name, turns in contenders.items():
            if name == OURS:
                continue
            by_turn = [median(b) / median(a) for a, b in zip(ours, turns, strict=False)]
            rows.append(
                {
                    "group": group,
                    "peer": name,
                    "unit": "bytes" if "memory" in group else "seconds",
                    "ours": _median(ours),
                    "theirs": _median(turns),
                    "ratio": _median(turns) / _median(ours),
                    "ratio_range": [min(by_turn), max(by_turn)],
                    "ratio_quartiles": _quartiles(by_turn),
                    "turns": len(by_turn),
                    "rounds": [sum(map(len, ours)), sum(map(len, turns))],
                    "spread": [_spread(ours), _spread(turns)],
                }
            )
    return rows


def table(rows: list[dict], title: str) -> Table:
    """The rows for a terminal."""
    result = Table(title=title, title_justify="left", caption_justify="left")
    result.caption = "ratio: peer / gesm, of medians; range: over the turns; ±: interquartile range / median"
    result.add_column("group")
    result.add_column("peer")
    for name in ("gesm", "±", "peer", "±", "ratio", "range", "rounds"):
        result.add_column(name, justify="right")
    before = None
    for row in rows:
        if _POINT.fullmatch(row["group"]):
            continue
        if before is not None and row["group"] != before:
            result.add_section()
        ours, theirs = (_quantity(row[key], row["unit"]) for key in ("ours", "theirs"))
        low, high = row["ratio_range"]
        result.add_row(
            "" if row["group"] == before else escape(row["group"]),
            row["peer"],
            ours,
            f"{row['spread'][0]:.0%}",
            theirs,
            f"{row['spread'][1]:.0%}",
            f"[bold]{row['ratio']:.2f}[/]",
            f"{low:.2f}-{high:.2f}",
            "{} / {}".format(*row["rounds"]),
        )
        before = row["group"]
    return result


def _median(turns: list[list[float]]) -> float:
    return median(map(median, turns))


def _spread(turns: list[list[float]]) -> float:
    values = [value for turn in turns for value in turn]
    low, high = _quartiles(values)
    return (high - low) / median(values)


def _quartiles(values: list[float]) -> list[float]:
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return [low, high]


def _quantity(value: float, unit: str) -> str:
    return f"{value / 1e6:.1f} MB" if unit == "bytes" else f"{value * 1e3:.2f} ms"


_POINT = re.compile(r"scaling (\w+)\[(\d+)\]")


def curves(rows: list[dict]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """axis -> contender -> (value, seconds) of the groups of scaling."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if point := _POINT.fullmatch(row["group"]):
            axis, value = point[1], int(point[2])
            found[axis][OURS].append((value, row["ours"]))
            found[axis][row["peer"]].append((value, row["theirs"]))
    return {axis: dict(contenders) for axis, contenders in found.items()}


def exponent(curve: list[tuple[int, float]]) -> float:
    """Slope of the upper half of a curve in a log-log plot: the time grows with this power; nan for a single point."""
    if len(curve) < 2:
        return math.nan
    upper = curve[max(len(curve) // 2 - 1, 0) :]
    return linear_regression([math.log(x) for x, _ in upper], [math.log(y) for _, y in upper]).slope


def scaling_table(found: dict[str, dict[str, list[tuple[int, float]]]]) -> Table:
    """A row for each axis: both ends, and with which power the time grows."""
    result = Table(title="scaling", title_justify="left", caption_justify="left")
    result.caption = "power: slope of the upper half of the curve in a log-log plot"
    for name in ("axis", "values", "contender", "ms at the ends", "power"):
        result.add_column(name)
    for axis, contenders in found.items():
        for name, curve in contenders.items():
            ends = f"{curve[0][1] * 1e3:.1f} ... {curve[-1][1] * 1e3:.1f}"
            result.add_row(axis, f"{curve[0][0]} ... {curve[-1][0]}", name, ends, f"{exponent(curve):.2f}")
        result.add_section()
    return result


def plot(found: dict[str, dict[str, list[tuple[int, float]]]], file: Path) -> None:
    """One log-log panel for each axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(found), 3.2), layout="constrained")
    for axes, (axis, contenders) in zip(
        figure.subplots(1, len(found), sharey=True, squeeze=False)[0], found.items(), strict=True
    ):
        for name, curve in contenders.items():
            axes.loglog(*zip(*curve, strict=True), marker="o", markersize=3, label=f"{name} (power {exponent(curve):.2f})")
        values = [value for value, _ in curve]
        axes.set_xticks(values, values, fontsize="small")
        axes.minorticks_off()
        axes.set_xlabel(axis)
        axes.grid(True, which="major", alpha=0.3)
        axes.legend(fontsize="x-small")
    figure.axes[0].set_ylabel("training forward + backward, s")
    figure.savefig(file, dpi=150)
