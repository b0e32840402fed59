"""Training runs, one or several, that can be killed at any moment and resumed without a trace in their result."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data

from gesm.errors import GesmError
from gesm.training.checkpoint import load_tensors, write_atomic
from gesm.training.folder import RunFolder
from gesm.training.recipe import Recipe
from gesm.training.result import Result, summarize
from gesm.training.run import Epoch, Run
from gesm.training.task import Task

__all__ = ["fit", "fit_many", "pick_device"]


def fit(
    recipe: Recipe,
    data: Any,
    seed: int = 0,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str | torch.device = "auto",
    checkpoint_every: float = 2.0,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Result:
    """Trains once and reads the test set once, at the epoch that validation selected.

    Args:
        recipe: Model and settings.
        data: PyG ``Data``, or ``Batch`` of graphs for inductive training; see :class:`Task`.
        seed: From 0 to 2^63 - 1; given to ``torch.manual_seed`` and to the generator that shuffles the training graphs.
        run_dir: Folder for recipe.yaml, metrics.jsonl, model.safetensors, curves.png and result.json.
        resume: Go on from the last checkpoint of ``run_dir``; on the CPU of one machine, with the same versions and
            number of threads, the outcome equals that of an uninterrupted run bit by bit; CUDA adds in no fixed order. A
            finished run is read back.
        overwrite: Replace the run that ``run_dir`` holds.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        checkpoint_every: Least seconds between two checkpoints, which never take more than 2 % of the time; 0 saves
            after each epoch.
        on_epoch: Called after each epoch.

    Raises:
        GesmError: On bad data or settings, a folder that is in use or a damaged checkpoint.
        gesm.errors.DivergedError: A GesmError, on a loss that is not finite.
    """
    seed, device = _check_seed(seed), pick_device(device)
    if not isinstance(recipe, Recipe):
        kind = type(recipe).__name__
        raise GesmError(f"recipe must be a gesm.training.Recipe, got {kind}; make one with Recipe.for_dataset or Recipe(...)")
    if resume and run_dir is None:
        raise GesmError("resume needs run_dir (--out), the folder of the run to continue")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    run = Run(recipe, Task(data, recipe, device), seed, device)
    folder = RunFolder(run_dir, recipe, resume, overwrite) if run_dir is not None else None
    if folder is None:
        _train(run, on_epoch)
        return _score(run)
    if folder.result.exists():
        folder.checkpoint.unlink(missing_ok=True)
        return _read_back(run, folder)
    if folder.checkpoint.exists():
        run.restore(folder.checkpoint)
    write_atomic(folder.metrics, "".join(map(run.line, run.history)))
    _train(run, on_epoch, folder, checkpoint_every)
    run.keep(folder.model)
    result = _score(run)
    from gesm.training.report import curves

    write_atomic(folder.curves, curves(run.history, run.selection.selected, run.task))
    write_atomic(folder.result, json.dumps(summarize([result], recipe), indent=2) + "\n")  # last: it marks a finished run
    folder.checkpoint.unlink(missing_ok=True)
    return result


def fit_many(
    recipe: Recipe,
    load: Callable[[int], Any],
    runs: int = 1,
    seed: int = 0,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_run: Callable[[Result], None] | None = None,
    **options: Any,
) -> list[Result]:
    """Runs with seeds ``seed``, ``seed + 1``, ..., in ``run_dir`` itself (one run) or its run-000, run-001, ...

    ``load`` gives the data for a seed: that of a run is also that of a random split. ``on_run`` is called after each
    run, also one that was finished already and is read back; ``options`` go to :func:`fit`, which explains the rest.
    """
    if runs < 1:
        raise GesmError(f"runs must be at least 1, got {runs}")
    seed = _check_seed(seed, runs)
    if isinstance(load, Data) or not callable(load):  # Data has a call of its own
        raise GesmError(
            f"load must be a function that gives the data for a seed, got {type(load).__name__}; pass lambda seed: ..."
        )
    folder = None
    if run_dir is not None and runs > 1:
        if overwrite:  # what cannot be trained must not cost what is there
            first, others, device = load(seed), load, pick_device(options.get("device", "auto"))
            Run(recipe, Task(first, recipe, device), seed, device)
            load = lambda s: first if s == seed else others(s)  # noqa: E731
        folder = RunFolder(run_dir, recipe, resume, overwrite, runs)
    results = []
    for r in range(runs):
        path = Path(run_dir) / f"run-{r:03d}" if folder else run_dir
        result = fit(recipe, load(seed + r), seed + r, path, resume=resume, overwrite=overwrite, **options)
        results.append(result)
        if on_run:
            on_run(result)
    if folder:
        write_atomic(folder.result, json.dumps(summarize(results, recipe), indent=2) + "\n")
    return results


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.empty(0, device=device).device
        if found.type not in ("cpu", "cuda", "mps", "xpu"):
            raise RuntimeError("it does not compute")
        return found
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise GesmError(f"device {str(device)!r} cannot be used here ({reason}); pass auto, cpu or cuda") from None


def _check_seed(seed: int, runs: int = 1) -> int:
    if not isinstance(seed, Integral) or not 0 <= seed <= 2**63 - runs:
        raise GesmError(f"seed must be a whole number from 0 to 2^63 - {runs} (of {runs} runs), got {seed!r}")
    return int(seed)


def _train(run: Run, on_epoch: Callable | None, folder: RunFolder | None = None, every: float = 0.0) -> None:
    with folder.metrics.open("a", encoding="utf-8", newline="\n") if folder else nullcontext() as metrics:
        saved, pause = time.monotonic(), every
        while not run.finished:
            epoch = run.epoch()
            if folder:
                metrics.write(run.line(epoch))
                metrics.flush()
                now = time.monotonic()
                if now - saved >= pause and not math.isnan(epoch.val_loss):
                    run.save(folder.checkpoint)
                    saved = time.monotonic()
                    pause = max(every, 50 * (saved - now)) if every else 0.0
            if on_epoch:
                on_epoch(epoch)


def _score(run: Run) -> Result:
    run.model.load_state_dict(run.best)
    chosen = run.history[run.selection.selected - 1]
    return Result(
        dataset=run.task.name,
        model=run.recipe.model,
        protocol=run.task.protocol,
        metric=run.task.metric,
        device=str(run.device),
        seed=run.seed,
        selected_epoch=chosen.epoch,
        epochs=len(run.history),
        val=chosen.val_metric,
        val_loss=chosen.val_loss,
        test=run.task.evaluate(run.model, "test")[1].item(),
        epoch_ms=1000 * statistics.median(e.seconds for e in run.history),
        peak_memory_mb=_peak_memory_mb(run.device),
        module=run.model,
    )


def _read_back(run: Run, folder: RunFolder) -> Result:
    tensors, saved = load_tensors(folder.model)
    run.check_same(saved, folder.model)
    run.model.load_state_dict(tensors)
    return Result.load(folder.result, run.model.eval())


def _peak_memory_mb(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
