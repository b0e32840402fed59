"""A world that drifts at a set rate, to see from which drift on a method pays."""

import numpy as np
import torch

from gesm.errors import GesmError
from gesm.recommend.interactions import Interactions

__all__ = ["simulate"]

_CELLS = 2**22  # probabilities held at once


def simulate(
    num_users: int = 500,
    num_items: int = 500,
    steps: int = 10,
    interest_drift: float = 0.0,
    popularity_drift: float = 0.0,
    interactions_per_step: int = 5000,
    seed: int = 0,
    *,
    dim: int = 8,
    affinity: float = 2.0,
    popularity: float = 1.0,
) -> Interactions:
    r"""Draw interactions of users whose interests, and of items whose popularity, change from step to step.

    Items have fixed factors :math:`\mathbf{v}_i`, uniform on the sphere of radius :math:`\sqrt{d}`. Interests and log
    popularity are stationary AR(1) processes,

    .. math::
        \mathbf{u}_u^{(t+1)} = (1 - r)\, \mathbf{u}_u^{(t)} + \sqrt{1 - (1 - r)^2}\, \boldsymbol{\epsilon}, \qquad
        s_i^{(t+1)} = (1 - p)\, s_i^{(t)} + \sqrt{1 - (1 - p)^2}\, \epsilon,

    that start in N(0, I_d) and N(0, 1). In each step users are drawn uniformly, and user u takes item i with probability

    .. math:: \mathrm{softmax}_i\big(a\, \mathbf{u}_u \cdot \mathbf{v}_i / \sqrt{d} + c\, s_i\big).

    Pairs may repeat.

    Args:
        num_users: U.
        num_items: I.
        steps: T; the times are 0 to T - 1.
        interest_drift: r in [0, 1]. The correlation of a user's interests from one step to the next is 1 - r: at 0
            interests stay, at 1 they are forgotten with every step.
        popularity_drift: p in [0, 1], likewise for log popularity.
        interactions_per_step: Rows of each step.
        seed: Everything is drawn from it; equal arguments give equal rows.
        dim: d.
        affinity: a, the standard deviation over items of what interests add to a user's logits.
        popularity: c, that of what popularity adds.

    Raises:
        GesmError: a size below 1, a rate outside [0, 1], a strength below 0.
    """
    sizes = {"num_users": num_users, "num_items": num_items, "steps": steps, "dim": dim}
    for name, value in (sizes | {"interactions_per_step": interactions_per_step}).items():
        if not isinstance(value, int) or value < 1:
            raise GesmError(f"{name} must be an int >= 1, got {value!r}")
    for name, value in (("interest_drift", interest_drift), ("popularity_drift", popularity_drift)):
        if not 0 <= value <= 1:
            raise GesmError(f"{name} must be in [0, 1], 1 minus the correlation from step to step, got {value!r}")
    for name, value in (("affinity", affinity), ("popularity", popularity)):
        if not 0 <= value < np.inf:
            raise GesmError(f"{name} must be >= 0 and finite, got {value!r}")

    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((num_items, dim))
    factors *= np.sqrt(dim) / np.linalg.norm(factors, axis=1, keepdims=True)  # a longer one would be popular for ever
    interests, log_popularity = rng.standard_normal((num_users, dim)), rng.standard_normal(num_items)
    users, items = [], []
    for _ in range(steps):
        user = rng.integers(num_users, size=interactions_per_step)
        bias = popularity * log_popularity
        users.append(user)
        items.append(_choose(interests * (affinity / np.sqrt(dim)), factors, bias, user, rng.random(interactions_per_step)))
        interests = _step(interests, interest_drift, rng)
        log_popularity = _step(log_popularity, popularity_drift, rng)
    return Interactions(
        user=torch.from_numpy(np.concatenate(users)),
        item=torch.from_numpy(np.concatenate(items)),
        time=torch.arange(steps).repeat_interleave(interactions_per_step),
        weight=None,
        num_users=num_users,
        num_items=num_items,
        user_ids=np.arange(num_users),
        item_ids=np.arange(num_items),
        name=f"simulated(interest_drift={interest_drift:g}, popularity_drift={popularity_drift:g})",
    )


def _step(state: np.ndarray, drift: float, rng: np.random.Generator) -> np.ndarray:
    kept = 1 - drift
    return kept * state + np.sqrt(1 - kept**2) * rng.standard_normal(state.shape)


def _choose(interests: np.ndarray, factors: np.ndarray, bias: np.ndarray, user: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """One item a row: the inverse of the user's cumulative distribution at `draw` in [0, 1)."""
    item = np.empty_like(user)
    num_items = len(factors)
    size = max(_CELLS // num_items, 1)
    for start in range(0, len(interests), size):
        logits = interests[start : start + size] @ factors.T + bias
        cdf = np.exp(logits - logits.max(1, keepdims=True)).cumsum(1)
        cdf /= cdf[:, -1:]
        rows = np.flatnonzero((user >= start) & (user < start + size))
        place = user[rows] - start
        # Users' distributions one behind the other are one sorted array, searched at once.
        flat = (cdf + np.arange(len(cdf))[:, None]).ravel()
        found = np.searchsorted(flat, place + draw[rows], side="right") - place * num_items
        item[rows] = found.clip(0, num_items - 1)
    return item
