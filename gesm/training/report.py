"""What a person sees of the results: the table at the end and the curves of a run."""

from __future__ import annotations

import io
from typing import Any

from rich.table import Table

from gesm.training.run import Epoch
from gesm.training.task import Task

__all__ = ["curves", "table"]


def table(summary: dict[str, Any]) -> Table:
    """The rich table of a summary as :func:`gesm.training.summarize` makes it; metrics in per cent."""
    metric = summary["metric"].replace("_", "-")
    title = f"{summary['model']} on {summary['dataset']}, {summary['protocol']} split: {metric} in %"
    grid = Table(title=title, title_style="bold", caption=_caption(summary))
    columns = {
        "validation": _percent(summary["val"]),
        "test": f"[bold]{_percent(summary['test'])}[/bold]",
        "95 % interval": _interval(summary["test"]),
        "runs": str(len(summary["test"]["runs"])),
        "ms/epoch": f"{summary['epoch_ms']:.1f}",
        "peak MB": "-" if summary["peak_memory_mb"] is None else f"{summary['peak_memory_mb']:.0f}",
    }
    for name in columns:
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_row(*columns.values())
    return grid


def _caption(summary: dict[str, Any]) -> str:
    seeds, epochs = summary["seed"], summary["selected_epoch"]
    return f"seed {_span(seeds)}, selected epoch {_span(epochs)}, {summary['device']}"


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _percent(scores: dict[str, Any]) -> str:
    mean = f"{100 * scores['mean']:.2f}"
    return mean if scores["std"] is None else f"{mean} ± {100 * scores['std']:.2f}"


def _interval(scores: dict[str, Any]) -> str:
    if scores["ci95"] is None:
        return "-"
    low, high = scores["mean"] - scores["ci95"], scores["mean"] + scores["ci95"]
    return f"{100 * low:.2f} to {100 * high:.2f}"


def curves(history: list[Epoch], selected: int, task: Task) -> bytes:
    """PNG of the losses and the validation metric over epochs, the selected epoch marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    metric = task.metric.replace("_", "-")
    seen = [e for e in history if e.val_loss == e.val_loss]
    blue, orange, grey = "#3366aa", "#dd7733", "#888888"
    left.plot([e.epoch for e in history], [e.train_loss for e in history], color=blue, label="training")
    left.plot([e.epoch for e in seen], [e.val_loss for e in seen], color=orange, label="validation")
    left.set_ylabel("loss")
    right.plot([e.epoch for e in seen], [100 * e.val_metric for e in seen], color=orange)
    right.set_ylabel(f"validation {metric} %")
    best = next(e for e in seen if e.epoch == selected)
    for axis, value in ((left, best.val_loss), (right, 100 * best.val_metric)):
        axis.axvline(selected, color=grey, linewidth=0.8, linestyle="--", zorder=0)
        axis.plot([selected], [value], "o", color=orange, markersize=5)
        axis.set_xlabel("epoch")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#eeeeee")
    left.legend(frameon=False)
    figure.suptitle(f"{task.name}: epoch {selected}, validation {metric} {100 * best.val_metric:.2f} %", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
