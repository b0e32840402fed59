import csv

import numpy as np
import pytest
import torch

from gesm.datasets import synthetic
from gesm.errors import GesmError
from gesm.training import Trained, fit, fit_many
from gesm.training.checkpoint import load_tensors, save_tensors
from gesm.training.predict import read_edges, read_features, write_predictions


@pytest.fixture(params=["multiclass", "multilabel"])
def trained(request, tmp_path, recipe):
    data = synthetic(task=request.param)
    return fit(recipe, data, 0, tmp_path / "run"), data, Trained.load(tmp_path / "run", "cpu")


def test_evaluate_repeats_the_run(trained):
    result, data, model = trained
    scores = model.evaluate(data)
    assert scores["test"][result.metric] == result.test
    assert scores["val"] == {result.metric: result.val, "loss": result.val_loss}
    with pytest.raises(GesmError, match="num_classes 5, the model was trained for 3"):
        model.evaluate(synthetic(num_classes=5, task=data.task))


def test_predict(trained):
    result, data, model = trained
    labels, p = model.predict(data.x, data.edge_index)
    test = data.test_mask
    if data.task == "multiclass":
        assert (labels[test] == data.y[test]).double().mean().item() == result.test
        torch.testing.assert_close(p.sum(1), torch.ones(60))
        assert torch.equal(p.argmax(1), labels)
    else:
        assert torch.equal(labels, (p > 0.5).long())
    weighted, _ = model.predict(data.x, data.edge_index, torch.ones(data.num_edges))
    assert torch.equal(weighted, labels)


def test_predict_refuses(trained):
    _, data, model = trained
    with pytest.raises(GesmError, match=r"shape \[N, 16\], as in synthetic; got \[60, 3\]"):
        model.predict(data.x[:, :3], data.edge_index)
    x = data.x.clone()
    x[4, 2] = float("nan")
    with pytest.raises(GesmError, match="node 4 has nan in column 2"):
        model.predict(x, data.edge_index)
    with pytest.raises(GesmError, match="60"):
        model.predict(data.x, data.edge_index + 1)
    weight = torch.ones(data.num_edges)
    for bad in (-1.0, float("nan")):
        weight[3] = bad
        with pytest.raises(GesmError, match=f"edge_weight must be finite and not negative; edge 3 has {bad}"):
            model.predict(data.x, data.edge_index, weight)
    for other, kind in ((data.x.to_sparse_csr(), "torch.sparse_csr"), (data.x.numpy(), "ndarray")):
        with pytest.raises(GesmError, match=f"features must be a dense tensor, got {kind}"):
            model.predict(other, data.edge_index)


def test_folders_without_a_model(tmp_path, recipe):
    with pytest.raises(GesmError, match="holds no trained model"):
        Trained.load(tmp_path)
    fit_many(recipe, lambda _: synthetic(), 2, 0, tmp_path)
    with pytest.raises(GesmError, match=r"several runs; pass one of .*run-000, run-001"):
        Trained.load(tmp_path)


EDGES = [[0, 1, 0.5], [2, 0, 1.0], [1, 2, 2.0]]


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("kind", ["csv", "header.csv", "tsv", "npy", "npz", "one.npz"])
def test_read_edges(tmp_path, kind, columns):
    path, rows = tmp_path / f"edges.{kind}", [row[:columns] for row in EDGES]
    if kind.endswith("npy"):
        np.save(path, np.array(rows))
    elif kind == "npz":
        np.savez(path, edges=np.array(rows), other=np.zeros(1))
    elif kind == "one.npz":
        np.savez(path, whatever=np.array(rows))
    else:
        separator = "\t" if kind == "tsv" else ","
        lines = [separator.join(map(str, row)) for row in rows]
        header = [separator.join(["source", "target", "weight"][:columns])] if "header" in kind else []
        path.write_text("\n".join(header + lines) + "\n")
    edge_index, weight = read_edges(path)
    assert edge_index.tolist() == [[0, 2, 1], [1, 0, 2]]
    assert edge_index.dtype == torch.int64
    assert weight is None if columns == 2 else weight.tolist() == [0.5, 1.0, 2.0]


