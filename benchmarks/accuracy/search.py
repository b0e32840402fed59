"""Search for recipes on validation alone: Optuna proposes, the best few are trained again with other seeds, one is chosen.

A search writes one line a trial, with its recipe and validation figures, never a test figure; killed, it goes on where it was.
"""

import statistics
import warnings
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from benchmarks import jsonl
from benchmarks.accuracy.columns import Column
from benchmarks.accuracy.spaces import base_recipe, first, space
from benchmarks.accuracy.workers import train
from gesm.errors import DivergedError, GesmError
from gesm.training import Recipe

__all__ = ["chosen", "search"]

FINALISTS = 4  # trained again with other seeds, at most half of the trials: the best of many noisy figures is flattered


def search(column: Column, model: str, path: Path, executor: Executor, trials: int, seeds: int) -> Recipe:
    """Completes the search in a file and gives the recipe that it chose.

    Each trial is trained with the seeds 0 ... seeds - 1. The best `FINALISTS`, at most half of them, are trained with as many
    seeds again, and with them all averaged, the highest validation metric wins, of equal ones the lower loss.
    """
    distributions, base = _distributions(column, model), base_recipe(column, model)
    lines, finals = _read(path)
    _check(path, lines + finals, distributions, base, seeds)
    if lines and lines[0]["params"] != first(column, model):
        raise GesmError(f"{path} began with another setting than now; move the file away to search anew")
    for number in range(len(lines), trials):
        params = _propose(lines, number, distributions, trials) if number else first(column, model)
        line = _trial(column, base, number, params, range(seeds), executor)
        _write(path, line)
        lines.append(line)
    done = {line["trial"] for line in finals}
    for line in _finalists(lines):
        if line["trial"] not in done:
            _write(path, _trial(column, base, line["trial"], line["params"], range(seeds, 2 * seeds), executor))
    return chosen(path)


def chosen(path: Path) -> Recipe:
    """The recipe that won a finished search."""
    lines, finals = _read(path)
    second = {line["trial"]: line for line in finals}
    finalists = _finalists(lines)
    if not lines or any(line["trial"] not in second for line in finalists):
        raise GesmError(f"{path} holds no finished search; complete it with `python -m benchmarks.accuracy search`")
    both = [line | {key: line[key] + second[line["trial"]][key] for key in ("val", "val_loss")} for line in finalists]
    return Recipe.from_dict(min(both, key=_rank)["recipe"])


def _distributions(column: Column, model: str) -> dict[str, Any]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return {key: optuna.distributions.CategoricalDistribution(values) for key, values in space(column, model).items()}


def _check(path: Path, lines: list[dict[str, Any]], distributions: dict[str, Any], base: Recipe, seeds: int) -> None:
    for line in lines:
        if len(line["seeds"]) != seeds:
            raise GesmError(
                f"{path} has {len(line['seeds'])} seeds behind a trial, not {seeds}; move the file away to search anew"
            )
        if missing := sorted(set(distributions) - set(line["params"])):
            raise GesmError(f"{path} searched no {', '.join(missing)}; move the file away to search anew")
        if Recipe.from_dict(line["recipe"]) != base.replace(**line["params"]):
            raise GesmError(f"{path} searched with other fixed settings than now; move the file away to search anew")
        for key, value in line["params"].items():
            if key not in distributions or value not in distributions[key].choices:
                raise GesmError(f"{path} searched another space: {key}={value}; move the file away to search anew")


def _propose(lines: list[dict[str, Any]], number: int, distributions: dict[str, Any], trials: int) -> dict[str, Any]:
    """The next setting: at random for half of the trials, then by Optuna's TPE; one that was tried already teaches nothing.

    It depends on the number and on the trials so far alone, so that a search that was killed goes on as if it had not been.
    """
    import optuna

    past = [optuna.trial.create_trial(params=line["params"], distributions=distributions, value=_value(line)) for line in lines]
    for attempt in range(50):
        seed = number + attempt * 1000
        if number < trials // 2 or attempt >= 10:
            sampler: Any = optuna.samplers.RandomSampler(seed=seed)
        else:
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, multivariate=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(past)
        params = study.ask(distributions).params
        if all(_effective(params) != _effective(line["params"]) for line in lines):
            break
    return params


def _effective(params: dict[str, Any]) -> dict[str, Any]:
    """What of a setting changes the training: not the beta of no structure loss, nor for whom depths are drawn if none are."""
    idle = set() if params.get("structure_weight") else {"structure_beta"}
    if params.get("hop_sampling") == "none":
        idle.add("hop_per")
    return {key: value for key, value in params.items() if key not in idle}


def _finalists(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    best: list[dict[str, Any]] = []
    for line in sorted(lines, key=_rank):
        if all(_effective(line["params"]) != _effective(other["params"]) for other in best):
            best.append(line)
    return best[: min(FINALISTS, max(len(lines) // 2, 1))]


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
    except DivergedError as error:
        print(error, flush=True)
        return {"val": 0.0, "val_loss": 1e9, "epochs": 0, "epoch_ms": 0.0}


def _value(line: dict[str, Any]) -> float:
    """What Optuna maximises: accuracy, and the loss to tell equal ones apart."""
    return statistics.mean(line["val"]) - 1e-4 * min(statistics.mean(line["val_loss"]), 10.0)


def _rank(line: dict[str, Any]) -> tuple[float, float]:
    return -statistics.mean(line["val"]), statistics.mean(line["val_loss"])


def _read(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The trials of a search, and the second runs of its finalists."""
    lines = jsonl.read(path)
    return [line for line in lines if line["seeds"][0] == 0], [line for line in lines if line["seeds"][0] > 0]


def _write(path: Path, line: dict[str, Any]) -> None:
    jsonl.append(path, line)
    print(f"{path.stem} {line['trial']}: val {100 * statistics.mean(line['val']):.2f} {line['params']}", flush=True)
