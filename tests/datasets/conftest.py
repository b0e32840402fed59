import functools
import http.server
import io
import json
import pickle
import struct
import threading
from collections import defaultdict

import numpy as np
import pytest
import scipy.sparse as sp

from gesm.datasets import Spec, _registry


class Python2Pickler(pickle._Pickler):
    """Writes bytes the way Python 2 pickled its strings, which the published files are."""

    def save_string(self, value):
        self.write(b"T" + struct.pack("<i", len(value)) + value)

    dispatch = pickle._Pickler.dispatch | {bytes: save_string}


def pickled(value):
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"numpy._core.", b"numpy.core.").replace(b"scipy.sparse._csr", b"scipy.sparse.csr")


@pytest.fixture
def planetoid_files():
    """7 nodes, of which 0 and 1 train; test nodes are 6 and 4 in the file's order, node 5 is a gap."""
    eye = np.eye(3, dtype=np.int32)
    rows = sp.csr_matrix(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0]], dtype=np.float32))
    test_rows = sp.csr_matrix(np.array([[0, 0, 0, 1], [1, 0, 0, 1]], dtype=np.float32))
    graph = defaultdict(list, {0: [1, 2, 1], 1: [0], 2: [0, 2, 6], 6: [2], 3: [4], 4: [3]})  # doubled edge, self-loop
    parts = {"x": rows[:2], "tx": test_rows, "allx": rows, "y": eye[:2], "ty": eye[[2, 1]], "ally": eye[[0, 1, 2, 0]]}
    files = {f"ind.tiny.{part}": pickled(value) for part, value in (parts | {"graph": graph}).items()}
    return files | {"ind.tiny.test.index": b"6\n4\n"}


@pytest.fixture
def npz_arrays():
    """5 nodes, counts as features, a directed edge, a self-loop, and names that only a pickle can hold."""
    x = sp.csr_matrix(np.array([[2, 0, 1], [0, 3, 0], [0, 0, 0], [1, 1, 1], [0, 0, 9]], dtype=np.float32))
    adjacency = sp.csr_matrix(([1, 1, 1, 1], ([0, 1, 2, 3], [1, 0, 2, 4])), shape=(5, 5), dtype=np.float32)
    arrays = {"labels": np.array([0, 1, 0, 1, 1]), "node_names": np.array(["a", None], dtype=object)}
    for prefix, matrix in (("attr", x), ("adj", adjacency)):
        arrays |= {f"{prefix}_{part}": getattr(matrix, part) for part in ("data", "indices", "indptr", "shape")}
    return arrays


@pytest.fixture
def npz_file(npz_arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **npz_arrays)
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.fixture
def ppi_files():
    """Two training graphs of 3 and 2 nodes, one validation and one test graph of 2 nodes; one row without labels."""
    files, first_id = {}, 1
    for split, sizes in (("train", (3, 2)), ("valid", (2,)), ("test", (2,))):
        n, graphs = sum(sizes), np.arange(len(sizes)).repeat(sizes)
        links = [{"source": i, "target": i + 1} for i in range(n - 1) if graphs[i] == graphs[i + 1]]
        links += [{"source": i, "target": i} for i in range(n)]
        graph = {"directed": False, "multigraph": False, "nodes": [{"id": i} for i in range(n)], "links": links}
        labels = np.tile(np.array([1, 0, 1], dtype=np.float16), (n, 1))
        if split == "train":
            labels[1] = np.nan
        files |= {
            f"{split}_feats.npy": npy(np.arange(2 * n).reshape(n, 2)),
            f"{split}_graph_id.npy": npy(graphs + first_id),
            f"{split}_graph.json": json.dumps(graph).encode(),
            f"{split}_labels.npy": npy(labels),
        }
        first_id += len(sizes)
    return files


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty GESM_HOME, with downloads forbidden."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("GESM_HOME", str(folder))
    monkeypatch.setenv("GESM_OFFLINE", "1")
    return folder


@pytest.fixture
def register(monkeypatch):
    """Adds a made data set to the registry."""

    def add(**fields):
        defaults = {
            "name": "tiny",
            "num_nodes": 5,
            "num_edges": 4,
            "num_features": 3,
            "num_classes": 2,
            "protocols": ("60/20/20", "shchur"),
            "url": "https://localhost/none",
            "source": "made here",
            "terms": "none",
        }
        spec = Spec(**defaults | fields)
        monkeypatch.setattr(_registry, "_SPECS", (*_registry._SPECS, spec))
        return spec

    return add


@pytest.fixture
def serve(home, tmp_path, monkeypatch):
    """Serves the files put into `serve.folder` at `serve.url`, on this machine only."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("GESM_OFFLINE")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.folder, server.url = folder, f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def write():
    """Writes files into a folder."""

    def into(folder, files):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    return into
