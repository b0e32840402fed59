import pytest
import torch

from gesm.datasets import _splits, load
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


@pytest.mark.parametrize(("rate", "count"), [(0.01, 10), (0.001, 4)])
def test_few_labels_hold_every_class_and_spare_the_public_sets(rate, count):
    y = torch.randint(4, (1000,))
    public = {"val_mask": torch.arange(1000) < 300, "test_mask": torch.arange(1000) >= 700}
    known = torch.arange(1000) % 7 > 0
    masks = [_splits.few_labels(y, public, known, rate, seed)["train_mask"] for seed in (0, 0, 1)]
    assert not any((mask & ~known).any() for mask in masks)
    assert all(int(mask.sum()) == count and y[mask].unique().numel() == 4 for mask in masks)
    assert not any((mask & (public["val_mask"] | public["test_mask"])).any() for mask in masks)
    assert masks[0].equal(masks[1])
    assert not masks[0].equal(masks[2])


def test_a_class_that_no_draw_can_hold_is_an_error():
    y, none = torch.arange(8) % 2, torch.zeros(8, dtype=torch.bool)
    with pytest.raises(GesmError, match="1000 draws of 4 nodes all missed a class; use protocol 'public'"):
        _splits.few_labels(y, {"val_mask": none, "test_mask": none}, y == 0, 0.5, 0)


def test_nodes_without_a_label_of_their_own_are_not_drawn():
    for seed in range(20):
        data = load("citeseer", protocol="1%", seed=seed)
        assert data.x[data.train_mask].any(1).all()


def test_a_share_of_the_labels_keeps_the_public_validation_and_test_sets():
    public, few = load("citeseer"), load("citeseer", protocol="0.5%", seed=1)
    assert int(few.train_mask.sum()) == 17
    assert few.protocol == "0.5%"
    assert few.val_mask.equal(public.val_mask)
    assert few.test_mask.equal(public.test_mask)


def test_small_class_is_refused():
    with pytest.raises(GesmError, match=r"a class has 50 nodes; this split needs more than 20 \+ 30"):
        _splits.per_class(torch.arange(100) % 2, 0)
