import io
import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch_geometric.data import Data
from torch_geometric.utils import coalesce, index_to_mask, remove_self_loops

from gesm.errors import GesmError

PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
NUM_VAL = 500


class _Csr:
    """Takes the state of a pickled scipy CSR matrix; it is checked before scipy's compiled code sees it."""

    def matrix(self) -> sp.csr_array:
        state = vars(self)
        matrix = sp.csr_array((state["data"], state["indices"], state["indptr"]), shape=state["_shape"])
        matrix.check_format(full_check=True)
        return matrix


def _dtype(code: str, align: int = 0, copy: int = 0) -> np.dtype:
    return np.dtype(code, bool(align), bool(copy))  # numpy 2.4 warns about the integers that old pickles hold


_RECONSTRUCT = np.empty(0).__reduce__()[0]  # lives in numpy.core or numpy._core, by version
_ALLOWED = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("scipy.sparse.csr", "csr_matrix"): _Csr,
    ("scipy.sparse._csr", "csr_matrix"): _Csr,
    ("collections", "defaultdict"): defaultdict,
    ("__builtin__", "list"): list,
    ("builtins", "list"): list,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        """Return one of the few classes the files need; everything else is refused."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise GesmError(
                f"the pickle asks for {module}.{name}; only numpy arrays, scipy CSR matrices and dicts of lists are "
                "allowed. This is not a Planetoid file: do not trust it, get the original."
            ) from None


def unpickle(content: bytes):
    """Unpickle one raw file with nothing but numpy arrays, CSR matrices, dicts and lists allowed."""
    value = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    return value.matrix() if isinstance(value, _Csr) else value


def parse(files: dict[str, bytes]) -> dict[str, np.ndarray | sp.csr_array]:
    """Put the eight `ind.*` files in node order: arrays x (CSR), edge_index, y, num_train, test_index.

    The test nodes come last, in the order of `test.index`, whose gaps (CiteSeer's 15 isolated nodes) are nodes
    without features, of class 0.
    """
    raw = {name.split(".", 2)[2]: content for name, content in files.items()}
    test_index = np.array(raw.pop("test.index").split(), dtype=np.int64)
    raw = {part: unpickle(content) for part, content in raw.items()}
    num_known = raw["allx"].shape[0]
    node = np.concatenate([np.arange(num_known), test_index])
    num_nodes = int(node.max()) + 1

    features = sp.vstack([raw["allx"], raw["tx"]]).tocoo()
    shape = (num_nodes, features.shape[1])
    x = sp.csr_array((features.data, (node[features.row], features.col)), shape=shape)
    y = np.zeros(num_nodes, dtype=np.int64)
    y[node] = np.concatenate([raw["ally"], raw["ty"]]).argmax(axis=1)

    edges = [(source, target) for source, targets in raw["graph"].items() for target in targets]
    edge_index = np.array(edges, dtype=np.int64).T
    if edge_index.min() < 0 or edge_index.max() >= num_nodes:
        raise GesmError(f"the graph names nodes {edge_index.min()}..{edge_index.max()}, allowed are 0..{num_nodes - 1}")
    return {"x": x, "edge_index": edge_index, "y": y, "num_train": raw["y"].shape[0], "test_index": test_index}


def assemble(x: sp.csr_array, edge_index, y, num_train: int, test_index) -> Data:
    """Build the graph with the public split: the first nodes train, the next 500 validate, `test_index` tests."""
    edge_index, _ = remove_self_loops(torch.as_tensor(edge_index))
    data = Data(
        x=torch.from_numpy(x.astype(np.float32).toarray()),
        edge_index=coalesce(edge_index, num_nodes=len(y), sort_by_row=False),
        y=torch.as_tensor(y),
    )
    data.train_mask = index_to_mask(torch.arange(num_train), size=len(y))
    data.val_mask = index_to_mask(torch.arange(num_train, num_train + NUM_VAL), size=len(y))
    data.test_mask = index_to_mask(torch.as_tensor(test_index), size=len(y))
    return data


def read(files: dict[str, bytes]) -> Data:
    """Read Cora, CiteSeer or PubMed from their raw files (Yang et al. 2016)."""
    return assemble(**parse(files))


def read_bundled(path: Path) -> Data:
    """Read the compact npz that `gesm.datasets._bundle` wrote; equal to reading the raw files."""
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        indices, indptr = arrays["x_indices"].astype(np.int32), arrays["x_indptr"]
        x = sp.csr_array((np.ones(len(indices), dtype=np.float32), indices, indptr), shape=tuple(arrays["x_shape"]))
        edge_index, y, test_index = (arrays[name].astype(np.int64) for name in ("edge_index", "y", "test_index"))
        return assemble(x, edge_index, y, int(arrays["num_train"]), test_index)
