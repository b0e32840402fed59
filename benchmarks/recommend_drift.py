"""Made worlds that drift at a set rate: from which rate on does hop sampling pay, if it does?"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.recommend_cells import K, origin, run_cell
from gesm.errors import GesmError
from gesm.recommend import Settings, simulate
from gesm.training.workers import end_with_parent

__all__ = ["KINDS_OF_DRIFT", "markdown", "run_world", "study"]

FIRST_WORLD = 100  # those of lower seeds were looked at while the study was written
KINDS_OF_DRIFT = ("interest_drift", "popularity_drift")
ARMS = {"fixed-3": {"K": 3}, "hop-3": {"K": 3, "hops": "uniform"}}
SETTINGS: dict[str, Any] = {"embedding_dim": 32, "loss": "bpr", "lr": 0.03, "weight_decay": 0.01, "epochs": 160}
SIZE: dict[str, int] = {"num_users": 500, "num_items": 500, "interactions_per_step": 3000}
# Differences of NDCG@20 on new pairs: a name, the first and the second (arm, reading).
COMPARISONS = (
    ("hop full - fixed full", ("hop-3", "full"), ("fixed-3", "full")),
    ("hop expected - fixed full", ("hop-3", "expected"), ("fixed-3", "full")),
    ("hop expected - fixed expected", ("hop-3", "expected"), ("fixed-3", "expected")),
)


def run_world(kind: str, rate: float, seed: int) -> dict[str, float]:
    """NDCG@20 on the new pairs of the last step, by "arm/reading", in the world of a seed."""
    world = simulate(**SIZE, **{kind: rate}, steps=10, seed=seed)
    place = origin(world, 0.9)
    found = {}
    for arm, changes in ARMS.items():
        cell, _ = run_cell(place, Settings(**SETTINGS, **changes, seed=seed))
        found |= {f"{arm}/{reading}": cell["means"][f"new/{reading}"][f"ndcg@{K}"] for reading in ("full", "expected")}
    return found


def study(rates: list[float], seeds: int, workers: int) -> dict[str, Any]:
    """All rates of both kinds of drift in `seeds` worlds each; intervals are Student's over worlds.

    Raises:
        GesmError: fewer than two seeds, which have no interval.
    """
    if seeds < 2 or workers < 1:
        raise GesmError(f"seeds must be at least 2 and workers at least 1, got {seeds} and {workers}")
    keys = [(kind, rate) for kind in KINDS_OF_DRIFT for rate in rates]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        first = {key: key if key[1] else (KINDS_OF_DRIFT[0], 0.0) for key in keys}  # without drift the kinds are one
        futures = {
            key: [pool.submit(run_world, *key, FIRST_WORLD + i) for i in range(seeds)] for key in dict.fromkeys(first.values())
        }
        worlds = {key: [future.result() for future in futures[first[key]]] for key in keys}
    rows = [_row(kind, rate, worlds[kind, rate]) for kind, rate in keys]
    onset: dict[str, dict[str, float | None]] = {}
    for kind in KINDS_OF_DRIFT:
        own = [row for row in rows if row["drift"] == kind]
        onset[kind] = {name: _onset(own, name) for name, *_ in COMPARISONS}
    return {"settings": SETTINGS, "size": SIZE, "seeds": seeds, "rows": rows, "pays_from": onset}


def _row(kind: str, rate: float, worlds: list[dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"drift": kind, "rate": rate, "worlds": worlds}
    row["mean"] = {key: float(np.mean([world[key] for world in worlds])) for key in worlds[0]}
    row["differences"] = {}
    for name, first, second in COMPARISONS:
        values = np.array([world["/".join(first)] - world["/".join(second)] for world in worlds])
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
        mean, base = float(values.mean()), row["mean"]["/".join(second)]
        row["differences"][name] = {"difference": mean, "interval": [mean - half, mean + half], "relative": mean / base}
    return row


def _onset(rows: list[dict[str, Any]], name: str) -> float | None:
    """The lowest rate from which on every interval is above zero; None if even the highest rate's is not."""
    found = None
    for row in sorted(rows, key=lambda row: -row["rate"]):
        if row["differences"][name]["interval"][0] <= 0:
            break
        found = row["rate"]
    return found


def markdown(record: dict[str, Any]) -> str:
    """The rows as tables, one for each kind of drift."""
    lines = ["# Hop sampling in made worlds that drift", ""]
    lines += [
        f"NDCG@{K} on new pairs of the last step, x 100; mean over {record['seeds']} worlds, Student's 95 % intervals.",
        "",
    ]
    names = [name for name, *_ in COMPARISONS]
    for kind in KINDS_OF_DRIFT:
        rows = [row for row in record["rows"] if row["drift"] == kind]
        lines += [f"## {kind}", "", "| rate | " + " | ".join([*rows[0]["mean"], *names]) + " |"]
        lines.append("| ---: |" + " ---: |" * (len(rows[0]["mean"]) + len(names)))
        for row in rows:
            values = [f"{100 * value:.2f}" for value in row["mean"].values()]
            for name in names:
                found = row["differences"][name]
                low, high = found["interval"]
                values.append(f"{100 * found['difference']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]")
            lines.append(f"| {row['rate']:g} | " + " | ".join(values) + " |")
        for name in names:
            rate = record["pays_from"][kind][name]
            said = (
                "at no rate is the interval above zero from there on" if rate is None else f"above zero from rate {rate:g} on"
            )
            lines.append(f"\n{name}: {said}.")
        lines.append("")
    return "\n".join(lines)
