"""What a cell costs: epoch time and peak memory, measured alone in a process of its own with one thread."""

import json
import statistics
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.cells import cell_file, read_cell
from benchmarks.accuracy.columns import Column
from benchmarks.machine import describe
from benchmarks.memory import peak
from gesm.datasets import load
from gesm.training import Recipe, Task
from gesm.training.checkpoint import write_atomic
from gesm.training.run import Run

__all__ = ["complete_cost", "measure"]

EPOCHS, WARM_UP = 12, 2


def complete_cost(column: Column, name: str, folder: Path, executor: Executor) -> None:
    """Adds `cost` to a finished cell that has none of this processor; a cell that is trained anew loses it."""
    cell, processor = read_cell(folder, column, name), describe()["processor"]
    if cell is None or cell.get("cost", {}).get("processor") == processor:
        return
    cost = executor.submit(measure, column.dataset, column.protocol, cell["recipe"]).result()
    cell["cost"] = cost | {"processor": processor}
    write_atomic(cell_file(folder, column, name), json.dumps(cell, indent=1) + "\n")
    print(f"{column.name} {name}: {cell['cost']['epoch_ms']:.1f} ms, {cell['cost']['peak_memory_mb']:.0f} MB", flush=True)


def measure(dataset: str, protocol: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """Median of a few epochs, training step and evaluation, and the memory they add to that of Python and the data set."""
    made = Recipe.from_dict(recipe).replace(eval_every=1)  # one measure for all
    data, seconds = load(dataset, protocol=protocol), []

    def train() -> None:
        run = Run(made, Task(data, made), 0, torch.device("cpu"))
        seconds.extend(run.epoch().seconds for _ in range(EPOCHS))

    num_bytes, method = peak(train)
    epoch_ms = 1000 * statistics.median(seconds[WARM_UP:])
    return {"epoch_ms": epoch_ms, "peak_memory_mb": num_bytes / 2**20, "peak_memory_by": method}
