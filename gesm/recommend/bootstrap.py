"""Is one recommender better than another, over users and seeds?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gesm.errors import GesmError

__all__ = ["Comparison", "paired_bootstrap"]

_CELLS = 2**20  # random numbers held at once


@dataclass(frozen=True)
class Comparison:
    """A metric of a against b; shares are of `mean_b`.

    Attributes:
        mean_a: Mean of a over origins, users and seeds.
        mean_b: Likewise of b.
        difference: mean_a - mean_b.
        difference_interval: Its bootstrap percentile interval.
        relative: difference / mean_b.
        relative_interval: Its interval, mean_b resampled too.
        half_width: Half the width of `difference_interval`, as a share: a smaller effect cannot be told from zero.
        detectable: Effect found with 80 % power at the 5 % level, 2.8 standard errors of the difference, as a share.
        level: Coverage of the intervals.
    """

    mean_a: float
    mean_b: float
    difference: float
    difference_interval: tuple[float, float]
    relative: float
    relative_interval: tuple[float, float]
    half_width: float
    detectable: float
    level: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of the difference lies on one side of zero."""
        low, high = self.difference_interval
        return low > 0 or high < 0


def paired_bootstrap(
    a: Any,
    b: Any,
    users: Sequence[Any] | None = None,
    repetitions: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    r"""Compare two recommenders on the same users with the same seeds, pooled over origins.

    Each repetition draws seeds with replacement, the same for all origins and for a and b, and users with replacement.
    With counts s [S] of the seeds and u [M] of the users the resampled sum is :math:`\mathbf{s}^T D\, \mathbf{u}` for the
    values D [S, M] of an origin; origins are pooled, every user of every origin weighing the same. Of S seeds S - 1 are
    drawn, which makes the variance over seeds unbiased; still, with fewer than about ten an interval is a little narrow.

    Args:
        a: Values [S, M] (seeds x users), or a sequence over origins of such, whose users may differ.
        b: Likewise, of the same shapes.
        users: For each origin the users' ids [M]. If given, a user is drawn with all origins it is in, which accounts for
            users that behave alike in each; if None, users are drawn within each origin.
        repetitions: Bootstrap samples.
        seed: Of the resampling.
        level: Coverage of the intervals.

    Raises:
        GesmError: shapes that differ, NaN, no user, a mean of b that is not above 0, settings out of range.
    """
    a, b = _origins(a, "a"), _origins(b, "b")
    if [x.shape for x in a] != [x.shape for x in b]:
        raise GesmError(
            f"a has shapes {[x.shape for x in a]}, b {[x.shape for x in b]}; a pairing needs the same users and seeds"
        )
    if len({x.shape[0] for x in a}) > 1:
        raise GesmError(f"the origins have {[x.shape[0] for x in a]} seeds; they must have the same ones")
    if not isinstance(repetitions, int) or repetitions < 100 or not 0 < level < 1:
        raise GesmError(f"repetitions must be an int >= 100, level in (0, 1), got {repetitions!r} and {level!r}")
    mean_a, mean_b = (float(np.concatenate(x, axis=1).mean()) for x in (a, b))
    if mean_b <= 0:
        raise GesmError(f"the mean of b is {mean_b:g}; a relative difference needs one above 0")
    values = [np.concatenate([x - y, y]) for x, y in zip(a, b, strict=True)]
    weight = [np.ones(x.shape[1]) for x in values]
    if users is not None:
        values, weight = _merge(values, users)
    rng = np.random.default_rng(seed)
    num_seeds = a[0].shape[0]
    num_drawn = max(num_seeds - 1, 1)
    seeds = rng.multinomial(num_drawn, np.full(num_seeds, 1 / num_seeds), size=repetitions) / num_drawn
    sums = sum(_resample(np.vstack([x, w]), repetitions, rng) for x, w in zip(values, weight, strict=True))
    total = sums[:, -1]
    drawn = (sums[:, :num_seeds] * seeds).sum(1) / total
    drawn_b = (sums[:, num_seeds:-1] * seeds).sum(1) / total
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(drawn, tails)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample of rare hits may hold none of b's
        relative = np.nan_to_num(drawn / drawn_b, nan=0.0, posinf=np.inf, neginf=-np.inf)
    relative_low, relative_high = np.quantile(relative, tails, method="nearest")
    return Comparison(
        mean_a=mean_a,
        mean_b=mean_b,
        difference=mean_a - mean_b,
        difference_interval=(float(low), float(high)),
        relative=(mean_a - mean_b) / mean_b,
        relative_interval=(float(relative_low), float(relative_high)),
        half_width=float(high - low) / 2 / mean_b,
        detectable=2.8 * float(drawn.std()) / mean_b,
        level=level,
    )


def _origins(values: Any, name: str) -> list[np.ndarray]:
    """The values as one float64 array [S, M] for each origin."""
    single = not isinstance(values, list | tuple) or not len(values) or np.ndim(values[0]) < 2
    arrays = [np.asarray(x, dtype=np.float64) for x in ([values] if single else values)]
    for x in arrays:
        if x.ndim != 2 or 0 in x.shape:
            raise GesmError(f"{name} must hold values [seeds, users] with at least one of each, got shape {list(x.shape)}")
        if not np.isfinite(x).all():
            raise GesmError(f"{name} holds NaN or infinity; give a number for every user and seed")
    return arrays


def _merge(values: list[np.ndarray], users: Sequence[Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sum each user's values over the origins it is in."""
    ids = [np.asarray(x) for x in (users if len(values) == len(users) and np.ndim(users[0]) else [users])]
    if [x.shape for x in ids] != [x.shape[1:] for x in values]:
        raise GesmError(
            f"users has shapes {[x.shape for x in ids]}, the values {[x.shape[1:] for x in values]}; give one id a column"
        )
    _, place = np.unique(np.concatenate(ids), return_inverse=True)
    everything = np.concatenate(values, axis=1)
    merged = np.stack([np.bincount(place, weights=row) for row in everything])
    return [merged], [np.bincount(place).astype(np.float64)]


def _resample(values: np.ndarray, repetitions: int, rng: np.random.Generator) -> np.ndarray:
    """[repetitions, rows] sums of the columns drawn with replacement."""
    size = values.shape[1]
    chunk = max(_CELLS // size, 1)
    sums = np.empty((repetitions, values.shape[0]))
    for start in range(0, repetitions, chunk):
        rows = min(chunk, repetitions - start)
        draw = rng.integers(size, size=(rows, size))
        draw += np.arange(rows)[:, None] * size
        counts = np.bincount(draw.ravel(), minlength=rows * size).reshape(rows, size)
        sums[start : start + rows] = counts @ values.T
    return sums
