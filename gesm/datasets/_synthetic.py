import numpy as np
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import remove_self_loops, to_undirected

from gesm.datasets._splits import sixty_twenty_twenty
from gesm.errors import GesmError


def synthetic(num_nodes: int = 60, num_classes: int = 3, task: str = "multiclass", num_graphs: int = 1, seed: int = 0) -> Data:
    """Make a planted-partition graph that looks like what `load` returns, for examples and tests without files.

    Every node draws 4 neighbours, each from its own class with probability 0.8; x = one-hot class + noise, padded to 16
    columns. With several graphs the last tests, the one before validates and the rest train, as in PPI.

    Args:
        num_nodes: Nodes a graph, at least 5.
        num_classes: Classes or labels, at most 16.
        task: "multiclass" (`y` int64 [N]) or "multilabel" (`y` float32 [N, C]; a node has its own label and, every
            other node, the next one too).
        num_graphs: 1 (transductive, split 60/20/20) or at least 3 (inductive).
        seed: Everything follows from it.

    Raises:
        GesmError: An argument outside its range.
    """
    for what, value, allowed in (
        ("num_nodes", num_nodes, range(5, 10**7)),
        ("num_classes", num_classes, range(2, 17)),
        ("task", task, ("multiclass", "multilabel")),
        ("num_graphs", num_graphs, (1, *range(3, 1000))),
    ):
        if value not in allowed:
            raise GesmError(f"{what} is {value!r}; allowed: {allowed}")
    rng = np.random.default_rng(seed)
    graphs = [_graph(num_nodes, num_classes, task, rng) for _ in range(num_graphs)]
    if num_graphs == 1:
        data = graphs[0]
        data.update(sixty_twenty_twenty(data.y, seed))
    else:
        for number, graph in enumerate(graphs):
            part = {num_graphs - 1: "test", num_graphs - 2: "val"}.get(number, "train")
            for name in ("train", "val", "test"):
                graph[f"{name}_mask"] = torch.full((num_nodes,), name == part)
        data = Batch.from_data_list(graphs)
    data.name, data.task, data.num_classes = "synthetic", task, num_classes
    data.protocol, data.inductive = ("public", True) if num_graphs > 1 else ("60/20/20", False)
    return data


def _graph(num_nodes: int, num_classes: int, task: str, rng: np.random.Generator) -> Data:
    label = rng.permutation(np.arange(num_nodes) % num_classes)
    source = np.arange(num_nodes).repeat(4)
    target = rng.integers(num_nodes, size=source.size)
    members = [np.flatnonzero(label == c) for c in range(num_classes)]
    own = rng.random(source.size) < 0.8
    target[own] = [rng.choice(members[c]) for c in label[source[own]]]
    edge_index, _ = remove_self_loops(torch.from_numpy(np.stack([source, target])))

    x = rng.normal(scale=0.5, size=(num_nodes, 16))
    x[np.arange(num_nodes), label] += 1
    y = torch.from_numpy(label)
    if task == "multilabel":
        y = torch.nn.functional.one_hot(y, num_classes).float()
        y[::2] += y[::2].roll(1, dims=1)
    edge_index = to_undirected(edge_index, num_nodes=num_nodes)
    return Data(x=torch.from_numpy(x).float(), edge_index=edge_index, y=y)
