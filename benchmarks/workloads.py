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
from benchmarks.peers import (
    PyGAttend,
    PyGEntityAttention,
    PyGGAT,
    PyGGCN,
    PyGGESM,
    PyGStep,
    PyGStepMixture,
    adjacency_t,
    column_normalize,
    copy_parameters,
)
from gesm import Graph
from gesm.models import GESM
from gesm.nn import EntityAttention, HopConsistency, HopSampling, StepMixture
from gesm.ops import attend, mix, spmm
from gesm.training import Recipe
from gesm.training.task import features

__all__ = [
    "AXES",
    "HEADS",
    "HIDDEN",
    "HOPS",
    "K",
    "attends",
    "epochs",
    "hops",
    "layers",
    "load",
    "mixes",
    "random_graph",
    "scaling",
    "spmms",
    "step",
]

Contenders = dict[str, Callable[[], object]]

HIDDEN, HEADS, K = 64, 8, 14  # of the published runs
DROPOUT, ATTENTION_DROPOUT = 0.3, 0.7
LEARNING_RATE, WEIGHT_DECAY = 0.005, 5e-4
DEEP = 64  # steps, for what depth costs


@lru_cache(maxsize=2)
def load(name: str) -> Data:
    """A data set with row-normalised features, or the small planted partition that `--smoke` uses."""
    data = gesm.datasets.synthetic(num_nodes=100) if name == "synthetic" else gesm.datasets.load(name)
    data.x = F.normalize(data.x.relu(), p=1, dim=1)
    return data


def random_graph(num_nodes: int, num_edges: int, seed: int = 0) -> Tensor:
    """[2, num_edges], both ends uniform."""
    return torch.randint(num_nodes, (2, num_edges), generator=torch.Generator().manual_seed(seed))


EPOCHS = {  # name -> model of (in_channels, out_channels); gesm's takes x as `gesm train` does, the others dense
    "gesm": lambda *sizes: _gesm(GESM, *sizes),
    f"gesm, K = {DEEP}": lambda *sizes: _gesm(GESM, *sizes, steps=DEEP),
    "PyG GESM": lambda *sizes: _gesm(PyGGESM, *sizes),
    "PyG GESM, sparse steps": lambda *sizes: _gesm(PyGGESM, *sizes, sparse_steps=True),
    "PyG GAT 8x8": PyGGAT,
    "PyG GCN 16": PyGGCN,
}


def _gesm(model: type, in_channels: int, out_channels: int, steps: int = K, **options: bool) -> nn.Module:
    rates = {"dropout": DROPOUT, "attention_dropout": ATTENTION_DROPOUT}
    return model(in_channels, HIDDEN, out_channels, K=steps, heads=HEADS, **rates, **options)


def _inputs(contender: str, data: Data) -> tuple[nn.Module, Tensor, object]:
    torch.manual_seed(0)
    model = EPOCHS[contender](data.x.size(1), data.num_classes)
    if not contender.startswith("gesm"):
        return model, data.x, data.edge_index
    return model, features(data.x, Recipe()), Graph.from_edge_index(data.edge_index, num_nodes=data.num_nodes)


HOPS = {  # name -> distribution of the depths (None: no wrapper) and draws behind one step
    "gesm": (None, 1),
    "wrapped, always K": ([0] * K + [1], 1),
    "hop sampling": ("uniform", 1),
    "hop sampling, 4 draws": ("uniform", 4),
}


@lru_cache(maxsize=1)
def hops(name: str) -> Contenders:
    """One training step of GESM with no hop sampling, with a wrapper that always draws K, with random depths, and several."""
    data = load(name)
    x, graph = features(data.x, Recipe()), Graph.from_edge_index(data.edge_index, num_nodes=data.num_nodes)
    calls = {}
    for contender, (distribution, draws) in HOPS.items():
        torch.manual_seed(0)
        model = _gesm(GESM, data.x.size(1), data.num_classes)
        if distribution is not None:
            model = HopSampling(model, distribution=distribution)
        calls[contender] = _step(model, x, graph, data, draws)
    return calls


@lru_cache(maxsize=1)
def epochs(name: str) -> Contenders:
    """One training step (cross-entropy, no structure loss) and one evaluation forward."""
    data = load(name)
    inputs = {contender: _inputs(contender, data) for contender in EPOCHS}
    expected = _evaluate(*inputs["gesm"])
    for model, *rest in inputs.values():
        if isinstance(model, PyGGESM):
            copy_parameters(inputs["gesm"][0], model)
            _assert_same(_evaluate(model, *rest), expected)
    return {contender: _epoch(*rest, data) for contender, rest in inputs.items()}


def step(name: str, contender: str) -> Callable[[], object]:
    """One training step alone, of one contender, with none of the others in memory."""
    data = load(name)
    model, *rest = _inputs(contender, data)
    return _step(model, *rest, data)


