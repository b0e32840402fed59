"""The folder of a run: which files it holds, when it may be written to, when it is finished."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from gesm.errors import GesmError
from gesm.training.checkpoint import write_atomic
from gesm.training.recipe import Recipe

__all__ = ["RunFolder"]

_FILES = ("recipe.yaml", "metrics.jsonl", "checkpoint.safetensors", "model.safetensors", "curves.png", "result.json")
_HALF_WRITTEN = tuple(f".{name}.tmp" for name in _FILES)


class RunFolder:
    """Paths of one run, or of a set of runs kept in ``run-000``, ``run-001``, ...

    Args:
        path: The folder; made if need be.
        recipe: Written to recipe.yaml; on resuming it must equal the one there.
        resume: Go on from what the folder holds, if anything.
        overwrite: Delete the files of an earlier run, or set of runs; whatever else lies there stays.
        runs: How many; the folder is that of a set if there are several.

    Raises:
        GesmError: If a run is there and neither ``resume`` nor ``overwrite`` is set, if it has another recipe, if a set
            meets a single run or the other way round, or one of more runs.
    """

    def __init__(self, path: str | Path, recipe: Recipe, resume: bool = False, overwrite: bool = False, runs: int = 1) -> None:
        self.path = Path(path)
        self.recipe, self.metrics, self.checkpoint, self.model, self.curves, self.result = (self.path / name for name in _FILES)
        if resume and overwrite:
            raise GesmError("resume and overwrite exclude each other; pass one")
        if self.path.exists() and not self.path.is_dir():
            raise GesmError(f"{self.path} is a file; pass a folder")
        single, several, held = self.metrics.exists() or self.model.exists(), runs > 1, _runs(self.path)
        if resume:
            self._check_same(recipe)
            if (single and several) or (held and len(held) > (runs if several else 0)):
                found = f"a set of {len(held)} runs" if held else "a single run"
                raise GesmError(f"{self.path} holds {found}; resume it with the number of runs it was started with, not {runs}")
        elif not overwrite and (held or _holds_run(self.path)):
            raise GesmError(
                f"{self.path} already holds a run; continue it with --resume, replace it with --overwrite, "
                "or pass another folder"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _delete(self.path, _FILES + _HALF_WRITTEN if overwrite else _HALF_WRITTEN)
            for run in held if overwrite else ():
                _delete(run, _FILES + _HALF_WRITTEN)
                with contextlib.suppress(OSError):  # somebody keeps files of their own in it
                    run.rmdir()
            if not self.recipe.exists():
                write_atomic(self.recipe, recipe.to_yaml())
        except OSError as error:
            raise GesmError(f"cannot write to {self.path}: {error.strerror}") from None

    def _check_same(self, recipe: Recipe) -> None:
        if not self.recipe.exists():
            return
        old, new = Recipe.load(self.recipe).to_dict(), recipe.to_dict()
        changed = [f"{key} {old.get(key)} -> {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)]
        if changed:
            raise GesmError(
                f"{self.path} was started with another recipe ({', '.join(changed)}); "
                "resume with the same one, or use --overwrite or another folder"
            )


def _runs(path: Path) -> list[Path]:
    named = (run for run in path.glob("run-*") if re.fullmatch(r"run-[0-9]{3,}", run.name))
    return sorted(run for run in named if run.is_dir() and _holds_run(run))


def _holds_run(path: Path) -> bool:
    return any((path / name).exists() for name in _FILES)


def _delete(path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (path / name).unlink(missing_ok=True)
