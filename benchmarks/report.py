"""From pytest-benchmark's JSON to ratios: one row for each rival of gesm in each group."""

from collections import defaultdict
from statistics import median, quantiles

from rich.markup import escape
from rich.table import Table

__all__ = ["measurements", "ratios", "table"]

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
    """Rival over gesm (above 1: gesm is better), the range of that over the turns, and both spreads.

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
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / median(values)


def _quantity(value: float, unit: str) -> str:
    return f"{value / 1e6:.1f} MB" if unit == "bytes" else f"{value * 1e3:.2f} ms"