def _evaluate(model: nn.Module, x: Tensor, adjacency: object) -> Tensor:
    with torch.no_grad():
        return model.eval()(x, adjacency)


def _epoch(model: nn.Module, x: Tensor, adjacency: object, data: Data) -> Callable[[], object]:
    train = _step(model, x, adjacency, data)

    def epoch() -> Tensor:
        train()
        return _evaluate(model, x, adjacency)

    return epoch


def _step(model: nn.Module, x: Tensor, adjacency: object, data: Data, draws: int = 1) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    rows = data.train_mask.nonzero().view(-1)
    y = data.y[rows]
    consistency = HopConsistency()

    def loss() -> Tensor:
        if draws > 1:
            return consistency(model.sample(draws, x, adjacency), y, rows)
        return F.cross_entropy(model(x, adjacency).index_select(0, rows), y)

    def train() -> None:
        model.train()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return train


def layers(name: str) -> dict[str, Contenders]:
    """Training forward + backward (all parameters and dense inputs) of the layers: X to H [N, 512], H to the classes."""
    data = load(name)
    x, graph = features(data.x, Recipe()), Graph.from_edge_index(data.edge_index, num_nodes=data.num_nodes)
    edges, weight = column_normalize(data.edge_index, data.num_nodes)
    width, generator = HEADS * HIDDEN, torch.Generator().manual_seed(0)
    h = torch.randn(data.num_nodes, width, generator=generator).requires_grad_()
    torch.manual_seed(0)
    attention = EntityAttention(data.x.size(1), HIDDEN, HEADS, dropout=ATTENTION_DROPOUT)
    mixture = StepMixture(width, data.num_classes, K, dropout=DROPOUT)
    peer_attention = PyGEntityAttention(data.x.size(1), HIDDEN, HEADS, ATTENTION_DROPOUT)
    peer_mixture = PyGStepMixture(width, data.num_classes, K, DROPOUT)
    copy_parameters(attention, peer_attention)
    copy_parameters(mixture, peer_mixture)
    pairs = {
        "EntityAttention": {
            "gesm": (attention, lambda: attention(x, graph)),
            "PyG layer": (peer_attention, lambda: peer_attention(data.x, edges, weight)),
        },
        "StepMixture": {
            "gesm": (mixture, lambda: mixture(h, graph)),
            "PyG TAGConv": (peer_mixture, lambda: peer_mixture(h, edges, weight)),
        },
    }
    result = {}
    for layer, contenders in pairs.items():
        inputs = [h] if layer == "StepMixture" else []
        result[layer] = _trained(contenders, inputs, generator)
    return result


def _trained(
    contenders: dict[str, tuple[nn.Module, Callable[[], Tensor]]], inputs: list[Tensor], generator: torch.Generator
) -> Contenders:
    """Forward + backward in training mode, of modules that agree in evaluation mode."""
    outs = [module.eval() and call() for module, call in contenders.values()]
    gradient = torch.randn(outs[0].shape, generator=generator)
    results = [(out.detach(), *(torch.autograd.grad(out, inputs, gradient) if inputs else ())) for out in outs]
    for other in results[1:]:
        _assert_same(other, results[0])
    del outs, results

    def train(module: nn.Module, call: Callable[[], Tensor]) -> Callable[[], object]:
        leaves = [*inputs, *module.train().parameters()]
        return lambda: torch.autograd.grad(call(), leaves, gradient)

    return {name: train(*contender) for name, contender in contenders.items()}


# One of these is varied; 16 channels a head, 64 features, 8 classes.
BASE = {"nodes": 4096, "degree": 8, "K": K, "heads": HEADS}
AXES = {
    "nodes": [1024, 2048, 4096, 8192, 16384, 32768],
    "degree": [2, 4, 8, 16, 32, 64],
    "K": [1, 2, 4, 8, 16, 32, 64],
    "heads": [1, 2, 4, 8, 16],
}


@lru_cache(maxsize=1)
def scaling(axis: str, value: int) -> Contenders:
    """Training forward + backward of GESM on a random graph."""
    nodes, degree, steps, heads = (BASE | {axis: value}).values()
    edge_index, generator = random_graph(nodes, nodes * degree), torch.Generator().manual_seed(0)
    x = torch.randn(nodes, 64, generator=generator).requires_grad_()
    sizes = {"in_channels": 64, "hidden_channels": 16, "out_channels": 8, "K": steps, "heads": heads}
    torch.manual_seed(0)
    ours, peer = (model(**sizes, dropout=DROPOUT, attention_dropout=ATTENTION_DROPOUT) for model in (GESM, PyGGESM))
    copy_parameters(ours, peer)
    graph = Graph.from_edge_index(edge_index, num_nodes=nodes)
    contenders = {"gesm": (ours, lambda: ours(x, graph)), "PyG GESM": (peer, lambda: peer(x, edge_index))}
    return _trained(contenders, [x], generator)


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
