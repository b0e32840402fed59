"""The inputs of the suite and its contenders: for each group a dict, name -> a callable that does one round.

What shares a group computes the same thing, which is checked here, before anybody can time it; the epochs of GAT and GCN, other
models, are there for scale. The first contender is gesm's.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

import gesm.datasets
from benchmarks.peers import PyGAttend, PyGGAT, PyGGCN, PyGGESM, PyGStep, adjacency_t, column_normalize, copy_parameters
from gesm import Graph
from gesm.models import GESM
from gesm.ops import attend, mix, spmm

__all__ = ["HEADS", "HIDDEN", "K", "attends", "epochs", "load", "mixes", "random_graph", "spmms"]

Contenders = dict[str, Callable[[], object]]

HIDDEN, HEADS, K = 64, 8, 14  # of the published runs
LEARNING_RATE, WEIGHT_DECAY = 0.005, 5e-4


@lru_cache(maxsize=2)
def load(name: str) -> Data:
    """A data set with row-normalised features, or the small planted partition that `--smoke` uses."""
    data = gesm.datasets.synthetic(num_nodes=100) if name == "synthetic" else gesm.datasets.load(name)
    data.x = F.normalize(data.x.relu(), p=1, dim=1)
    return data


def random_graph(num_nodes: int, num_edges: int, seed: int = 0) -> Tensor:
    """[2, num_edges], both ends uniform."""
    return torch.randint(num_nodes, (2, num_edges), generator=torch.Generator().manual_seed(seed))


@lru_cache(maxsize=1)
def epochs(name: str) -> Contenders:
    """One training step (cross-entropy, no structure loss) and one evaluation forward; sparse x for gesm, dense for PyG."""
    data = load(name)
    sizes = {"in_channels": data.x.size(1), "out_channels": data.num_classes}
    same = {**sizes, "hidden_channels": HIDDEN, "K": K, "heads": HEADS, "dropout": 0.3, "attention_dropout": 0.7}
    torch.manual_seed(0)
    ours, graph = GESM(**same), Graph.from_edge_index(data.edge_index, num_nodes=data.num_nodes)
    peers = {"PyG GESM": PyGGESM(**same), "PyG GESM, sparse steps": PyGGESM(**same, sparse_steps=True)}
    x = data.x.to_sparse_csr()
    expected = _evaluate(ours, x, graph)
    for peer in peers.values():
        copy_parameters(ours, peer)
        _assert_same(_evaluate(peer, data.x, data.edge_index), expected)
    peers |= {"PyG GAT 8x8": PyGGAT(**sizes), "PyG GCN 16": PyGGCN(**sizes)}
    rounds = {"gesm": _epoch(ours, x, graph, data)}
    return rounds | {name: _epoch(peer, data.x, data.edge_index, data) for name, peer in peers.items()}


def _evaluate(model: nn.Module, x: Tensor, adjacency: object) -> Tensor:
    with torch.no_grad():
        return model.eval()(x, adjacency)


def _epoch(model: nn.Module, x: Tensor, adjacency: object, data: Data) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    rows = data.train_mask.nonzero().view(-1)
    y = data.y[rows]

    def epoch() -> Tensor:
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(x, adjacency).index_select(0, rows), y).backward()
        optimizer.step()
        return _evaluate(model, x, adjacency)

    return epoch


def attends(
    edge_index: Tensor, num_nodes: int, heads: int = HEADS, width: int = HIDDEN, check: bool = True
) -> dict[str, Contenders]:
    """Product-score attention by itself: "forward" (no gradients wanted) and "forward+backward"."""
    graph, edges, weight = _transition(edge_index, num_nodes)
    peer, generator = PyGAttend(), torch.Generator().manual_seed(0)
    inputs = [torch.randn(num_nodes, *size, generator=generator) for size in ((heads, width), (heads,), (heads,))]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    gradient = torch.randn(inputs[0].shape, generator=generator)
    calls = {
        "gesm": lambda: attend(graph, *inputs),
        "PyG gather-scatter": lambda: peer(inputs[0], edges, weight, *inputs[1:]),
    }
    return _modes(calls, inputs, gradient, check)


def mixes(edge_index: Tensor, num_nodes: int, classes: int, width: int = HEADS * HIDDEN) -> dict[str, Contenders]:
    """The step mixture: from H [N, width] to sum over k of P^k H B_k [N, classes], K steps."""
    graph, edges, weight = _transition(edge_index, num_nodes)
    step, adj_t, generator = PyGStep(), adjacency_t(edges, weight, num_nodes), torch.Generator().manual_seed(0)
    h = torch.randn(num_nodes, width, generator=generator).requires_grad_()
    maps = (torch.randn(K + 1, classes, width, generator=generator) / width).requires_grad_()
    gradient = torch.randn(num_nodes, classes, generator=generator)

    def concatenated(*adjacency: Tensor) -> Tensor:
        steps = [h]
        for _ in range(K):
            steps.append(step(steps[-1], *adjacency))
        return torch.cat(steps, dim=1) @ maps.permute(0, 2, 1).flatten(0, 1)

    calls = {
        "gesm": lambda: mix(graph, h @ maps.flatten(0, 1).t(), K),
        "PyG gather-scatter": lambda: concatenated(edges, weight),
        "PyG sparse steps": lambda: concatenated(adj_t),
    }
    return _modes(calls, [h, maps], gradient)


def spmms(edge_index: Tensor, num_nodes: int, width: int = HIDDEN) -> dict[str, Contenders]:
    """One propagation step P x, x [N, width]."""
    graph, edges, weight = _transition(edge_index, num_nodes)
    step, adj_t, generator = PyGStep(), adjacency_t(edges, weight, num_nodes), torch.Generator().manual_seed(0)
    x = torch.randn(num_nodes, width, generator=generator).requires_grad_()
    calls = {
        "gesm": lambda: spmm(graph, x),
        "PyG gather-scatter": lambda: step(x, edges, weight),
        "PyG sparse steps": lambda: step(x, adj_t),
    }
    return _modes(calls, [x], torch.randn(num_nodes, width, generator=generator))


def _transition(edge_index: Tensor, num_nodes: int) -> tuple[Graph, Tensor, Tensor]:
    """P for gesm, and as edges and weights for PyG."""
    graph = Graph.from_edge_index(edge_index, num_nodes=num_nodes).transition()
    return graph, *column_normalize(edge_index, num_nodes)


def _modes(
    calls: dict[str, Callable[[], Tensor]], inputs: list[Tensor], gradient: Tensor, check: bool = True
) -> dict[str, Contenders]:
    modes = {
        "forward": {name: torch.no_grad()(call) for name, call in calls.items()},
        "forward+backward": {
            name: lambda call=call: torch.autograd.grad(call(), inputs, gradient) for name, call in calls.items()
        },
    }
    for rounds in modes.values() if check else ():
        results = [call() for call in rounds.values()]
        for result in results[1:]:
            _assert_same(result, results[0])
    return modes


def _assert_same(actual: Tensor | tuple[Tensor, ...], expected: Tensor | tuple[Tensor, ...]) -> None:
    """Equal in float32: pointwise to 1e-4 of the largest entry, and to 1e-5 in relative RMS."""
    if isinstance(expected, tuple):
        for a, e in zip(actual, expected, strict=True):
            _assert_same(a, e)
        return
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    error = (actual - expected).norm() / expected.norm()
    assert error < 1e-5, f"relative RMS error {error:.1e}"
