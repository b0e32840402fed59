from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
import torch

from gesm import GesmError
from gesm.recommend import Interactions


def table(**changes):
    columns = {
        "user": ["c", "a", "c", "b", "c"],
        "item": [30, 10, 10, 20, 30],
        "time": [5, 1, 1, 9, 2],
        "weight": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
    return Interactions.from_arrays(**columns | changes)


def test_ids_are_numbered_in_order_and_rows_sorted_by_time_stably():
    data = table()
    assert data.user.tolist() == [0, 2, 2, 2, 1]
    assert data.item.tolist() == [0, 0, 2, 2, 1]
    assert data.time.tolist() == [1, 1, 2, 5, 9]
    assert data.weight.tolist() == [2, 3, 5, 1, 4]
    assert data.user_ids.tolist() == ["a", "b", "c"]
    assert data.item_ids.tolist() == [10, 20, 30]
    assert (len(data), data.num_users, data.num_items) == (5, 3, 3)
    assert repr(data) == "Interactions(interactions: 5 rows, 3 users, 3 items, 1 to 9)"


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_columns_of_any_kind(kind):
    data = Interactions.from_arrays(kind([7, 3]), kind([1, 1]), kind([2.5, 1.9]))
    assert data.user.tolist() == [0, 1]
    assert data.user_ids.tolist() == [3, 7]
    assert data.time.tolist() == [1, 2]
    assert data.weight is None


def test_without_times_the_order_stays():
    data = table(time=None, weight=None)
    assert data.user.tolist() == [2, 0, 2, 1, 2]
    assert repr(data) == "Interactions(interactions: 5 rows, 3 users, 3 items)"


@pytest.mark.parametrize(
    "times",
    [
        ["2020-01-02", "2020-01-01 12:00"],
        ["2020-01-02T01:00+01:00", "2020-01-01 12:00Z"],
        np.array(["2020-01-02", "2020-01-01T12:00"], dtype="datetime64[m]"),
        [datetime(2020, 1, 2, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2020, 1, 1, 12, tzinfo=UTC)],
        ["1577923200", "1577880000"],
        np.array([date(2020, 1, 2), datetime(2020, 1, 1, 12)], dtype=object),
    ],
)
def test_dates_become_seconds(times):
    data = Interactions.from_arrays([0, 1], [0, 1], times)
    assert data.time.tolist() == [1577880000, 1577923200]
    assert repr(data).endswith("2020-01-01 to 2020-01-02)")


def test_whole_floats_are_ids():
    assert Interactions.from_arrays(np.array([2.0, 1.0]), [0, 0]).user_ids.tolist() == [1, 2]


def test_select_keeps_the_numbers_and_compact_renumbers():
    data = table()
    part = data.select(data.user != 0)
    assert part.user.tolist() == [2, 2, 2, 1]
    assert (part.num_users, part.num_items) == (3, 3)
    assert part.select([3, 0]).time.tolist() == [9, 1]
    small = data.select(data.user == 2).compact()
    assert (small.user.tolist(), small.item.tolist()) == ([0, 0, 0], [0, 1, 1])
    assert (small.user_ids.tolist(), small.item_ids.tolist()) == (["c"], [10, 30])
    assert len(data.select(torch.zeros(5, dtype=torch.bool))) == 0


def test_pairs():
    user, item, time, count, weight = table().pairs()
    assert list(zip(user.tolist(), item.tolist(), strict=True)) == [(0, 0), (1, 1), (2, 0), (2, 2)]
    assert time.tolist() == [1, 9, 1, 2]
    assert count.tolist() == [1, 1, 1, 2]
    assert weight.tolist() == [2, 4, 3, 6]
    plain = table(time=None, weight=None).pairs()
    assert plain.time is None
    assert plain.weight is None
    assert len(table().select([]).pairs().user) == 0


def test_first_time_of_rows_in_any_order():
    assert table().select([3, 2]).pairs().time.tolist() == [2]


def test_graph_holds_each_pair_both_ways():
    graph = table().graph()
    edges = {tuple(edge) for edge in graph.edge_index.T.tolist()}
    pairs = {(0, 3), (1, 4), (2, 3), (2, 5)}
    assert edges == pairs | {(v, u) for u, v in pairs}
    assert (graph.num_nodes, graph.num_edges, graph.weight) == (6, 8, None)
    weighted = table().graph(weight="count")
    heavy = dict(zip(map(tuple, weighted.edge_index.T.tolist()), weighted.weight.tolist(), strict=True))
    assert heavy[(2, 5)] == heavy[(5, 2)] == 2
    assert sum(heavy.values()) == 10


def test_matrix():
    assert table().matrix().toarray().tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert table().select([]).matrix().shape == (3, 3)


def test_extended_keeps_old_numbers_and_appends_new_ones():
    old = table()
    more = Interactions.from_arrays(["z", "b", "aa"], [20, 5, 99], [0, 9, 10], [1, 1, 1])
    both = old.extended(more)
    assert both.user_ids.tolist() == ["a", "b", "c", "aa", "z"]
    assert both.item_ids.tolist() == [10, 20, 30, 5, 99]
    assert both.user.tolist() == [4, 0, 2, 2, 2, 1, 1, 3]
    assert both.item.tolist() == [1, 0, 0, 2, 2, 1, 3, 4]
    assert both.time.tolist() == [0, 1, 1, 2, 5, 9, 9, 10]
    again = both.extended(more)  # ids that are no longer sorted are found all the same
    assert again.user_ids.tolist() == both.user_ids.tolist()
    assert len(again) == 11


def test_without_leaves_out_what_is_known():
    known = Interactions.from_arrays(["b", "a", "c"], [20, 10, 10], time=[9, 1, 7])
    log = Interactions.from_arrays(["c", "a", "a", "d", "b", "b"], [10, 10, 10, 10, 20, 30], time=[7, 1, 2, 1, 9, 9])
    new = log.without(known)
    rows = [(new.user_ids[u], new.item_ids[i], int(t)) for u, i, t in zip(new.user, new.item, new.time, strict=True)]
    assert rows == [("d", 10, 1), ("a", 10, 2), ("b", 30, 9)]
    assert len(log.without(log)) == 0
    assert len(log.without(known.select([]))) == len(known.without(table(time=None))) + 3 == 6
    assert len(known.select([]).without(log)) == 0
    with pytest.raises(GesmError, match="use one type"):
        log.without(Interactions.from_arrays([1], [10], time=[0]))


def test_extending_an_empty_table():
    empty = table().select([]).compact()
    assert (empty.num_users, empty.num_items, len(empty)) == (0, 0, 0)
    assert empty.extended(table()).item.equal(table().item)


def made(**changes):
    fields = {
        "user": torch.tensor([0, 1]),
        "item": torch.tensor([0, 0]),
        "time": None,
        "weight": None,
        "num_users": 2,
        "num_items": 1,
        "user_ids": np.arange(2),
        "item_ids": np.arange(1),
    }
    return Interactions(**fields | changes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: table(user=[]), "user is empty"),
        (lambda: table(item=[1, 2]), "user has 5 rows but item 2"),
        (lambda: table(user=[[1, 2]]), "one-dimensional"),
        (lambda: table(user=np.array([1.0, 2.0, np.nan, 4.0, 5.0])), "user holds NaN or infinity in 1 rows"),
        (lambda: table(user=["a", None, "b", "c", "d"]), "None or NaN in 1 rows"),
        (lambda: table(user=["a", 1, "b", "c", "d"]), r"mixes strings with other types \(int, str\)"),
        (lambda: table(user=["a", np.nan, "b", "c", "d"]), "None or NaN in 1 rows"),
        (lambda: table(user=np.array([(1,)] + [{}] * 4, dtype=object)), "holds dict, tuple"),
        (lambda: table(user=[0.5, 1, 2, 3, 4]), "whole numbers or strings, got float64"),
        (lambda: table(user=[2**70, 1, 2, 3, 4]), "holds int; use whole numbers or strings"),
        (lambda: table(user=[2.0**60, 1, 2, 3, 4]), "holds floats from 2\\^53 on, which are not exact"),
        (lambda: table(user=np.array([2**63, 1, 2, 3, 4], dtype=np.uint64)), "holds numbers from 2\\^63 on; give them"),
        (lambda: table(time=[1, 2, 3, 4, np.nan]), "time holds None or NaN"),
        (lambda: table(time=["2020", "x", "2021", "2021", "2021"]), "no date"),
        (lambda: table(time=np.array(["NaT"] * 5, dtype="datetime64[s]")), "NaT"),
        (lambda: table(time=["2020-01-01"] * 4 + ["NaT"]), "NaT"),
        (lambda: table(time=[True] * 5), "seconds"),
        (lambda: table(weight=[1, 2, 3, 4, -1]), "negative in 1 rows"),
        (lambda: table(weight=list("abcde")), "weight must hold numbers"),
        (lambda: made(num_users=-2), "num_users must be an int >= 0, got -2"),
        (lambda: made(user=torch.tensor([0, 2])), "from 0 to 2, allowed is 0 to 1"),
        (lambda: made(user_ids=np.array(["a", 7], dtype=object)), r"user_ids must be a NumPy array \[2\].*got object \[2\]"),
        (lambda: made(item_ids=["a"]), r"item_ids must be a NumPy array \[1\] of whole numbers or strings, got list"),
        (lambda: made(user_ids=np.arange(2)[:, None]), r"got int64 \[2, 1\]; convert it"),
        (lambda: made(user_ids=np.arange(3)), "user_ids holds 3 ids, but num_users is 2"),
        (lambda: made(item=torch.tensor([0.0, 0.0])), "item must be a torch.int64 tensor"),
        (lambda: made(time=[1, 2]), "got list"),
        (lambda: table().select(torch.ones(3, dtype=torch.bool)), "mask has shape"),
        (lambda: table().select([5]), "allowed is 0 to 4"),
        (lambda: table().graph(weight="time"), "weight must be None or 'count'"),
        (lambda: table().extended(table(time=None)), "only one of the tables has time"),
        (lambda: table().extended(table(user=[1, 2, 3, 4, 5])), "use one type"),
    ],
)
def test_errors(call, message):
    with pytest.raises(GesmError, match=message):
        call()
