"""Training runs in worker processes of one thread each: on two cores three times faster than one run with two threads."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

from gesm.datasets import load
from gesm.training import Recipe, fit
from gesm.training.workers import end_with_parent

__all__ = ["pool", "train"]


# Freed memory stays with the process, in huge pages: an epoch of MixedMLP on PubMed takes 20 % less.
MEMORY = {"MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_MMAP_THRESHOLD_": "4294967296", "THP_MEM_ALLOC_ENABLE": "1"}


@contextmanager
def pool(workers: int, tasks: int | None = None) -> Iterator[Executor]:
    """An executor of fresh processes; what is queued is dropped on the way out.

    With `tasks` each process is for so many of them, and takes memory as users' do.
    """
    for name, value in MEMORY.items() if tasks is None else ():
        os.environ.setdefault(name, value)
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start, max_tasks_per_child=tasks)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _start() -> None:
    end_with_parent()
    torch.set_num_threads(1)


@lru_cache(maxsize=2)
def _data(dataset: str, protocol: str, seed: int) -> Any:
    return load(dataset, protocol=protocol, seed=seed)


def train(dataset: str, protocol: str, recipe: dict[str, Any], seed: int, read_test: bool) -> dict[str, Any]:
    """One run, as :class:`gesm.training.Result` has it; a search gets no test figure."""
    result = fit(Recipe.from_dict(recipe), _data(dataset, protocol, seed), seed, device="cpu")
    record = {name: value for name, value in vars(result).items() if name != "module"}
    record["peak_memory_mb"] = None  # of a process that has trained others before, whose memory it keeps
    if not read_test:
        del record["test"]
    return record
