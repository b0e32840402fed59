import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesm import GesmError
from gesm.recommend import Interactions, k_core


def test_rows_are_dropped_until_all_have_enough():
    # Item 9 has one row; without it user 3 has one; without that item 2 still has two.
    data = Interactions.from_arrays([1, 1, 2, 2, 3, 3], [1, 2, 1, 2, 2, 9])
    core = k_core(data, 2)
    assert (core.user_ids.tolist(), core.item_ids.tolist(), len(core)) == ([1, 2], [1, 2], 4)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40), st.integers(1, 4))
def test_the_core_is_dense_and_largest(rows, k):
    left = rows
    while True:
        users, items = [u for u, _ in left], [i for _, i in left]
        kept = [(u, i) for u, i in left if users.count(u) >= k and items.count(i) >= k]
        if kept == left:
            break
        left = kept
    data = Interactions.from_arrays([u for u, _ in rows], [i for _, i in rows])
    if not left:
        with pytest.raises(GesmError, match="core"):
            k_core(data, k)
        return
    core = k_core(data, k)
    assert list(zip(core.user_ids[core.user.numpy()].tolist(), core.item_ids[core.item.numpy()].tolist(), strict=True)) == left


@pytest.mark.parametrize(("k", "message"), [(0, "int >= 1, got 0"), (1.5, "got 1.5"), (2, "has no 2-core")])
def test_errors(k, message):
    with pytest.raises(GesmError, match=message):
        k_core(Interactions.from_arrays([1, 2], [1, 2]), k)
