import json

import pytest
import torch

from gesm.datasets import _ppi
from gesm.errors import GesmError


def test_one_batch_of_all_graphs(ppi_files):
    data = _ppi.read(ppi_files)
    assert data.num_graphs == 4
    assert data.ptr.tolist() == [0, 3, 5, 7, 9]
    assert [graph.num_nodes for graph in data.to_data_list()] == [3, 2, 2, 2]
    edges = [[0, 1], [1, 0], [1, 2], [2, 1], [3, 4], [4, 3], [5, 6], [6, 5], [7, 8], [8, 7]]
    assert data.edge_index.t().tolist() == edges
    assert (data.x.dtype, data.y.dtype) == (torch.float32, torch.float32)


def test_rows_without_labels_are_in_no_mask(ppi_files):
    data = _ppi.read(ppi_files)
    assert data.y[1].isnan().all()
    assert data.train_mask.tolist() == [True, False, True, True, True, False, False, False, False]
    assert data.val_mask.nonzero().flatten().tolist() == [5, 6]
    assert data.test_mask.nonzero().flatten().tolist() == [7, 8]


def test_directed_links_are_taken_as_they_are(ppi_files):
    graph = json.loads(ppi_files["test_graph.json"])
    ppi_files["test_graph.json"] = json.dumps(graph | {"directed": True}).encode()
    assert _ppi.read(ppi_files).to_data_list()[3].edge_index.tolist() == [[0], [1]]


@pytest.mark.parametrize("link", [(0, 4), (0, 5), (-1, 0)], ids=["two graphs", "too large", "negative"])
def test_refuses_impossible_links(ppi_files, link):
    graph = json.loads(ppi_files["train_graph.json"])
    graph["links"].append(dict(zip(("source", "target"), link, strict=True)))
    ppi_files["train_graph.json"] = json.dumps(graph).encode()
    with pytest.raises(GesmError, match=r"joins two graphs|outside 0..4"):
        _ppi.read(ppi_files)


def test_names_the_truncated_array(ppi_files):
    ppi_files["valid_labels.npy"] = ppi_files["valid_labels.npy"][:-1]
    with pytest.raises(GesmError, match=r"valid_labels.npy is not a whole npy file"):
        _ppi.read(ppi_files)


def test_refuses_arrays_of_different_lengths(ppi_files):
    ppi_files["valid_labels.npy"] = ppi_files["train_labels.npy"]
    with pytest.raises(GesmError, match="do not list the same nodes"):
        _ppi.read(ppi_files)
