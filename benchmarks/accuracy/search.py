"""Search for recipes on validation alone: Optuna proposes, the best few are trained again with other seeds, one is chosen.

A search writes one line a trial, with its recipe and validation figures, never a test figure; killed, it goes on where it was.
"""

import json
import statistics
import warnings
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from benchmarks.accuracy.columns import Column
from benchmarks.accuracy.spaces import base_recipe, published, space
from benchmarks.accuracy.workers import train
from gesm.errors import GesmError
from gesm.training import Recipe

__all__ = ["chosen", "search"]

FINALISTS = 4  # trained again with other seeds: the best of many noisy figures is flattered


def search(column: Column, model: str, path: Path, executor: Executor, trials: int, seeds: int) -> Recipe:
    """Completes the search in a file and gives the recipe that it chose.

    Each trial is trained with the seeds 0 ... seeds - 1. The best `FINALISTS` are trained with as many seeds again, and with
    them all averaged, the highest validation metric wins, of equal ones the lower loss.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    choices = space(column, model)
    distributions = {name: optuna.distributions.CategoricalDistribution(values) for name, values in choices.items()}
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=max(trials // 2, 1), multivariate=True)
    optimizer = optuna.create_study(direction="maximize", sampler=sampler)
    lines, finals = _read(path)
    for line in lines:
        past = optuna.trial.create_trial(params=line["params"], distributions=distributions, value=_value(line))
        optimizer.add_trial(past)
    base = base_recipe(column, model)
    for number in range(len(lines), trials):
        if number == 0:
            optimizer.enqueue_trial(published(model))
        proposal = optimizer.ask(distributions)
        for _ in range(20):  # what was tried already teaches nothing new
            known = next((line for line in lines if line["params"] == proposal.params), None)
            if known is None:
                break
            optimizer.tell(proposal, _value(known))
            proposal = optimizer.ask(distributions)
        line = _trial(column, base, number, proposal.params, range(seeds), executor)
        optimizer.tell(proposal, _value(line))
        _write(path, line)
        lines.append(line)
    done = {line["trial"] for line in finals}
    for line in _distinct(sorted(lines, key=_rank))[:FINALISTS]:
        if line["trial"] not in done:
            _write(path, _trial(column, base, line["trial"], line["params"], range(seeds, 2 * seeds), executor))
    return chosen(path)


def chosen(path: Path) -> Recipe:
    """The recipe that won a finished search."""
    lines, finals = _read(path)
    if not finals:
        raise GesmError(f"{path} holds no finished search; complete it with `python -m benchmarks.accuracy search`")
    first = {line["trial"]: line for line in lines}
    merged = [line | {key: first[line["trial"]][key] + line[key] for key in ("val", "val_loss")} for line in finals]
    return Recipe.from_dict(min(merged, key=_rank)["recipe"])


def _trial(
    column: Column, base: Recipe, number: int, params: dict[str, Any], seeds: range, executor: Executor
) -> dict[str, Any]:
    recipe = base.replace(**params)
    runs = [executor.submit(train, column.dataset, column.protocol, recipe.to_dict(), seed, False) for seed in seeds]
    records = [_outcome(run) for run in runs]
    figures = {key: [record[key] for record in records] for key in ("val", "val_loss", "epochs", "epoch_ms")}
    return {"trial": number, "seeds": list(seeds), **figures, "params": params, "recipe": recipe.to_dict()}


def _outcome(run: Future) -> dict[str, Any]:
    """The record of a run, or the worst there is if its loss was not finite."""
    try:
        return run.result()
    except GesmError as error:
        print(error, flush=True)
        return {"val": 0.0, "val_loss": 1e9, "epochs": 0, "epoch_ms": 0.0}


def _value(line: dict[str, Any]) -> float:
    """What Optuna maximises: accuracy, and the loss to tell equal ones apart."""
    return statistics.mean(line["val"]) - 1e-4 * min(statistics.mean(line["val_loss"]), 10.0)


def _rank(line: dict[str, Any]) -> tuple[float, float]:
    return -statistics.mean(line["val"]), statistics.mean(line["val_loss"])


def _distinct(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(line["params"], sort_keys=True): line for line in reversed(lines)}.values())[::-1]


def _read(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The trials of a search, and the second runs of its finalists."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["seeds"][0] == 0], [line for line in lines if line["seeds"][0] > 0]


def _write(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{path.stem} {line['trial']}: val {100 * statistics.mean(line['val']):.2f} {line['params']}", flush=True)
