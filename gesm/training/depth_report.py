"""What a person sees of a depth study: its summary, table and figure."""

from __future__ import annotations

import io
import itertools
from typing import Any

from rich.table import Table

from gesm.training.depth_run import DROP_EDGE, EVAL_EVERY, SETTINGS
from gesm.training.result import interval, versions

__all__ = ["figure", "summarize_depth", "table"]

READINGS = ("full", "expected", "best")
_COLOURS = {"fixed": "#3366aa", "hop": "#dd7733", "dropedge": "#559955"}


def summarize_depth(records: list[dict[str, Any]], data: Any, epochs: int) -> dict[str, Any]:
    """The JSON of a study.

    ``cells`` has one entry a model, arm and K with ``seeds``, ``selected_epoch`` and ``seconds`` a seed; ``full``,
    ``expected`` and ``best`` (depth ``k`` with the highest validation accuracy, the largest of equal ones, for each seed)
    with mean, std and 95 % interval over seeds of each measure; and ``depths``, the mean of each measure at each depth.
    ``comparisons`` holds, for each model, K and rival ("fixed", "dropedge"), the difference in test accuracy of hop sampling to
    the rival of the same seed, with its interval. ``settings`` says how each model was built and optimised.
    """
    cells = []
    key = lambda record: (record["model"], record["arm"], record["K"])  # noqa: E731
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    for (model, arm, K), runs in sorted(groups.items(), key=lambda item: item[0][2]):
        runs.sort(key=lambda record: record["seed"])
        best = [_best(run["depths"]) for run in runs]
        readings = {"full": [r["full"] for r in runs], "expected": [r["expected"] for r in runs], "best": best}
        depths = {
            name: [sum(at) / len(runs) for at in zip(*(run["depths"][name] for run in runs), strict=True)]
            for name in runs[0]["full"]
        }
        cells.append(
            {
                "model": model,
                "arm": arm,
                "K": K,
                **{
                    f"{name}s" if name == "seed" else name: [r[name] for r in runs]
                    for name in ("seed", "selected_epoch", "seconds")
                },
                **{name: {m: interval([r[m] for r in rows]) for m in rows[0]} for name, rows in readings.items()},
                "depths": {"k": runs[0]["depths"]["k"], **depths},
            }
        )
    return {
        "dataset": getattr(data, "name", "data"),
        "protocol": getattr(data, "protocol", "custom"),
        "metric": "accuracy",
        "epochs": epochs,
        "eval_every": EVAL_EVERY,
        "drop_edge": DROP_EDGE,
        "settings": {model: SETTINGS[model].about() for model in sorted({model for model, *_ in groups})},
        "cells": cells,
        "comparisons": _comparisons(groups),
        "versions": versions(),
    }


