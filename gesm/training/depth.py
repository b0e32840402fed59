"""The depth study: models ever deeper, trained with fixed depth, hop sampling or DropEdge."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gesm.errors import GesmError
from gesm.training.checkpoint import write_atomic
from gesm.training.depth_run import DROP_EDGE, EVAL_EVERY, SETTINGS, Cell, run_cell
from gesm.training.task import crc32
from gesm.training.workers import end_with_parent

__all__ = ["ARMS", "DEPTHS", "depth_study", "plan"]

ARMS = ("fixed", "hop", "dropedge")
DEPTHS = (2, 4, 8, 16, 32, 64)
MODELS = ("sgc", "appnp", "gsm", "gesm", "gcn", "gcnii")


def plan(models: tuple[str, ...], arms: tuple[str, ...], depths: tuple[int, ...], runs: int, seed: int) -> list[Cell]:
    """The cells of a study, seed by seed, the deepest first.

    Raises:
        GesmError: On an unknown model or arm, a depth below 1, a value given twice, nothing to do, or a negative seed.
    """
    for what, values, allowed in (("models", models, SETTINGS), ("arms", arms, ARMS)):
        unknown = [value for value in values if value not in allowed]
        if unknown:
            raise GesmError(f"{what}: there is no {unknown[0]!r}; choose from {', '.join(allowed)}")
    bad = [K for K in depths if type(K) is not int or K < 1]
    if bad:
        raise GesmError(f"depths must be whole numbers from 1 up, got {bad[0]!r}")
    for what, values in (("models", models), ("arms", arms), ("depths", depths)):
        if not values or len({*values}) < len(values):
            raise GesmError(f"{what} must be a list without repetition, at least one; got {list(values)}")
    for what, value, low in (("runs", runs, 1), ("seed", seed, 0)):
        if type(value) is not int or value < low:
            raise GesmError(f"{what} must be a whole number from {low} up, got {value!r}")
    order = sorted(depths, reverse=True)
    return [Cell(m, arm, K, s) for s in range(seed, seed + runs) for K in order for m in models for arm in arms]


def depth_study(
    data: Any,
    models: tuple[str, ...] = MODELS,
    arms: tuple[str, ...] = ARMS,
    depths: tuple[int, ...] = DEPTHS,
    *,
    runs: int = 10,
    seed: int = 0,
    epochs: int = 200,
    workers: int = 1,
    out: str | Path | None = None,
    resume: bool = False,
    on_run: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Trains each model x arm x depth x seed and reads it at full depth, in expectation and at every depth.

    Args:
        data: One graph with classes; see :class:`gesm.training.Task`.
        models: Keys of :data:`gesm.training.depth_run.SETTINGS`.
        arms: "fixed" depth, "hop" sampling, or "dropedge" with a rate of 0.5. They differ in training alone: the same epochs,
            settings, seeds and selection by validation accuracy at full depth.
        depths: The K of the models.
        runs: Runs of each.
        seed: Of the first run; the others have ``seed + 1``, ``seed + 2``, ...
        epochs: Of every run; there is no early stopping, which would favour what learns fast.
        workers: Processes, each with one thread.
        out: Folder for study.json (what was asked) and runs.jsonl, one line a run, appended as runs finish.
        resume: Keep the runs that ``out`` holds; more models, arms, depths or seeds may be asked for than before.
        on_run: Called with each record, also of those kept.

    Returns:
        A record a run, in the order of :func:`plan`; :func:`gesm.training.depth_run.run_cell` says what it holds.

    Raises:
        GesmError: On bad settings or data, or a folder that holds a study and ``resume`` is not set, or another study.
    """
    cells = plan(tuple(models), tuple(arms), tuple(depths), runs, seed)
    for what, value in (("epochs", epochs), ("workers", workers)):
        if type(value) is not int or value < 1:
            raise GesmError(f"{what} must be a whole number from 1 up, got {value!r}")
    if resume and out is None:
        raise GesmError("resume needs out (--out), the folder of the study to continue")
    if hasattr(data, "to_data_list") or getattr(data, "y", torch.empty(0)).dim() != 1:
        raise GesmError(f"{getattr(data, 'name', 'data')}: the depth study takes one graph with one class a node")
    about = {
        "dataset": getattr(data, "name", "data"),
        "protocol": getattr(data, "protocol", "custom"),
        "data": crc32(data),
        "epochs": epochs,
        "eval_every": EVAL_EVERY,
        "drop_edge": DROP_EDGE,
        "settings": {name: setting.about() for name, setting in SETTINGS.items()},
    }
    path, done = (None, {}) if out is None else _open(Path(out), about, resume)
    kept = {cell: done[cell] for cell in cells if cell in done}
    for record in kept.values() if on_run else ():
        on_run(record)
    todo = [cell for cell in cells if cell not in kept]
    for cell, record in _records(todo, data, epochs, min(workers, len(todo))):
        kept[cell] = record
        if path:
            with path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        if on_run:
            on_run(record)
    return [kept[cell] for cell in cells]


