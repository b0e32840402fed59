import io

import numpy as np
import pytest

from gesm.datasets import _npz
from gesm.errors import GesmError


def test_features_become_binary_and_edges_undirected(npz_file):
    data = _npz.read({"a.npz": npz_file})
    assert data.x.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1]]
    assert data.edge_index.t().tolist() == [[0, 1], [1, 0], [3, 4], [4, 3]]
    assert data.y.tolist() == [0, 1, 0, 1, 1]


def test_fingerprint_is_that_of_the_graph_not_of_the_file(npz_arrays, npz_file):
    with pytest.raises(GesmError, match="holds another graph") as caught:
        _npz.read({"a.npz": npz_file}, "0" * 64)
    found = str(caught.value).split("arrays ")[1][:64]

    stream = io.BytesIO()
    npz_arrays["attr_data"] = npz_arrays["attr_data"].astype(np.float64)
    npz_arrays["adj_indices"] = npz_arrays["adj_indices"].astype(np.int64)
    np.savez(stream, **npz_arrays)
    _npz.read({"a.npz": stream.getvalue()}, found)

    npz_arrays["labels"][0] = 1
    np.savez(stream := io.BytesIO(), **npz_arrays)
    with pytest.raises(GesmError, match="holds another graph"):
        _npz.read({"a.npz": stream.getvalue()}, found)


def test_nothing_is_unpickled(npz_arrays):
    npz_arrays["labels"] = np.array([0, 1, 0, 1, None], dtype=object)
    np.savez(stream := io.BytesIO(), **npz_arrays)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        _npz.read({"a.npz": stream.getvalue()})
