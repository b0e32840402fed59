import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, HeteroData
from torchmetrics.functional.classification import multiclass_accuracy, multilabel_f1_score

from gesm.datasets import synthetic
from gesm.errors import GesmError
from gesm.training import Recipe, Task, fit
from gesm.training.task import features, score


def test_one_graph():
    data = synthetic()
    task = Task(data, Recipe())
    (sample,) = task.samples
    assert task.train == [sample]
    assert task.metric == "accuracy"
    for split in ("train", "val", "test"):
        assert torch.equal(sample.rows[split], data[f"{split}_mask"].nonzero().view(-1))
        assert torch.equal(sample.y[split], data.y[data[f"{split}_mask"]])


def test_several_graphs_and_rows_outside_all_masks():
    data = synthetic(num_graphs=4, task="multilabel")
    data.y[3] = float("nan")
    data.train_mask[3] = False
    task = Task(data, Recipe())
    assert task.metric == "micro_f1"
    assert [list(sample.rows) for sample in task.samples] == [["train"], ["train"], ["val"], ["test"]]
    assert len(task.train[0].rows["train"]) == data[0].num_nodes - 1


def test_plain_data_needs_no_extra_attributes():
    data = synthetic()
    for key in ("name", "task", "num_classes", "protocol", "inductive"):
        del data[key]
    task = Task(data, Recipe())
    assert (task.name, task.kind, task.num_classes, task.protocol) == ("data", "multiclass", 3, "custom")


def test_scores_equal_torchmetrics():
    logits, y = torch.randn(200, 5), torch.randint(5, (200,))
    assert score(logits, y).item() == pytest.approx(multiclass_accuracy(logits, y, 5, average="micro").item())
    y = torch.randint(2, (200, 5))
    f1 = multilabel_f1_score(logits.sigmoid(), y, 5, average="micro")
    assert score(logits, y.float()).item() == pytest.approx(f1.item())
    assert score(-torch.ones(2, 2), torch.zeros(2, 2)) == 0


def test_features():
    x = torch.eye(10) * 3
    x[0] = 0
    rows = features(x, Recipe(feature_normalization="row"))
    assert rows.layout == torch.sparse_csr
    assert torch.equal(rows.to_dense().sum(1), torch.tensor([0.0] + [1.0] * 9))
    assert torch.equal(features(x, Recipe(sparse_features=False)), x)
    assert features(torch.ones(3, 3), Recipe()).layout == torch.strided
    assert features(torch.ones(3, 3), Recipe(sparse_features=True)).layout == torch.sparse_csr
    assert features(x.double(), Recipe()).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.float32, torch.float64])
def test_labels_of_any_type(dtype):
    data = synthetic()
    expected = Task(data, Recipe()).samples[0].y["train"]
    del data.num_classes
    data.y = data.y.to(dtype)
    task = Task(data, Recipe())
    assert task.num_classes == 3
    assert task.samples[0].y["train"].dtype == torch.long
    assert torch.equal(task.samples[0].y["train"], expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.long])
def test_multilabel_labels_of_any_type(dtype, recipe):
    data = synthetic(task="multilabel")
    expected = fit(recipe, data).test
    data.y = data.y.to(dtype)
    assert fit(recipe, data).test == expected


def test_unlabelled_nodes_do_not_count():
    data = synthetic()
    del data.num_classes
    data.y, data.train_mask[5] = data.y.double(), False
    data.val_mask[5] = data.test_mask[5] = False
    for y in (float("nan"), float("inf"), 99.0):
        data.y[5] = y
        assert Task(data, Recipe()).num_classes == 3


@pytest.mark.parametrize("graphs", [1, 4])
def test_edge_weights_are_used(graphs):
    data = synthetic(num_graphs=graphs)
    assert Task(data, Recipe()).samples[0].graph.weight is None
    data.edge_weight = torch.arange(data.num_edges).float() + 1
    if graphs > 1:
        parts = data.to_data_list()
        start = 0
        for part in parts:
            part.edge_weight = torch.arange(start, start + part.num_edges).float() + 1
            start += part.num_edges
        data = Batch.from_data_list(parts)
        data.num_classes = 3
    graph_weights = [sample.graph.weight for sample in Task(data, Recipe()).samples]
    assert torch.equal(torch.cat(graph_weights).sort()[0], torch.arange(data.num_edges) + 1.0)


def test_gradients_of_the_data_are_left_out():
    data = synthetic()
    data.x.requires_grad_()
    data.edge_weight = torch.rand(data.num_edges, requires_grad=True)
    (sample,) = Task(data, Recipe(feature_normalization="row")).samples
    assert not sample.x.requires_grad
    assert not sample.graph.weight.requires_grad


def test_a_negative_weight_on_a_loop_which_a_walk_replaces():
    data = synthetic()
    data.edge_index[:, 3] = 7
    data.edge_weight = _weights(data, 3, -2.0)
    Task(data, Recipe()).samples[0].graph.transition()


def _nan_label(data):
    data.y = data.y.float()
    data.y[data.train_mask.nonzero()[0]] = float("nan")


def _column(data):
    data.y = data.y[:, None]
    del data.task, data.num_classes


