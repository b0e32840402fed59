import io
import json

import numpy as np
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from gesm.errors import GesmError

MASKS = {"train": "train_mask", "valid": "val_mask", "test": "test_mask"}
FILES = tuple(f"{split}_{part}" for split in MASKS for part in ("feats.npy", "graph_id.npy", "graph.json", "labels.npy"))


def _array(files: dict[str, bytes], name: str) -> torch.Tensor:
    try:
        return torch.from_numpy(np.load(io.BytesIO(files[name]), allow_pickle=False))
    except (ValueError, EOFError, TypeError) as error:
        raise GesmError(f"{name} is not a whole npy file of numbers ({error})") from error


def _edges(graph: dict, num_nodes: int) -> torch.Tensor:
    pairs = [(link["source"], link["target"]) for link in graph["links"]]
    edge_index, _ = remove_self_loops(torch.tensor(pairs).t())
    if edge_index.min() < 0 or edge_index.max() >= num_nodes:
        raise GesmError(f"an edge names a node outside 0..{num_nodes - 1}")
    merge = coalesce if graph["directed"] else to_undirected
    return merge(edge_index, num_nodes=num_nodes)


def _graphs(files: dict[str, bytes], split: str) -> list[Data]:
    x, y = _array(files, f"{split}_feats.npy").float(), _array(files, f"{split}_labels.npy").float()
    graph_id = _array(files, f"{split}_graph_id.npy")
    if not len(x) == len(y) == len(graph_id) or (graph_id.diff() < 0).any():
        raise GesmError(f"{split}: features, labels and graph ids do not list the same nodes, graph by graph")
    edge_index = _edges(json.loads(files[f"{split}_graph.json"]), len(x))
    sizes = graph_id.unique_consecutive(return_counts=True)[1]
    graph = torch.arange(len(sizes)).repeat_interleave(sizes)
    if not graph[edge_index[0]].equal(graph[edge_index[1]]):
        raise GesmError(f"{split}: an edge joins two graphs")
    known = ~y.isnan().any(dim=1)
    data = Data(edge_index=edge_index, x=x, y=y)
    data.update({mask: known if name == split else torch.zeros_like(known) for name, mask in MASKS.items()})
    return [data.subgraph(graph == number) for number in range(len(sizes))]


def read(files: dict[str, bytes]) -> Batch:
    """Read PPI (Hamilton et al. 2017, files as in DGL's ppi.zip) as one block-diagonal batch of its graphs.

    Self-loops are dropped, as PyG does. Rows whose labels are NaN stay in the graph and are in no mask.
    """
    return Batch.from_data_list([graph for split in MASKS for graph in _graphs(files, split)])
