"""One cell of the benchmark of drift: a recommender trained before an origin and read in the window behind it."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.recommend import Interactions, Pairs, Settings, Targets, Window, evaluate, fit, load, rolling_origins, scorer, targets

__all__ = ["ARMS", "DATASETS", "METRICS", "Origin", "origin", "run_cell", "settings_of"]

K = 20
METRICS = ("ndcg", "map", "recall")
LISTS = ("coverage", "personalization", "popularity")
KINDS = ("new", "repeat")


@dataclass(frozen=True)
class Dataset:
    """A data set of the study.

    Attributes:
        options: Of `gesm.recommend.load`.
        graph: Settings of all models with a graph, chosen for the fixed K = 3 on the development origin.
        mf: Settings of matrix factorisation, chosen there with as many trials.
        steps: Optimiser steps of every arm at every origin.
    """

    options: Mapping[str, Any]
    graph: Mapping[str, Any]
    mf: Mapping[str, Any]
    steps: int


COMMON = {"embedding_dim": 32, "loss": "bpr", "batch_size": 32768}
# Chosen on the development origin alone, see PLAN.md.
DATASETS = {
    "online-retail-ii": Dataset(
        {"products_only": True},
        graph=COMMON | {"lr": 0.1, "weight_decay": 1e-3},
        mf=COMMON | {"lr": 0.02, "weight_decay": 0.03},
        steps=240,
    ),
    "movietweetings": Dataset(
        {}, graph=COMMON | {"lr": 0.03, "weight_decay": 0.03}, mf=COMMON | {"lr": 0.03, "weight_decay": 0.1}, steps=120
    ),
    "ml-100k": Dataset(
        {}, graph=COMMON | {"lr": 0.1, "weight_decay": 1e-3}, mf=COMMON | {"lr": 0.03, "weight_decay": 0.03}, steps=120
    ),
    "ciao": Dataset(
        {"min_count": 5},
        graph=COMMON | {"lr": 0.03, "weight_decay": 0.01},
        mf=COMMON | {"lr": 0.03, "weight_decay": 0.1},
        steps=120,
    ),
}

ARMS: dict[str, dict[str, Any]] = {
    "popularity": {"model": "popularity"},
    "popularity-recent": {"model": "popularity"},  # with `recent` as long as the last window before the origin
    "mf": {"model": "mf"},
    "fixed-1": {"K": 1},
    "fixed-2": {"K": 2},
    "fixed-3": {"K": 3},
    "fixed-6": {"K": 6},
    "hop-3": {"K": 3, "hops": "uniform"},
    "hop-6": {"K": 6, "hops": "uniform"},
    "dropedge-3": {"K": 3, "edge_dropout": 0.2},
}


class _Kept(Interactions):
    """A table that makes its pairs, graph and matrix once, for all arms."""

    @cached_property
    def _pairs(self) -> Pairs:
        return super().pairs()

    @cached_property
    def _graph(self) -> Graph:
        return super().graph()

    @cached_property
    def _matrix(self) -> sp.csr_array:
        return super().matrix()

    def pairs(self) -> Pairs:
        return self._pairs

    def graph(self, weight: str | None = None) -> Graph:
        return self._graph

    def matrix(self) -> sp.csr_array:
        return self._matrix


@dataclass(frozen=True, eq=False)
class Origin:
    """What all cells of a data set and an origin share.

    Attributes:
        train: The training rows, users and items without one left out.
        goals: Kind of pairs to its targets, in the numbers of `train`; a kind without any is missing.
        users: Kind to the users' numbers in the whole table, as the columns of the cells' arrays.
        recent: Duration of the window before the origin, in units of the table.
        shares: Cold users and items, and shares of warm rows.
    """

    train: Interactions
    goals: dict[str, Targets]
    users: dict[str, np.ndarray]
    recent: int
    shares: dict[str, float]


def origin(table: Interactions, q: float) -> Origin:
    """The window [q, q + 0.1) of a table and everything before it."""
    window = rolling_origins(table, [q])[0]
    whole = targets(window, "new")
    keys = ("window_users", "warm_users", "cold_users", "cold_items", "warm_user_share", "warm_item_share", "warm_share")
    train, to_user, to_item = _compact(window.train)
    user, item = to_user[window.test.user], to_item[window.test.item]
    warm = (user >= 0) & (item >= 0)
    test = window.test.select(warm)
    test = Interactions(
        user[warm], item[warm], test.time, None, train.num_users, train.num_items, train.user_ids, train.item_ids
    )
    goals = {kind: targets(Window(train, test), kind) for kind in KINDS}
    goals = {kind: goal for kind, goal in goals.items() if len(goal.users)}
    known = window.train.user.unique()
    end = int(train.time.max())
    begin = int(table.time[math.ceil(max(q - 0.1, 0) * (len(table) - 1) - 1e-6)])  # rows are in the order of time
    shares = {key: getattr(whole, key) for key in keys}
    users = {kind: known[goal.users].numpy() for kind, goal in goals.items()}
    return Origin(train, goals, users, end - begin, {"rows": len(train), "pairs": len(train.pairs().user), **shares})


def _compact(train: Interactions) -> tuple[_Kept, torch.Tensor, torch.Tensor]:
    maps = []
    for codes, size in ((train.user, train.num_users), (train.item, train.num_items)):
        known = codes.unique()
        maps.append(torch.full((size,), -1).index_copy_(0, known, torch.arange(len(known))))
    small = train.compact()
    fields = (small.user, small.item, small.time, None, small.num_users, small.num_items, small.user_ids, small.item_ids)
    return _Kept(*fields, small.name), *maps


@lru_cache(maxsize=1)
def loaded(dataset: str) -> Interactions:
    """The table of a data set, kept for the next origin."""
    return load(dataset, **DATASETS[dataset].options)


def settings_of(dataset: str, arm: str, seed: int, num_pairs: int, recent: int, longer: int = 1) -> Settings:
    """The settings of a cell: as many epochs as make up the number of steps, `longer` times it."""
    if arm not in ARMS:
        raise GesmError(f"no arm {arm!r}; choose from {', '.join(ARMS)}")
    spec = DATASETS[dataset]
    if arm.startswith("popularity"):
        return Settings(model="popularity", recent=recent if arm == "popularity-recent" else None)
    common = dict(spec.mf if arm == "mf" else spec.graph)
    a_pass = -(-num_pairs // min(common.get("batch_size") or num_pairs, num_pairs))
    return Settings(**common, **ARMS[arm], epochs=-(-spec.steps * longer // a_pass), seed=seed)


def run_cell(
    place: Origin, settings: Settings, on_epoch: Callable[[Any, int], None] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Trains a model and reads it at "full", "expected" and, for new pairs, each depth.

    Returns:
        What goes into the line of the cell, and for every kind and reading a float32 array [metrics, users].
    """
    torch.set_num_threads(1)
    model = settings.build_model(place.train.num_users, place.train.num_items)
    begin = time.perf_counter()
    losses = fit(model, place.train, settings, None if on_epoch is None else lambda epoch, _: on_epoch(model, epoch))
    trained = time.perf_counter()
    readings: list[str | int] = ["full"]
    if settings.model == "lightgcn":
        readings += ["expected", *range(1, settings.K)]  # depth K is "full"
    means, arrays = {}, {}
    for reading in readings:
        if len(readings) > 1:
            model.inference = reading
        score = scorer(model, place.train.graph())
        for kind, goal in place.goals.items():
            if kind == "new" or isinstance(reading, str):
                ranking = evaluate(score, goal, place.train, (K,))
                names = [f"{name}@{K}" for name in (*METRICS, *LISTS)]
                means[f"{kind}/{reading}"] = {name: ranking.mean[name] for name in names if name in ranking.mean}
                arrays[f"{kind}/{reading}"] = torch.stack([ranking.per_user[f"{name}@{K}"] for name in METRICS]).numpy()
    seconds = {"train": trained - begin, "read": time.perf_counter() - trained}
    return {"seconds": seconds, "loss": losses[-1] if losses else None, "means": means}, arrays
