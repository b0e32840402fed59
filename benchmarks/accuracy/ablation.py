"""Ablations: a shipped recipe with one part changed at a time, paired by seed with the recipe itself."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from benchmarks.accuracy.cells import gap, is_of, read_cell, run_cell
from benchmarks.accuracy.columns import Column
from gesm.training import Recipe

__all__ = ["ablate", "ablation_table", "variants"]


def variants(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Name -> changed keys; what the recipe has already, or its model does not know, is left out."""
    wide = recipe.hidden_channels * recipe.heads
    other = "additive" if recipe.score == "product" else "product"
    changes: dict[str, dict[str, Any]] = {
        "no attention (GSM of the same width)": {"model": "gsm", "hidden_channels": wide},
        f"{other} score": {"score": other},
        "no residual": {"residual": False},
        "no structure loss": {"structure_weight": 0.0},
        "structure loss, beta 1": {"structure_weight": recipe.structure_weight or 1.0, "structure_beta": 1.0},
        "structure loss, beta 0.5": {"structure_weight": recipe.structure_weight or 1.0, "structure_beta": 0.5},
        "no consistency": {"consistency_draws": 1},
        "no alignment": {"consistency_alignment": 0.0},
        "no hop sampling": {"consistency_draws": 1, "hop_sampling": "none"},
        "no input dropout": {"input_dropout": 0.0},
        "no attention dropout": {"attention_dropout": 0.0},
        "one weight decay": {"input_weight_decay": None},
        **{f"K = {K}": {"K": K} for K in (2, 4, 8, 14, 30)},
        "1 head of the same width": {"heads": 1, "hidden_channels": wide},
        "half the heads": {"heads": max(recipe.heads // 2, 1)},
        "twice the heads": {"heads": 2 * recipe.heads},
    }
    known = recipe.to_dict()
    kept = {}
    for name, change in changes.items():
        if "model" in change and recipe.model != "gesm":
            continue
        if set(change) <= {*known} and recipe.replace(**change) != recipe:
            kept[name] = change
    return kept


def ablate(
    column: Column, name: str, recipe: Recipe, folder: Path, executor: Executor, runs: int, only: Collection[str] = ()
) -> None:
    """Completes the recipe's cell and one for each variant, or for those named that it has."""
    parts = variants(recipe)
    run_cell(column, name, recipe, folder, executor, runs)
    for variant, change in parts.items():
        if only and variant not in only:
            continue
        run_cell(column, _cell_name(name, variant), recipe.replace(**change), folder, executor, runs)


def ablation_table(column: Column, name: str, recipe: Recipe, folder: Path) -> str:
    """Markdown: test metric, and its difference to the recipe with the 95 % interval over the seeds they share."""
    whole = read_cell(folder, column, name)
    if whole is None or not is_of(whole, recipe):
        return ""
    lines = ["| | test | minus the recipe |", "| --- | ---: | ---: |", f"| **{name}** | {_percent(whole['test'])} | |"]
    for variant, change in variants(recipe).items():
        cell = read_cell(folder, column, _cell_name(name, variant))
        if cell is not None and is_of(cell, recipe.replace(**change)):
            lines.append(f"| {variant} | {_percent(cell['test'])} | {gap(cell, whole)} |")
    return "\n".join(lines)


def _cell_name(name: str, variant: str) -> str:
    words = "".join(letter if letter.isalnum() or letter == "." else " " for letter in variant).split()
    return f"{name}-{'-'.join(words).lower()}"


def _percent(scores: dict[str, Any]) -> str:
    return f"{100 * scores['mean']:.2f} ± {100 * scores['std']:.2f}"
