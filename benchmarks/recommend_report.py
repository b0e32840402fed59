"""Tables of the benchmark of drift: means, differences and the smallest effects that can be seen, pooled over origins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recommend_cells import KINDS, LISTS, METRICS, K
from gesm.errors import GesmError
from gesm.recommend import paired_bootstrap

__all__ = ["COMPARISONS", "PRIMARY", "markdown", "study"]

Row = tuple[str, str]  # an arm and how it is read
# The differences: hop against fixed, each read both ways, and against what else there is.
PRIMARY: tuple[tuple[Row, Row], ...] = (
    (("hop-3", "expected"), ("fixed-3", "full")),
    (("hop-3", "full"), ("fixed-3", "full")),
)
PRIMARY_DATASETS = ("online-retail-ii", "movietweetings")
COMPARISONS: tuple[tuple[Row, Row], ...] = (
    *PRIMARY,
    (("hop-3", "expected"), ("fixed-3", "expected")),
    (("fixed-3", "expected"), ("fixed-3", "full")),
    (("hop-6", "full"), ("fixed-6", "full")),
    (("hop-6", "expected"), ("fixed-6", "full")),
    (("hop-6", "expected"), ("fixed-6", "expected")),
    (("hop-3", "full"), ("dropedge-3", "full")),
    (("dropedge-3", "full"), ("fixed-3", "full")),
    (("fixed-3", "full"), ("mf", "full")),
    (("hop-3", "full"), ("mf", "full")),
    (("fixed-3", "full"), ("popularity", "full")),
    (("fixed-3", "full"), ("popularity-recent", "full")),
)


class _Values:
    """Values of all cells of a data set, looked up by arm, reading and kind of pairs."""

    def __init__(self, cells: list[dict[str, Any]], file: Callable[[dict[str, Any]], Path]):
        self.cells = {(cell["arm"], cell["q"], cell["seed"]): cell for cell in cells}
        trained = [cell for cell in cells if not cell["arm"].startswith("popularity")]
        arms = {cell["arm"] for cell in trained}
        self.qs = sorted({cell["q"] for cell in cells})
        every = {cell["seed"] for cell in trained} or {0}
        # A study that was stopped is read as far as every arm and origin has the seed.
        complete = [s for s in every if all((arm, q, s) in self.cells for arm in arms for q in self.qs)]
        if not complete:
            raise GesmError("no seed has all arms and origins yet; let the study run on, or choose fewer in it")
        self.seeds, self.arms = sorted(complete), arms | {cell["arm"] for cell in cells}
        self.arrays = {}
        for key, cell in self.cells.items():
            if key[2] in self.seeds or cell["arm"].startswith("popularity"):
                with np.load(file(cell)) as stored:
                    self.arrays[key] = dict(stored)

    def origins(self, kind: str, *rows: Row) -> list[float]:
        """The origins where all these arms have their reading: of a study that was stopped, popularity may lack some."""
        return [q for q in self.qs if all(f"{kind}/{row[1]}" in self._cell(row[0], q, self.seeds[0]) for row in rows)]

    def _cell(self, arm: str, q: float, seed: int) -> dict[str, np.ndarray]:
        key = arm, q, seed if (arm, q, seed) in self.arrays else 0  # popularity has one seed
        return self.arrays.get(key, {})

    def users(self, kind: str) -> list[int]:
        """How many users there are at each origin that has such pairs."""
        found = {q: len(cell[f"users/{kind}"]) for (_, q, _), cell in self.arrays.items() if f"users/{kind}" in cell}
        return [found[q] for q in self.qs if q in found]

    def pooled(self, row: Row, kind: str, metric: str, qs: list[float]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Values [seeds, users] and the users' ids, for each of these origins."""
        values, users = [], []
        for q in qs:
            cells = [self._cell(row[0], q, seed) for seed in self.seeds]
            values.append(np.stack([cell[f"{kind}/{row[1]}"][METRICS.index(metric)] for cell in cells]))
            users.append(cells[0][f"users/{kind}"])
        return values, users