def _comparisons(groups: dict[tuple, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    found = []
    for (model, arm, K), rivals in sorted(groups.items(), key=lambda item: item[0][2]):
        hops = {run["seed"]: run for run in groups.get((model, "hop", K), [])}
        pairs = [(hops[run["seed"]], run) for run in rivals if run["seed"] in hops]
        if arm != "hop" and pairs:
            readings = ("full", "expected")
            differences = {name: interval([hop[name]["test"] - run[name]["test"] for hop, run in pairs]) for name in readings}
            found.append({"model": model, "K": K, "rival": arm, **differences})
    return found


def _best(depths: dict[str, list[float]]) -> dict[str, float]:
    i = max(range(len(depths["k"])), key=lambda i: (depths["val"][i], depths["k"][i]))
    return {name: values[i] for name, values in depths.items()}


def table(summary: dict[str, Any]) -> Table:
    """Test accuracy in %, a row a model and arm, a column a K: full / expected / at the depth that validation likes best."""
    cells = {(c["model"], c["arm"], c["K"]): c for c in summary["cells"]}
    rows = list(dict.fromkeys((model, arm) for model, arm, _ in cells))
    models = list(dict.fromkeys(model for model, _ in rows))
    rows.sort(key=lambda row: models.index(row[0]))
    grid = Table(
        title=f"Depth on {summary['dataset']}, {summary['protocol']} split: test accuracy in %",
        title_style="bold",
        caption=f"full ± half its 95 % interval / expected / best k by validation; {summary['epochs']} epochs",
    )
    grid.add_column("model")
    grid.add_column("training")
    depths = sorted({K for _, _, K in cells})
    for K in depths:
        grid.add_column(f"K = {K}", justify="right", no_wrap=True)
    for model, arm in rows:
        grid.add_row(
            model, arm, *(_cell(cells.get((model, arm, K))) for K in depths), end_section=(model, arm) == _last(rows, model)
        )
    return grid


def _last(rows: list[tuple[str, str]], model: str) -> tuple[str, str]:
    return [row for row in rows if row[0] == model][-1]


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    full, expected, best = (f"{100 * cell[name]['test']['mean']:.1f}" for name in READINGS)
    spread = cell["full"]["test"]["ci95"]
    return f"{full}{'' if spread is None else f' ±{100 * spread:.1f}'} / {expected} / {best}"


def figure(summary: dict[str, Any], kind: str = "png") -> bytes:
    """Test accuracy (top; full solid, expected dashed) and relative Dirichlet energy of the logits (bottom) against K.

    A column a model, a colour a way of training; bands are 95 % intervals. ``kind`` is "png" or "pdf".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(cell["model"] for cell in summary["cells"]))
    depths = sorted({cell["K"] for cell in summary["cells"]})
    page = Figure(figsize=(2.3 * max(len(models), 2), 4.6), layout="constrained")
    FigureCanvasAgg(page)
    axes = page.subplots(2, len(models), sharex=True, sharey="row", squeeze=False)
    for (row, measure), (column, model) in itertools.product(enumerate(("test", "dirichlet")), enumerate(models)):
        axis = axes[row][column]
        for arm, colour in _COLOURS.items():
            cells = [cell for cell in summary["cells"] if (cell["model"], cell["arm"]) == (model, arm)]
            if cells:
                _line(axis, cells, "full", measure, colour, arm)
                if measure == "test":
                    _line(axis, cells, "expected", measure, colour, f"{arm}, expected", "--")
        axis.set_xscale("log", base=2)
        axis.set_xticks(depths, map(str, depths))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#eeeeee")
        if measure == "dirichlet":
            axis.set_yscale("log")
            axis.set_xlabel("K")
        else:
            axis.set_title(model, fontsize=10)
    axes[0][0].set_ylabel("test accuracy %")
    axes[1][0].set_ylabel("Dirichlet energy / |x|²")
    handles = {label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    columns = max(len(models), 2)
    page.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=7)
    page.suptitle(f"Depth on {summary['dataset']}, {summary['protocol']} split", fontsize=10)
    buffer = io.BytesIO()
    page.savefig(buffer, format=kind, dpi=150, metadata={"Software": None} if kind == "png" else {"CreationDate": None})
    return buffer.getvalue()


def _line(axis: Any, cells: list[dict], reading: str, measure: str, colour: str, label: str, style: str = "-") -> None:
    factor = 100 if measure == "test" else 1
    depths, values = [cell["K"] for cell in cells], [cell[reading][measure] for cell in cells]
    mean = [factor * value["mean"] for value in values]
    spread = [factor * (value["ci95"] or 0) for value in values]
    axis.plot(depths, mean, style, color=colour, label=label, linewidth=1.2, marker="o", markersize=2.5)
    if any(spread):
        lowest = min(mean) / 10 if measure == "dirichlet" else 0.0  # a logarithm has no place for less than 0
        low = [max(m - s, lowest) for m, s in zip(mean, spread, strict=True)]
        axis.fill_between(
            depths, low, [m + s for m, s in zip(mean, spread, strict=True)], color=colour, alpha=0.15, linewidth=0
        )