def _weights(data, bad, value):
    weight = torch.ones(data.num_edges)
    weight[bad] = value
    return weight


def _set(**values):
    return lambda data: data.update(values)


@pytest.mark.parametrize(
    ("task", "damage", "message"),
    [
        ("multiclass", lambda d: d.train_mask.fill_(False), "train_mask is empty"),
        ("multiclass", lambda d: d.test_mask.fill_(False), "test_mask is empty"),
        ("multiclass", _set(train_mask=torch.ones(3, dtype=torch.bool)), r"torch.bool \[60\], got torch.bool \[3\]"),
        ("multiclass", _set(val_mask=torch.ones(60)), "must be torch.bool"),
        ("multiclass", lambda d: (_nan_label(d), d.__delattr__("num_classes")), "1 nodes of train_mask have a NaN or inf"),
        ("multiclass", lambda d: _set(y=d.y + 0.5)(d), r"integers in \[0, 2\], got torch.float32 in \[0.5, 2.5\]"),
        ("multiclass", lambda d: _set(y=d.y.numpy())(d), "y must be a tensor, got ndarray; convert it with torch.as_tensor"),
        ("multiclass", _set(x=torch.ones(60)), r"\[N, F\]; got \[60\]"),
        ("multiclass", _set(x=torch.ones(60, 0)), r"\[N, F\]; got \[60, 0\]"),
        ("multiclass", lambda d: _set(x=d.x + 0j)(d), "real features.* of torch.complex64"),
        ("multiclass", lambda d: _set(y=d.y.to(torch.uint16))(d), r"y must not be torch.uint16; pass y.long\(\)"),
        ("multiclass", _set(edge_weight=[1.0]), "edge_weight must be a tensor, got list"),
        ("multiclass", _set(num_classes="3"), "num_classes must be an int, got '3'; leave it out"),
        ("multiclass", _set(task="regression"), r"task is 'regression'; with y \[60\] pass 'multiclass', or leave"),
        ("multilabel", _set(task="multiclass"), r"task is 'multiclass'; with y \[60, 3\] pass 'multilabel', or leave"),
        ("multilabel", _set(num_classes=4), "num_classes is 4, but y has 3 columns"),
        ("multiclass", _nan_label, "1 nodes of train_mask have a NaN or infinite label"),
        ("multilabel", _nan_label, "1 nodes of train_mask have a NaN or infinite label"),
        ("multiclass", _set(num_classes=2), r"integers in \[0, 1\], got torch.int64 in \[0, 2\]"),
        ("multiclass", lambda d: d.y.sub_(1), r"got torch.int64 in \[-1, 1\]"),
        ("multilabel", lambda d: d.y.mul_(0.5), "must be 0 or 1"),
        ("multiclass", _column, r"must be 0 or 1 in train_mask; one class a node is y of shape \[N\]"),
        ("multiclass", lambda d: d.val_mask.logical_or_(d.test_mask), "are in both val_mask and test_mask; take them out"),
        ("multiclass", lambda d: _set(x=d.x.to_sparse())(d), r"x must be dense, got torch.sparse_coo; pass x.to_dense\(\)"),
        ("multiclass", _set(y=None), "has no y"),
        ("multiclass", lambda d: d.x.__setitem__((7, 2), float("nan")), "x must be finite; node 7 has nan in column 2"),
        ("multiclass", lambda d: d.x.__setitem__((7, 2), float("-inf")), "x must be finite; node 7 has -inf in column 2"),
        ("multiclass", lambda d: _set(edge_weight=_weights(d, 3, float("inf")))(d), "must be finite.*; edge 3 has inf"),
        ("multiclass", lambda d: _set(edge_weight=_weights(d, 3, -2.0))(d), "and not negative; edge 3 has -2.0"),
        (
            "multiclass",
            lambda d: _set(edge_weight=_weights(d, 3, 1.0), edge_index=d.edge_index[:1])(d),
            "edge_index must be a t",
        ),
        (
            "multiclass",
            _set(edge_weight=torch.tensor(1.0)),
            r"edge_weight must have shape \[\d+\], one weight an edge, got \(\)",
        ),
        ("multiclass", lambda d: d.__delattr__("test_mask"), "has no test_mask"),
        ("multiclass", _set(y=torch.zeros(5, dtype=torch.long)), r"y must have one row a node, \[60\] or \[60, C\]"),
    ],
)
def test_bad_data(task, damage, message):
    data = synthetic(task=task)
    damage(data)
    with pytest.raises(GesmError, match=message):
        Task(data, Recipe())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            [synthetic(), synthetic()],
            "must be a torch_geometric.data.Data or Batch, got list; make one .* Batch.from_data_list",
        ),
        ({"x": torch.ones(3, 2)}, "Data or Batch, got dict"),
        (HeteroData(), "Data or Batch, got HeteroData"),
    ],
)
def test_other_types_of_data(data, message):
    with pytest.raises(GesmError, match=message):
        Task(data, Recipe())


@pytest.mark.parametrize("classes", [np.int64(3), torch.tensor(3)])
def test_a_number_of_classes_of_any_integer_type(classes):
    data = synthetic()
    data.num_classes = classes
    assert type(Task(data, Recipe()).num_classes) is int
