"""The table and the plot of finished cells."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.accuracy.ablation import ablation_table
from benchmarks.accuracy.cells import chosen_on_validation, gap, read_cell
from benchmarks.accuracy.columns import COLUMNS, LOW_LABELS, MODELS, OWN, PLANETOID, PPI, SHARES, SHCHUR, Column
from gesm.errors import GesmError
from gesm.training import Recipe

__all__ = ["write_table"]

_SECTIONS = {
    "Public splits": PLANETOID,
    "20 training and 30 validation nodes a class": SHCHUR,
    "60 / 20 / 20 % of the nodes": SHARES,
    "Few labels": LOW_LABELS,
    "PPI, inductive": (PPI,),
}
# Of the GESM paper's ICLR 2020 text, https://openreview.net/forum?id=S1eWbkSFPS: tables 2 and 3, in the order of the columns.
_PUBLISHED = {
    "GSM, published": {**dict(zip(PLANETOID, (82.8, 71.7, 80.3), strict=True)), PPI: 75.3}
    | dict(zip(LOW_LABELS, (68.2, 81.6, 45.6, 62.6, 73.0), strict=True)),
    "GESM, published": {**dict(zip(PLANETOID, (84.4, 72.6, 80.1), strict=True)), PPI: 97.6}
    | dict(zip(LOW_LABELS, (70.5, 81.2, 53.2, 62.7, 73.8), strict=True)),
}
_MARKS = "<!-- accuracy -->", "<!-- /accuracy -->"
_EXPLANATION = (
    "Test accuracy (micro-F1 on PPI) in %, mean ± standard deviation (half width of the 95 % interval of the mean), at the "
    "epoch that validation selected. Recipes were searched on validation alone (on PPI by hand). `gesm_consistency` is GESM "
    "with hop sampling and its consistency; on PPI `gesm` is a stack of three layers. The last row takes of gesm's own the "
    "model with the highest mean on validation, the recipe `best`, and of the peers the one with the highest mean on test. "
    "Published figures are those of the paper's ICLR 2020 text."
)
Cells = dict[tuple[str, Column], dict[str, Any]]


def write_table(folder: Path, readme: Path | None = None) -> None:
    """Writes accuracy.md, accuracy.png and accuracy.pdf from the cells of a folder, and the scores between a README's marks."""
    parts, scores = [], []
    for title, columns in _SECTIONS.items():
        if cells := _cells(folder, columns):
            lookup = _lookup(folder, cells)
            scores += [f"{text}\n" for text in (f"{title}:", _markdown(cells), lookup) if text]
            below = _costs(cells), _limits(cells), lookup
            parts += [f"{text}\n" for text in (f"## {title}", _markdown(cells), *below) if text]
    if cells := _cells(folder, COLUMNS):
        for suffix in ("png", "pdf"):
            (folder / f"accuracy.{suffix}").write_bytes(_figure(cells, suffix))
    text = "\n".join([f"# Accuracy\n\n{_EXPLANATION}\n", *parts, *_ablations(folder)])
    (folder / "accuracy.md").write_text(text)
    if readme:
        before, _, after = (old := readme.read_text()).partition(_MARKS[0])
        after = after.partition(_MARKS[1])[2]
        readme.write_text("\n".join([before + _MARKS[0], *scores, _MARKS[1] + after]) if after else old)
    print(text)


def _cells(folder: Path, columns: Iterable[Column]) -> Cells:
    return {(m, c): cell for m in MODELS for c in columns if (cell := read_cell(folder, c, m))}


def _ablations(folder: Path) -> Iterator[str]:
    """A section for each recipe that was ablated."""
    for column in (*COLUMNS, *LOW_LABELS):
        for name in OWN:
            try:
                recipe = Recipe.for_dataset(column.dataset, name=name, protocol=column.protocol)
            except GesmError:
                continue
            text = ablation_table(column, name, recipe, folder)
            if text.count("\n") > 2:
                yield f"## {name} on {column.name}, one part changed\n\n{text}\n"


def _axes(cells: Cells) -> tuple[list[str], list[Column]]:
    models, columns = zip(*cells, strict=True) if cells else ((), ())
    return [m for m in MODELS if m in models], [c for c in (*COLUMNS, *LOW_LABELS) if c in columns]