def _open(folder: Path, about: dict[str, Any], resume: bool) -> tuple[Path, dict[Cell, dict[str, Any]]]:
    """The file of runs, cut after its last whole line, and what it holds."""
    about_path, path = folder / "study.json", folder / "runs.jsonl"
    if folder.exists() and not folder.is_dir():
        raise GesmError(f"{folder} is a file; pass a folder")
    about = json.loads(json.dumps(about))
    if about_path.exists():
        if not resume:
            raise GesmError(f"{folder} already holds a study; continue it with --resume, or pass another folder")
        try:
            before = json.loads(about_path.read_text(encoding="utf-8"))
            changed = [key for key in about if before.get(key) != about[key]]
        except (OSError, ValueError, AttributeError):
            raise GesmError(f"{about_path} cannot be read; restore it, or pass another folder") from None
        if changed:
            was, now = ({key: d.get(key) for key in changed if key != "settings"} for d in (before, about))
            hint = f": {was} -> {now}" if was else ""
            raise GesmError(f"{folder} holds another study, its {', '.join(changed)} differ{hint}; pass another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not about_path.exists():
            write_atomic(about_path, json.dumps(about, indent=2) + "\n")
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
        if lines[-1]:  # a kill cut it short
            write_atomic(path, "".join(line + "\n" for line in lines[:-1]))
    except OSError as error:
        raise GesmError(f"cannot write to {folder}: {error.strerror}") from None
    records = map(_record, lines[:-1], [path] * len(lines))
    return path, {Cell(**{f.name: record[f.name] for f in dataclasses.fields(Cell)}): record for record in records}


def _record(line: str, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(line)
        record["depths"]["test"], *(record[f.name] for f in dataclasses.fields(Cell))
        return record
    except (ValueError, LookupError, TypeError):
        raise GesmError(f"{path} holds a line that is no run of a depth study: {line[:80]!r}; take it out") from None


def _records(cells: list[Cell], data: Any, epochs: int, workers: int) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """The records as they come."""
    if workers <= 1:
        for cell in cells:
            with _one_thread():
                record = run_cell(cell, data, epochs)
            yield cell, record
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locked thread pools
    waiting = iter(cells)
    with ProcessPoolExecutor(workers, context, _start_worker, (data, epochs)) as pool:
        try:
            running = {pool.submit(_work, cell): cell for cell in itertools.islice(waiting, 2 * workers)}
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
                    for cell in itertools.islice(waiting, 1):
                        running[pool.submit(_work, cell)] = cell
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread, as the workers have: sums are rounded alike."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_shared: tuple[Any, int]


def _start_worker(data: Any, epochs: int) -> None:
    global _shared
    end_with_parent()
    torch.set_num_threads(1)
    _shared = data, epochs


def _work(cell: Cell) -> dict[str, Any]:
    return run_cell(cell, *_shared)
