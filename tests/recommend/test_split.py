import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gesm import GesmError
from gesm.recommend import Interactions, Window, rolling_origins, targets, temporal_split


def table(times, users=None, items=None):
    n = len(times)
    return Interactions.from_arrays(users or [0] * n, items or [0] * n, times)


def test_windows_hold_the_rows_between_quantiles():
    windows = rolling_origins(table(list(range(100))))
    assert [w.q for w in windows] == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for w in windows:
        start = round(w.q * 100)
        assert w.train.time.tolist() == list(range(start))
        assert w.test.time.tolist() == list(range(start, start + 10))
        assert (w.start, w.end) == (start, start + 10)


@given(st.lists(st.integers(0, 12), min_size=30, max_size=60), st.sampled_from([0.1, 0.2, 0.3]))
def test_no_time_is_on_both_sides(times, width):
    data = table(times)
    try:
        windows = rolling_origins(data, (0.3, 0.5, 1 - width), width)
    except GesmError:
        return
    for w in windows:
        assert w.train.time.max() < w.start <= w.test.time.min()
        assert w.test.time.max() < w.end
        assert len(w.train) == (data.time < w.start).sum()
    assert len(windows[-1].train) + len(windows[-1].test) == len(data)


@given(st.lists(st.integers(0, 12), min_size=30, max_size=60))
def test_temporal_split_is_a_partition_in_time(times):
    data = table(times)
    try:
        parts = temporal_split(data, 0.2, 0.2)
    except GesmError:
        return
    assert torch.cat([part.time for part in parts]).equal(data.time)
    assert parts[0].time.max() < parts[1].time.min()
    assert parts[1].time.max() < parts[2].time.min()


def test_a_share_of_zero_leaves_the_part_empty():
    assert [len(part) for part in temporal_split(table(list(range(10))), 0, 0.2)] == [8, 0, 2]
    assert [len(part) for part in temporal_split(table(list(range(10))), 0.2, 0)] == [8, 2, 0]
    assert [len(part) for part in temporal_split(table(list(range(10))), 0, 0)] == [10, 0, 0]


@pytest.fixture
def window():
    """Users 0 and 1 and items 0 and 1 are warm; user 2 and item 2 come in the window, user 3 and item 3 never."""
    data = Interactions.from_arrays([0, 0, 1, 1, 0, 0, 1, 2, 0, 0], [0, 0, 1, 0, 1, 1, 1, 0, 2, 0], list(range(10)))
    fields = {"num_users": 4, "num_items": 4, "user_ids": np.arange(4), "item_ids": np.arange(4)}
    data = Interactions(user=data.user, item=data.item, time=data.time, weight=None, **fields)
    return Window(data.select(range(4)), data.select(range(4, 10)))


@pytest.mark.parametrize(
    ("kind", "pairs"), [("new", [(0, 1)]), ("repeat", [(0, 0), (1, 1)]), ("all", [(0, 0), (0, 1), (1, 1)])]
)
def test_targets(window, kind, pairs):
    found = targets(window, kind)
    assert list(zip(found.user.tolist(), found.item.tolist(), strict=True)) == pairs
    assert found.users.tolist() == sorted({u for u, _ in pairs})
    assert (found.window_users, found.warm_users, found.cold_users, found.cold_items) == (3, 2, 1, 1)
    shares = found.warm_user_share, found.warm_item_share, found.warm_share
    assert shares == pytest.approx((5 / 6, 5 / 6, 4 / 6))


def test_a_window_without_targets_is_legal(window):
    found = targets(Window(window.train, window.test.select([3])))
    assert (len(found.user), len(found.users), found.cold_users) == (0, 0, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rolling_origins(Interactions.from_arrays([1], [1])), "has no times"),
        (lambda: rolling_origins(table([1]).select([])), "no rows to split"),
        (lambda: rolling_origins(table([1, 2]), width=1), r"width must be in \(0, 1\), got 1"),
        (lambda: rolling_origins(table([1, 2]), (0.95,)), r"qs must be in \(0, 0.9\]"),
        (lambda: rolling_origins(table([1, 2]), ()), "qs must be"),
        (lambda: rolling_origins(table([1] * 20)), "at q = 0.3: too many rows share a time"),
        (lambda: temporal_split(table([1, 2]), 0.5, 0.5), "sum below 1, got 0.5 and 0.5"),
        (lambda: temporal_split(table([1] * 20)), "has no rows"),
        (lambda: Window(table([1]), table([1], items=[0], users=[0]).select([])), "test has no rows"),
        (lambda: Window(table([1]), table([1, 2], [0, 1])), "train has num_users 1, test 2"),
        (lambda: targets(Window(table([1]), table([1])), "old"), "one of new, repeat, all, got 'old'"),
    ],
)
def test_errors(call, message):
    with pytest.raises(GesmError, match=message):
        call()
