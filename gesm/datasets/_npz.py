import hashlib
import io

import numpy as np
import scipy.sparse as sp
import torch
from torch_geometric.data import Data
from torch_geometric.utils import remove_self_loops, to_undirected

from gesm.errors import GesmError


def _csr(arrays, prefix: str) -> sp.csr_array:
    parts = (arrays[f"{prefix}_{part}"] for part in ("data", "indices", "indptr"))
    matrix = sp.csr_array(tuple(parts), shape=tuple(arrays[f"{prefix}_shape"]))
    matrix.check_format(full_check=True)
    matrix.sum_duplicates()
    return matrix


def fingerprint(edge_index: torch.Tensor, x: sp.csr_array, y: torch.Tensor) -> str:
    """SHA-256 of the graph itself (sorted edges, positions of the features, labels), whatever file held it."""
    digest = hashlib.sha256()
    for array in (edge_index.numpy(), x.indptr, x.indices, y.numpy()):
        digest.update(np.ascontiguousarray(array, dtype="<i8"))
    return digest.hexdigest()


def read(files: dict[str, bytes], expected: str | None = None) -> Data:
    """Read an Amazon or Coauthor npz of Shchur et al. (2018): features binary, edges undirected, no self-loops.

    Names of nodes, attributes and classes, which only a pickle could hold, are left unread.

    Args:
        files: The one npz.
        expected: Fingerprint of the graph. The original npz and a re-compressed copy have the same.
    """
    ((name, content),) = files.items()
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        x, adjacency, labels = _csr(arrays, "attr"), _csr(arrays, "adj").tocoo(), arrays["labels"]
    x.data = (x.data > 0).astype(np.float32)
    x.eliminate_zeros()
    edge_index, _ = remove_self_loops(torch.from_numpy(np.stack([adjacency.row, adjacency.col]).astype(np.int64)))
    edge_index = to_undirected(edge_index, num_nodes=x.shape[0])
    y = torch.from_numpy(labels.astype(np.int64))
    if expected and (found := fingerprint(edge_index, x, y)) != expected:
        raise GesmError(f"{name} holds another graph (SHA-256 of its arrays {found}, expected {expected})")
    return Data(x=torch.from_numpy(x.toarray()), edge_index=edge_index, y=y)