def study(
    cells: list[dict[str, Any]], file: Callable[[dict[str, Any]], Path], repetitions: int = 2000, longer: int = 1
) -> dict[str, Any]:
    """Everything that the tables show, for every data set.

    Args:
        cells: The lines of the study.
        file: Where a cell's arrays are.
        repetitions: Bootstrap samples; primary comparisons take 10000 if this is 2000 or more.
        longer: Factor of the number of steps; a study of more steps than planned has no primary comparisons.

    Raises:
        GesmError: a data set of which no seed is complete.
    """
    found: dict[str, Any] = {}
    for dataset in dict.fromkeys(cell["dataset"] for cell in cells):
        own = [cell for cell in cells if cell["dataset"] == dataset]
        found[dataset] = _dataset(dataset, _Values(own, file), repetitions, longer)
    metrics = [f"{metric}@{K}" for metric in METRICS]
    return {"metrics": metrics, "repetitions": repetitions, "longer": longer, "datasets": found}


def _dataset(name: str, values: _Values, repetitions: int, longer: int) -> dict[str, Any]:
    means, differences, depths = [], [], []
    rows = [(arm, reading) for arm in sorted(values.arms) for reading in ("full", "expected")]
    for kind in KINDS:
        for row in rows:
            if not (qs := values.origins(kind, row)):
                continue
            entry: dict[str, Any] = {"kind": kind, "arm": row[0], "reading": row[1], "origins": qs}
            for metric in METRICS:
                one, users = values.pooled(row, kind, metric, qs)
                entry[metric] = _mean(one, users, repetitions)
            entry |= _lists(values, row, kind)
            means.append(entry)
        for first, second in COMPARISONS:
            if qs := values.origins(kind, first, second):
                planned = longer == 1 and kind == "new" and (first, second) in PRIMARY and name in PRIMARY_DATASETS
                for metric in METRICS:
                    primary = planned and metric == "ndcg"
                    size = max(repetitions, 10_000) if primary and repetitions >= 2000 else repetitions
                    (a, users), (b, _) = (values.pooled(row, kind, metric, qs) for row in (first, second))
                    if min(np.mean([x.mean() for x in a]), np.mean([x.mean() for x in b])) <= 0:
                        continue  # no hit at all, no share of it
                    result = paired_bootstrap(a, b, users, size)
                    by_origin = [float((x - y).mean()) for x, y in zip(a, b, strict=True)]
                    differences.append(
                        {"kind": kind, "metric": metric, "primary": primary, "a": first, "b": second, "origins": qs}
                        | vars(result)
                        | {"excludes_zero": result.excludes_zero, "by_origin": by_origin}
                    )
    for arm in sorted(values.arms):
        for depth in range(1, 100):
            row = arm, str(depth)
            if not (qs := values.origins("new", row)):
                break
            one, _ = values.pooled(row, "new", "ndcg", qs)
            depths.append({"arm": arm, "depth": depth, "ndcg": float(np.concatenate(one, 1).mean())})
    return {
        "origins": values.qs,
        "seeds": values.seeds,
        "shares": {f"{q:g}": next(c["shares"] for key, c in values.cells.items() if key[1] == q) for q in values.qs},
        "users": {kind: values.users(kind) for kind in KINDS},
        "means": means,
        "differences": differences,
        "depths": depths,
        "train_seconds": {arm: _seconds(values, arm) for arm in sorted(values.arms)},
    }


def _mean(one: list[np.ndarray], users: list[np.ndarray], repetitions: int) -> dict[str, Any]:
    if not any(x.any() for x in one):
        return {"mean": 0.0, "interval": [0.0, 0.0]}
    result = paired_bootstrap([2 * x for x in one], one, users, repetitions)  # 2 x - x: the interval of x itself
    return {"mean": result.mean_b, "interval": list(result.difference_interval)}


def _lists(values: _Values, row: Row, kind: str) -> dict[str, float]:
    """Means over origins and seeds of the measures of whole lists."""
    found = {}
    cells = [cell for key, cell in values.cells.items() if key in values.arrays and cell["arm"] == row[0]]
    for name in LISTS:
        all_of = [cell["means"].get(f"{kind}/{row[1]}", {}).get(f"{name}@{K}") for cell in cells]
        kept = [value for value in all_of if value is not None]
        if kept:
            found[name] = float(np.mean(kept))
    return found


def _seconds(values: _Values, arm: str) -> float:
    cells = [cell for key, cell in values.cells.items() if key in values.arrays and cell["arm"] == arm]
    return float(np.mean([cell["seconds"]["train"] for cell in cells]))


