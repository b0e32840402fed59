import numpy as np
import pytest
import torch

from gesm import GesmError
from gesm.recommend import paired_bootstrap


def sample(rng, effect, seeds=8, users=(60, 80)):
    """Values of two methods over origins; users, seeds and their pairs vary, a is better by `effect`."""
    a, b = [], []
    wobble = rng.normal(0, 0.01, (2, seeds, 1))
    for size in users:
        user = rng.gamma(2, 0.1, size)
        b.append(user + wobble[0] + rng.normal(0, 0.05, (seeds, size)))
        a.append(user + effect + wobble[1] + rng.normal(0, 0.05, (seeds, size)) + rng.normal(0, 0.05, size))
    return a, b


def test_the_interval_covers_a_known_effect():
    rng = np.random.default_rng(0)
    covered = found = 0
    for trial in range(100):
        result = paired_bootstrap(*sample(rng, 0.03), repetitions=400, seed=trial)
        low, high = result.difference_interval
        covered += low <= 0.03 <= high
        found += result.excludes_zero
    assert 86 <= covered <= 99
    assert found > 60


def test_what_is_detectable_is_detected_four_times_in_five():
    rng = np.random.default_rng(1)
    results = [paired_bootstrap(*sample(rng, 0.0), repetitions=200, seed=i) for i in range(20)]
    effect = float(np.mean([result.detectable * result.mean_b for result in results]))
    found = sum(paired_bootstrap(*sample(rng, effect), repetitions=200, seed=i).excludes_zero for i in range(100))
    assert 65 <= found <= 97


def test_means_and_pooling():
    a = [np.array([[1.0, 3.0]]), np.array([[8.0]])]
    b = [np.array([[1.0, 1.0]]), np.array([[4.0]])]
    result = paired_bootstrap(a, b, repetitions=100)
    assert (result.mean_a, result.mean_b, result.difference, result.relative) == (4, 2, 2, 1)  # a user counts, not an origin


def test_identical_methods_differ_by_nothing():
    a, _ = sample(np.random.default_rng(2), 0)
    result = paired_bootstrap(a, a, repetitions=200)
    assert result.difference_interval == result.relative_interval == (0, 0)
    assert result.half_width == result.detectable == result.difference == 0
    assert not result.excludes_zero


def test_swapping_mirrors_the_interval():
    a, b = sample(np.random.default_rng(3), 0.05)
    there, back = (paired_bootstrap(*pair, repetitions=500) for pair in ((a, b), (b, a)))
    assert there.difference_interval == pytest.approx([-x for x in back.difference_interval[::-1]])
    assert there.difference == pytest.approx(-back.difference)


def test_reproducible_by_seed_and_of_any_array_type():
    a, b = sample(np.random.default_rng(4), 0.05, users=(30,))
    first = paired_bootstrap(a[0], b[0], repetitions=200)
    assert first == paired_bootstrap(torch.from_numpy(a[0]), b[0].tolist(), repetitions=200)
    assert first != paired_bootstrap(a, b, repetitions=200, seed=1)


def test_the_standard_error_over_users_is_the_known_one():
    d = np.random.default_rng(5).normal(1, 1, (1, 400))
    result = paired_bootstrap(d + 1, np.ones((1, 400)), repetitions=4000)
    assert result.detectable == pytest.approx(2.8 * d.std() / 20, rel=0.05)
    assert result.half_width == pytest.approx(1.96 * d.std() / 20, rel=0.05)


def test_seeds_are_shared_by_all_origins():
    """Values that depend on the seed alone: more origins do not narrow the interval."""
    values = np.random.default_rng(6).normal(1, 1, (10, 1))
    wide = paired_bootstrap([values + np.ones(20)] * 5, [np.ones((10, 20))] * 5, repetitions=2000)
    assert wide.detectable == pytest.approx(2.8 * values.std(ddof=1) / np.sqrt(10), rel=0.1)


def test_users_drawn_with_all_their_origins():
    """The same users in each of four origins, alike in all: the interval is that of one origin."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(1, 0.5, (1, 100)), np.ones((1, 100))
    ids = [rng.permutation(100) for _ in range(4)]
    shuffled = [a[:, order] for order in ids]
    alone = paired_bootstrap(a, b, repetitions=3000)
    apart = paired_bootstrap(shuffled, [b] * 4, repetitions=3000)
    together = paired_bootstrap(shuffled, [b] * 4, users=ids, repetitions=3000)
    assert together.half_width == pytest.approx(alone.half_width, rel=0.1)
    assert apart.half_width == pytest.approx(alone.half_width / 2, rel=0.1)
    assert together.difference == pytest.approx(alone.difference)
    assert paired_bootstrap(a, b, users=np.arange(100), repetitions=3000).half_width == pytest.approx(alone.half_width, rel=0.1)


ONE = np.ones((2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"b": np.ones((2, 4))}, "same users and seeds"),
        ({"a": [ONE, np.ones((1, 3))], "b": [ONE, np.ones((1, 3))]}, r"have \[2, 1\] seeds"),
        ({"a": np.ones(3)}, r"got shape \[3\]"),
        ({"a": []}, r"got shape \[0\]"),
        ({"a": np.ones((2, 0))}, "at least one of each"),
        ({"a": ONE * np.nan}, "a holds NaN"),
        ({"b": ONE * 0}, "mean of b is 0"),
        ({"repetitions": 10}, "repetitions must be an int >= 100"),
        ({"level": 1}, "level in"),
        ({"users": [1, 2]}, "one id a column"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(GesmError, match=message):
        paired_bootstrap(**{"a": ONE, "b": ONE} | arguments)
