import os
import pickle

import numpy as np
import pytest
import torch

from gesm.datasets import _planetoid
from gesm.errors import GesmError


def test_reads_nodes_in_order_with_gaps_and_without_doubled_edges(planetoid_files, monkeypatch):
    monkeypatch.setattr(_planetoid, "NUM_VAL", 2)
    data = _planetoid.read(planetoid_files)
    rows = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert data.x.equal(torch.tensor(rows, dtype=torch.float32))
    assert data.y.tolist() == [0, 1, 2, 0, 1, 0, 2]
    assert sorted(data.edge_index.t().tolist()) == [[0, 1], [0, 2], [1, 0], [2, 0], [2, 6], [3, 4], [4, 3], [6, 2]]
    masks = [data[f"{part}_mask"].nonzero().flatten().tolist() for part in ("train", "val", "test")]
    assert masks == [[0, 1], [2, 3], [4, 6]]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_refuses_a_pickle_that_calls_anything(protocol, tmp_path):
    with pytest.raises(GesmError, match=r"asks for posix.mkdir|asks for nt.mkdir"):
        _planetoid.unpickle(pickle.dumps([Evil(str(tmp_path / "made"))], protocol))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("function", [eval, getattr, np.load, torch.load, os.system], ids=str)
def test_refuses_functions_by_name(function):
    with pytest.raises(GesmError, match="do not trust it"):
        _planetoid.unpickle(pickle.dumps(function))


def test_refuses_a_sparse_matrix_whose_indices_leave_it(planetoid_files):
    bad = _planetoid._Csr()
    bad.__dict__ = {"data": np.ones(1), "indices": np.array([9]), "indptr": np.array([0, 1]), "_shape": (1, 4)}
    with pytest.raises(ValueError, match="indices"):
        bad.matrix()


def test_refuses_an_edge_to_a_node_that_is_not_there(planetoid_files):
    planetoid_files["ind.tiny.graph"] = pickle.dumps({0: [7]})
    with pytest.raises(GesmError, match=r"nodes 0..7, allowed are 0..6"):
        _planetoid.read(planetoid_files)
