import pytest
import torch
from torch_geometric.utils import homophily

from gesm.datasets import load, synthetic
from gesm.errors import GesmError


def test_one_graph_has_the_attributes_of_a_loaded_one(home):
    data = synthetic()
    assert set(data.keys()) == set(load("citeseer").keys())
    assert data.is_undirected()
    assert data.y.bincount().tolist() == [20, 20, 20]
    assert homophily(data.edge_index, data.y) > 0.6
    assert (data.train_mask.int() + data.val_mask.int() + data.test_mask.int()).eq(1).all()


def test_several_graphs_are_a_batch_split_by_graph():
    data = synthetic(num_nodes=20, num_classes=4, task="multilabel", num_graphs=5)
    assert (data.num_graphs, data.inductive, data.task, data.num_classes) == (5, True, "multilabel", 4)
    assert (data.y.dtype, data.y.shape) == (torch.float32, (100, 4))
    assert data.y.sum(dim=1).unique().tolist() == [1, 2]
    assert [int(data[f"{part}_mask"].sum()) for part in ("train", "val", "test")] == [60, 20, 20]
    assert len(data.to_data_list()) == 5


def test_seed_decides():
    first, again, other = synthetic(seed=1), synthetic(seed=1), synthetic(seed=2)
    assert first.edge_index.equal(again.edge_index)
    assert first.x.equal(again.x)
    assert not first.x.equal(other.x)


@pytest.mark.parametrize("bad", [{"num_nodes": 2}, {"num_classes": 1}, {"task": "regression"}, {"num_graphs": 2}])
def test_bad_arguments(bad):
    ((name, value),) = bad.items()
    with pytest.raises(GesmError, match=f"{name} is {value!r}; allowed"):
        synthetic(**bad)