def test_a_byte_order_mark_is_no_header(tmp_path):
    (tmp_path / "edges.csv").write_text("\ufeff0,1\n1,2\n", encoding="utf-8")
    assert read_edges(tmp_path / "edges.csv")[0].tolist() == [[0, 1], [1, 2]]
    (tmp_path / "x.csv").write_text("\ufeff1,2\n3,4\n5,6\n", encoding="utf-8")
    assert read_features(tmp_path / "x.csv").tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("first", ["0.5,,0.2", "NA,1,0.2", ",,", "NA,n/a,NULL", "0.5,1O,0.2"])
def test_a_first_row_with_a_hole_is_no_header(tmp_path, first):
    (tmp_path / "x.csv").write_text(f"{first}\n1,2,3\n4,5,6\n")
    with pytest.raises(GesmError, match="cannot be read"):
        read_features(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text(",height 1,width 2\n1,2,3\n")
    assert read_features(tmp_path / "x.csv").tolist() == [[1, 2, 3]]


def test_a_graph_without_edges(trained, tmp_path):
    _, data, model = trained
    (tmp_path / "edges.csv").write_text("source,target,weight\n")
    edge_index, weight = read_edges(tmp_path / "edges.csv")
    assert (edge_index.shape, weight.shape) == ((2, 0), (0,))
    assert len(model.predict(data.x, edge_index, weight)[0]) == 60


def test_weights_of_another_model(trained, tmp_path):
    tensors, info = load_tensors(tmp_path / "run" / "model.safetensors")
    save_tensors(tmp_path / "model.safetensors", dict(list(tensors.items())[1:]), info)
    with pytest.raises(GesmError, match="does not fit this version of gesm"):
        Trained.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[0, 1, 2, 3]], r"rows of source, target\[, weight\]; got shape \[1, 4\]"),
        ([[0] * 9, [1] * 9], "transpose it"),
        ([[0, 1], [0, -1]], r"integers from 0 to 2\^63 - 1; edge 1 is \[0, -1\]"),
        ([[0, 1.5]], "edge 0 is"),
        ([[0, 1e30]], r"edge 0 is \[0.0, 1e\+30\]"),
        ([[0, np.nan]], "edge 0 is"),
        ([[0, 1, np.inf]], "weights must be finite; edge 0 has inf"),
        ([["a", "b"]], "must be numbers"),
    ],
)
def test_bad_edges(tmp_path, content, message):
    np.save(tmp_path / "e.npy", np.array(content))
    with pytest.raises(GesmError, match=message):
        read_edges(tmp_path / "e.npy")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.csv", "1,2\n3\n", "cannot be read"),
        ("f.csv", "a,b\n1,x\n", "cannot be read"),
        ("f.csv", "", "no data"),
        ("f.npy", "no", "cannot be read"),
        ("f.npz", "PK", "cannot be read"),
        ("f.txt", "1", "read from .csv, .tsv, .npy or .npz, got 'f.txt'"),
        ("f.npy", None, "cannot read features from .*No such file"),
        ("f.csv", None, "cannot read features from .*No such file"),
    ],
)
def test_bad_feature_files(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(GesmError, match=message):
        read_features(tmp_path / name)


def test_ambiguous_and_pickled_arrays(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(GesmError, match=r"expected an array 'features' or a single array, found \['a', 'b'\]"):
        read_features(tmp_path / "two.npz")
    np.save(tmp_path / "p.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(GesmError, match="cannot be read"):
        read_features(tmp_path / "p.npy")
    np.save(tmp_path / "v.npy", np.zeros(3))
    with pytest.raises(GesmError, match=r"one row per node; got shape \[3\]"):
        read_features(tmp_path / "v.npy")


@pytest.mark.parametrize("labels", [torch.tensor([1, 0]), torch.tensor([[1, 0], [0, 1]])])
def test_write_predictions(tmp_path, labels):
    p = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    write_predictions(tmp_path / "new" / "p.npz", labels, p)
    with np.load(tmp_path / "new" / "p.npz") as file:
        assert file["labels"].tolist() == labels.tolist()
        assert file["probabilities"].tolist() == p.tolist()
    write_predictions(tmp_path / "p.csv", labels, p)
    with (tmp_path / "p.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["node", *(["label"] if labels.dim() == 1 else ["label0", "label1"]), "p0", "p1"]
    assert [[float(cell) for cell in row] for row in rows] == [
        [i, *labels[i].reshape(-1).tolist(), *p[i].tolist()] for i in range(2)
    ]
    with pytest.raises(GesmError, match=r"go to .npz or .csv, got 'p.txt'"):
        write_predictions(tmp_path / "p.txt", labels, p)
