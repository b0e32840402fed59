import numpy as np
import pytest
import torch

from gesm import GesmError
from gesm.recommend import simulate


def counts(data, step):
    return torch.bincount(data.item[data.time == step], minlength=data.num_items).double()


def correlation(a, b):
    return float(np.corrcoef(a.flatten(), b.flatten())[0, 1])


def taste(data, step):
    """[U, I] counts beyond what the popularity of items explains."""
    rows = data.time == step
    matrix = torch.zeros(data.num_users, data.num_items, dtype=torch.double)
    matrix.index_put_((data.user[rows], data.item[rows]), torch.ones((), dtype=torch.double), accumulate=True)
    return matrix - matrix.sum(1, keepdim=True) * matrix.sum(0) / matrix.sum()


def test_shape_and_columns():
    data = simulate(num_users=30, num_items=20, steps=4, interactions_per_step=50)
    assert (len(data), data.num_users, data.num_items) == (200, 30, 20)
    assert data.time.tolist() == sorted([0, 1, 2, 3] * 50)
    assert data.user.max() < 30
    assert data.item.max() < 20


def test_rate_zero_is_stationary():
    data = simulate(num_users=40, num_items=60, steps=6, interactions_per_step=20000)
    assert correlation(counts(data, 0), counts(data, 5)) > 0.97
    assert correlation(taste(data, 0), taste(data, 5)) > 0.8


def test_rate_one_forgets():
    data = simulate(num_users=40, num_items=400, steps=3, interactions_per_step=20000, interest_drift=1.0, popularity_drift=1.0)
    assert abs(correlation(counts(data, 0), counts(data, 2))) < 0.2
    assert abs(correlation(taste(data, 0), taste(data, 2))) < 0.1


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_log_popularity_keeps_the_stated_correlation(rate):
    data = simulate(num_users=5, num_items=400, steps=3, interactions_per_step=200000, popularity_drift=rate, affinity=0)
    first, second, third = (torch.log(counts(data, step) + 1) for step in range(3))
    assert correlation(first, second) == pytest.approx(1 - rate, abs=0.12)
    assert correlation(first, third) == pytest.approx((1 - rate) ** 2, abs=0.12)


def test_interests_and_popularity_drift_apart():
    sizes = {"num_users": 40, "num_items": 60, "steps": 3, "interactions_per_step": 20000}
    interests = simulate(**sizes, interest_drift=1.0, affinity=1.0)
    popularity = simulate(**sizes, popularity_drift=1.0)
    assert correlation(counts(interests, 0), counts(interests, 2)) > 0.8
    assert abs(correlation(taste(interests, 0), taste(interests, 2))) < 0.15
    assert correlation(counts(popularity, 0), counts(popularity, 2)) < 0.4
    assert correlation(taste(popularity, 0), taste(popularity, 2)) > 0.3


def test_reproducible_by_seed():
    first, again, other = (simulate(steps=2, interest_drift=0.3, seed=seed) for seed in (1, 1, 2))
    assert first.item.equal(again.item)
    assert first.user.equal(again.user)
    assert not first.item.equal(other.item)


def test_items_are_drawn_by_their_probability(monkeypatch):
    monkeypatch.setattr("gesm.recommend.drift._CELLS", 30)  # three users at a time
    data = simulate(num_users=7, num_items=10, steps=1, interactions_per_step=70000, popularity=0.0, affinity=0.0)
    expected = 70000 / 70
    table = torch.bincount(data.user * 10 + data.item, minlength=70).double()
    assert ((table - expected) ** 2 / expected).sum() < 120  # chi-square with 69 degrees of freedom: p < 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 0}, "num_users must be an int >= 1, got 0"),
        ({"steps": 2.5}, "steps must be"),
        ({"interactions_per_step": -1}, "interactions_per_step must be"),
        ({"interest_drift": 1.5}, r"interest_drift must be in \[0, 1\]"),
        ({"popularity_drift": -0.1}, "popularity_drift must be"),
        ({"popularity_drift": float("nan")}, "popularity_drift must be"),
        ({"affinity": -1}, "affinity must be >= 0"),
        ({"popularity": float("inf")}, "popularity must be >= 0 and finite"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(GesmError, match=message):
        simulate(**arguments)
