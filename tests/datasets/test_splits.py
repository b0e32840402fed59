import pytest
import torch

from gesm.datasets import _splits
from gesm.errors import GesmError

Y = torch.arange(400) % 4


def parts(masks):
    return [masks[f"{part}_mask"] for part in ("train", "val", "test")]


@pytest.mark.parametrize("split", _splits.SPLITS.values(), ids=_splits.SPLITS)
def test_every_node_is_in_exactly_one_part(split):
    for seed in range(3):
        train, val, test = parts(split(Y, seed))
        assert (train.int() + val.int() + test.int()).eq(1).all()


def test_shchur_takes_20_and_30_of_every_class():
    train, val, _ = parts(_splits.per_class(Y, seed=1))
    assert Y[train].bincount().tolist() == [20] * 4
    assert Y[val].bincount().tolist() == [30] * 4


def test_60_20_20():
    assert [int(part.sum()) for part in parts(_splits.sixty_twenty_twenty(Y[:399], 0))] == [239, 80, 80]


@pytest.mark.parametrize("split", _splits.SPLITS.values(), ids=_splits.SPLITS)
def test_seed_alone_decides(split):
    torch.manual_seed(0)
    first = split(Y, 5)["train_mask"]
    torch.manual_seed(1)
    assert split(Y, 5)["train_mask"].equal(first)
    assert not split(Y, 6)["train_mask"].equal(first)


def test_splits_are_the_same_on_every_machine():
    assert _splits._order(10, 0).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
    assert _splits._order(10, 7).tolist() == [6, 3, 4, 9, 0, 2, 8, 7, 5, 1]


def test_small_class_is_refused():
    with pytest.raises(GesmError, match=r"a class has 50 nodes; this split needs more than 20 \+ 30"):
        _splits.per_class(torch.arange(100) % 2, 0)