def _markdown(cells: Cells) -> str:
    """Test metric in %, mean +- standard deviation (half width of the 95 % interval of the mean); the best mean bold."""
    models, columns = _axes(cells)
    best = {column: max(cell["test"]["mean"] for (_, c), cell in cells.items() if c == column) for column in columns}
    lines = [
        "| | " + " | ".join(f"{c.name}, {_runs(cells, c)} runs" for c in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for model in models:
        row = []
        for column in columns:
            cell = cells.get((model, column))
            text = _figures(cell["test"]) if cell else ""
            row.append(f"**{text}**" if cell and cell["test"]["mean"] == best[column] else text)
        lines.append(f"| {model} | " + " | ".join(row) + " |")
    leads = [_lead(cells, column) for column in columns]
    if any(leads):
        lines.append("| best, minus the best peer | " + " | ".join(leads) + " |")
    for name, scores in _PUBLISHED.items():
        row = [f"{scores[column]:.1f}" if column in scores else "" for column in columns]
        if any(row):
            lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _lead(cells: Cells, column: Column) -> str:
    """Of gesm's own the one chosen on validation, minus the peer with the highest mean on test, paired by seed."""
    here = {model: cell for (model, c), cell in cells.items() if c == column}
    own, peers = ({model: here[model] for model in here if (model in OWN) is is_own} for is_own in (True, False))
    if not own or not peers:
        return ""
    ours, theirs = chosen_on_validation(own), max(peers, key=lambda model: peers[model]["test"]["mean"])
    return f"{gap(own[ours], peers[theirs])} ({ours}, {theirs} of {len(peers)})"


def _processor(cost: dict[str, Any]) -> str:
    return cost.get("processor", "a processor not written down")


def _costs(cells: Cells) -> str:
    """Epoch times and peak memory, of the cells that were measured."""
    measured = {key: cell["cost"] for key, cell in cells.items() if "cost" in cell}
    models, columns = _axes(measured)
    found = Counter(_processor(cost) for cost in measured.values())
    marks = {name: "*" * i for i, (name, _) in enumerate(found.most_common())}
    places = ", ".join(f"{name}{f' ({mark})' if mark else ''}" for name, mark in marks.items())
    lines = [
        "One epoch, training step and evaluation, in ms / what training adds to the memory of Python and data, in MB: "
        f"alone in a process of its own with one thread, on {places}.",
        "",
        "| | " + " | ".join(c.name for c in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for model in models:
        costs = [measured.get((model, column)) for column in columns]
        texts = [f"{c['epoch_ms']:.3g} / {c['peak_memory_mb']:.0f}{marks[_processor(c)]}" if c else "" for c in costs]
        lines.append(f"| {model} | " + " | ".join(texts) + " |")
    return "\n".join(lines) if measured else ""


def _limits(cells: Cells) -> str:
    """Which runs might have gone on."""
    ended = {key: sum(n >= cell["recipe"]["epochs"] for n in cell["epochs"]) for key, cell in cells.items()}
    texts = [f"{m} on {c.name} {n} of {len(cells[m, c]['epochs'])}" for (m, c), n in ended.items() if n]
    return f"Runs that the limit of epochs ended, not patience: {', '.join(texts)}." if texts else ""


def _lookup(folder: Path, cells: Cells) -> str:
    """What PPI's labels yield without a model, where that was measured."""
    file = folder / "ppi-lookup.json"
    if PPI not in {column for _, column in cells} or not file.exists():
        return ""
    found = json.loads(file.read_text())
    scores = {name: f"{100 * entry['micro_f1']:.1f}" for name, entry in found.items() if isinstance(entry, dict)}
    verbatim = 100 * found["test labels found verbatim in training"]
    return (
        "The runs are on a copy of PPI that was pieced together from published parts and lacks the labels of some proteins "
        f"(docs/datasets.md). Its graphs share genes: {verbatim:.1f} % of the test nodes have a row of labels that occurs "
        "verbatim in training, and without a model one scores "
        f"{', '.join(f'{score} ({name})' for name, score in scores.items())}. So a high figure says that a model tells genes "
        "apart by their neighbourhood, not that it generalises to new ones."
    )


def _figures(scores: dict[str, Any]) -> str:
    return f"{100 * scores['mean']:.2f} ± {100 * scores['std']:.2f} ({100 * scores['ci95']:.2f})"


def _runs(cells: Cells, column: Column) -> str:
    counts = sorted({len(cell["seed"]) for (_, c), cell in cells.items() if c == column})
    return "-".join(map(str, {counts[0]: None, counts[-1]: None}))


def _figure(cells: Cells, suffix: str) -> bytes:
    """Means with their 95 % intervals, one panel a column."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models, columns = _axes(cells)
    wide = min(len(columns), 4)
    rows = math.ceil(len(columns) / wide)
    figure = Figure(figsize=(2.4 * wide + 1, (0.28 * len(models) + 1) * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, wide, sharey=True, squeeze=False).ravel()
    for axis in axes[len(columns) :]:
        axis.set_axis_off()
    for axis, column in zip(axes[: len(columns)], columns, strict=True):
        for place, model in enumerate(reversed(models)):
            if cell := cells.get((model, column)):
                color = "tab:blue" if model in OWN else "tab:gray"
                test = cell["test"]
                axis.errorbar(100 * test["mean"], place, xerr=100 * test["ci95"], fmt="o", color=color, markersize=4)
        axis.set_title(column.name, fontsize=9)
        axis.set_xlabel("test metric, %", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(models)), list(reversed(models)))
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=120, metadata={"CreationDate": None} if suffix == "pdf" else None)
    return buffer.getvalue()