def markdown(record: dict[str, Any]) -> str:
    """The record as tables."""
    lines = [
        "# Recommenders under drift",
        "",
        "Metrics x 100, means over origins, users and seeds with 95 % bootstrap intervals.",
        "",
    ]
    if record["longer"] > 1:
        lines += [f"With {record['longer']} times the steps of the plan: no comparison here is a primary one.", ""]
    for name, data in record["datasets"].items():
        lines += [f"## {name}", "", f"{len(data['seeds'])} seeds, origins {', '.join(f'{q:g}' for q in data['origins'])}.", ""]
        lines += _shares_table(data)
        for kind in KINDS:
            rows = [row for row in data["means"] if row["kind"] == kind]
            if rows:
                lines += [f"### {kind} pairs, {sum(data['users'][kind])} users over the origins", "", *_means_table(rows, data)]
                own = [row for row in data["differences"] if row["kind"] == kind]
                lines += _differences_table(own, data)
        lines += _depths_table(data["depths"])
    return "\n".join(lines)


def _table(head: list[str], rows: list[list[str]], texts: int) -> list[str]:
    align = ["---"] * texts + ["---:"] * (len(head) - texts)
    return [f"| {' | '.join(row)} |" for row in (head, align, *rows)] + [""]


def _shares_table(data: dict[str, Any]) -> list[str]:
    head = ["origin", "training rows", "pairs", "users", "cold users", "cold items", "rows warm user", "warm item", "both"]
    keys = ("rows", "pairs", "window_users", "cold_users", "cold_items")
    shares = ("warm_user_share", "warm_item_share", "warm_share")
    rows = [
        [q, *(f"{own[key]:,}" for key in keys), *(f"{own[key]:.3f}" for key in shares)] for q, own in data["shares"].items()
    ]
    return _table(head, rows, 0)


def _means_table(rows: list[dict[str, Any]], data: dict[str, Any]) -> list[str]:
    head = ["arm", "read", *(f"{metric}@{K}" for metric in METRICS), *LISTS, "training, s"]
    lines = []
    for row in rows:
        values = [_interval(row[metric]["mean"], row[metric]["interval"]) for metric in METRICS]
        lists = [f"{row[name]:.0f}" if name == "popularity" else f"{row[name]:.3f}" if name in row else "-" for name in LISTS]
        lines.append(
            [row["arm"] + _part(row, data), row["reading"], *values, *lists, f"{data['train_seconds'][row['arm']]:.1f}"]
        )
    return _table(head, lines, 2)


def _differences_table(rows: list[dict[str, Any]], data: dict[str, Any]) -> list[str]:
    head = ["a", "b", "metric", "a - b", "relative, %", "smallest detectable, %", "excludes zero"]
    lines = []
    for row in rows:
        low, high = row["relative_interval"]
        relative = f"{100 * row['relative']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        said = ("yes" if row["excludes_zero"] else "no") + (" (primary)" if row["primary"] else "")
        who = [" ".join(row["a"]), " ".join(row["b"]) + _part(row, data), f"{row['metric']}@{K}"]
        difference = _interval(row["difference"], row["difference_interval"], "+")
        lines.append([*who, difference, relative, f"{100 * row['detectable']:.1f}", said])
    return _table(head, lines, 3)


def _part(row: dict[str, Any], data: dict[str, Any]) -> str:
    """Says where a row is not of all origins that its kind of pairs has."""
    have, all_of = len(row["origins"]), len(data["users"][row["kind"]])
    return "" if have == all_of else f" ({have} of {all_of} origins)"


def _depths_table(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    depths = sorted({row["depth"] for row in rows})
    by_arm: dict[str, dict[int, float]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], {})[row["depth"]] = row["ndcg"]
    lines = [[arm, *(f"{100 * own[d]:.2f}" if d in own else "-" for d in depths)] for arm, own in by_arm.items()]
    title = f"NDCG@{K} on new pairs, read at a depth below the largest:"
    return [title, "", *_table(["arm", *map(str, depths)], lines, 1)]


def _interval(value: float, interval: list[float] | tuple[float, float], sign: str = "") -> str:
    low, high = interval
    return f"{100 * value:{sign}.2f} [{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"
