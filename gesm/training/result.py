"""What a run yields, and what several runs of one recipe say together."""

from __future__ import annotations

import json
import math
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gesm import __version__
from gesm.errors import GesmError
from gesm.training.recipe import Recipe

__all__ = ["Result", "interval", "summarize", "versions"]


def versions() -> dict[str, str]:
    """What a result was made with."""
    import torch_geometric

    return {
        "gesm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
    }


@dataclass(frozen=True)
class Result:
    """One run: the metric at the selected epoch, its costs and, if it was trained just now, the selected model.

    Attributes:
        val: Validation metric in [0, 1] at ``selected_epoch``; ``val_loss`` likewise.
        test: Test metric in [0, 1], read once, with the weights of ``selected_epoch``.
        epochs: Epochs run before patience or the limit ended it.
        epoch_ms: Median wall time of one epoch, training step and evaluation.
        peak_memory_mb: Largest memory of the process (CPU) or of the allocator (CUDA); ``None`` where unknown.
        versions: What it was trained with.
    """

    dataset: str
    model: str
    protocol: str
    metric: str
    device: str
    seed: int
    selected_epoch: int
    epochs: int
    val: float
    val_loss: float
    test: float
    epoch_ms: float
    peak_memory_mb: float | None
    versions: dict = field(default_factory=versions, compare=False)
    module: torch.nn.Module | None = field(default=None, repr=False, compare=False)

    @classmethod
    def load(cls, path: Path, module: torch.nn.Module | None = None) -> Result:
        """Reads the ``result.json`` of a single run and adds its model."""
        try:
            d = json.loads(path.read_text(encoding="utf-8"))
            texts = {name: d[name] for name in ("dataset", "model", "protocol", "metric", "device")}
            counts = {name: d[name][0] for name in ("seed", "selected_epoch", "epochs")}
            figures = {name: d[name]["runs"][0] for name in ("val", "val_loss", "test")} | {"epoch_ms": d["epoch_ms"]}
            memory = d["peak_memory_mb"]
            for values, kind in ((texts, str), (counts, int), (figures, (int, float))):
                if not all(isinstance(value, kind) for value in values.values()):
                    raise TypeError
            if not isinstance(memory, (int, float, type(None))):
                raise TypeError
            return cls(**texts, **counts, **figures, peak_memory_mb=memory, versions=d["versions"], module=module)
        except (OSError, ValueError, LookupError, TypeError):
            raise GesmError(f"{path} is not the result of a gesm run; restore it or use --overwrite") from None


def interval(runs: list[float]) -> dict[str, Any]:
    """Mean, sample standard deviation and half width of the 95 % interval t(0.975, n-1) std / sqrt(n)."""
    n = len(runs)
    std = statistics.stdev(runs) if n > 1 else None
    ci95 = None
    if std is not None:
        from scipy.special import stdtrit

        ci95 = float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)
    return {"mean": math.fsum(runs) / n, "std": std, "ci95": ci95, "runs": runs}


def summarize(results: list[Result], recipe: Recipe) -> dict[str, Any]:
    """The JSON of one or several runs of a recipe; per-run values in run order, of versions only where they differ."""
    first = results[0]
    memory = [r.peak_memory_mb for r in results if r.peak_memory_mb is not None]
    return {
        **{name: getattr(first, name) for name in ("dataset", "model", "protocol", "metric")},
        **{name: interval([getattr(r, name) for r in results]) for name in ("val", "val_loss", "test")},
        **{name: [getattr(r, name) for r in results] for name in ("seed", "selected_epoch", "epochs")},
        "epoch_ms": statistics.median(r.epoch_ms for r in results),
        "peak_memory_mb": max(memory, default=None),
        "device": first.device,
        "versions": first.versions if all(r.versions == first.versions for r in results) else [r.versions for r in results],
        "recipe": recipe.to_dict(),
    }
