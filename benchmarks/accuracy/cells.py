"""The cells of the table: a column and a model, trained with as many seeds as the column wants."""

import json
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from benchmarks import jsonl
from benchmarks.accuracy.columns import MODELS, Column
from benchmarks.accuracy.workers import train
from benchmarks.machine import describe
from gesm.errors import GesmError
from gesm.training import Recipe
from gesm.training.checkpoint import write_atomic
from gesm.training.result import Result, interval, summarize

__all__ = ["cell_file", "chosen_on_validation", "gap", "is_of", "read_cell", "run_cell"]


def cell_file(folder: Path, column: Column, name: str) -> Path:
    """Where a finished cell is kept."""
    return folder / f"{column.slug}-{name}.json"


def read_cell(folder: Path, column: Column, name: str) -> dict[str, Any] | None:
    """A finished cell."""
    path = cell_file(folder, column, name)
    return json.loads(path.read_text()) if path.exists() else None


def is_of(cell: dict[str, Any], recipe: Recipe) -> bool:
    """Whether a cell, or a run, was trained with a recipe; keys that came later have their defaults."""
    return Recipe.from_dict(cell["recipe"]) == recipe


def chosen_on_validation(cells: dict[str, dict[str, Any]]) -> str:
    """The model whose cell has the highest mean on validation, of equal ones the lower loss."""
    return min(cells, key=lambda model: (-round(cells[model]["val"]["mean"], 9), cells[model]["val_loss"]["mean"]))


def gap(cell: dict[str, Any], other: dict[str, Any]) -> str:
    """Test metrics of a cell minus those of another in %, over the seeds that they share: mean ± half its 95 % interval."""
    others = dict(zip(other["seed"], other["test"]["runs"], strict=True))
    pairs = zip(cell["seed"], cell["test"]["runs"], strict=True)
    found = interval([one - others[seed] for seed, one in pairs if seed in others])
    return f"{100 * found['mean']:+.2f} ± {100 * found['ci95']:.2f}"


def run_cell(column: Column, name: str, recipe: Recipe, folder: Path, executor: Executor, runs: int) -> dict[str, Any]:
    """Completes a cell; its runs are kept one by one beside it, and merged when they are all there.

    A cell of another recipe, or of fewer runs, is made anew.
    """
    path = cell_file(folder, column, name)
    cell = read_cell(folder, column, name)
    if cell and is_of(cell, recipe) and len(cell["seed"]) >= runs:
        return cell
    unfinished = path.with_suffix(".jsonl")
    records = {line["seed"]: line["record"] for line in jsonl.read(unfinished) if is_of(line, recipe)}
    todo = [seed for seed in range(runs) if seed not in records]
    futures = [executor.submit(train, column.dataset, column.protocol, recipe.to_dict(), seed, True) for seed in todo]
    for seed, future in zip(todo, futures, strict=True):
        try:
            records[seed] = future.result()
        except GesmError as error:
            raise GesmError(f"{column.name} {name}, seed {seed}: {error}") from None
        jsonl.append(unfinished, {"seed": seed, "recipe": recipe.to_dict(), "record": records[seed]})
    cell = summarize([Result(**records[seed]) for seed in range(runs)], recipe)
    cell |= {"machine": describe(), "command": _command(column, name, recipe, runs)}
    write_atomic(path, json.dumps(cell, indent=1) + "\n")
    unfinished.unlink(missing_ok=True)
    test = cell["test"]
    print(f"{column.name} {name}: test {100 * test['mean']:.2f} +- {100 * test['std']:.2f}, {runs} runs", flush=True)
    return cell


def _command(column: Column, name: str, recipe: Recipe, runs: int) -> str:
    """What trains the cell again, the shipped recipe being as it is now."""
    base = next((model for model in MODELS if name == model or name.startswith(f"{model}-")), recipe.model)
    shipped = Recipe.for_dataset(column.dataset, name=base, protocol=column.protocol)
    words = ["gesm", "train", column.dataset, "--model" if base == shipped.model else "--recipe", base]
    before = shipped.to_dict()
    for key, value in recipe.to_dict().items():
        if key not in before or value != before[key]:
            words += ["--set", f"{key}={'null' if value is None else value}"]
    return " ".join([*words, "--protocol", column.protocol, "--runs", str(runs)])
