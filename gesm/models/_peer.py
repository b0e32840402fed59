"""What the peers share: depth, linear maps of dropped-out dense or sparse features, biases."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import BatchNorm
from torch_geometric.nn.inits import zeros

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.nn.linear import SparseLinear, check_width, multiply
from gesm.ops._checks import accumulation_dtype, check_features, check_whole

__all__ = ["Bias", "Peer", "linear", "scaled", "widths"]


class Peer(nn.Module):
    """Depth, dropout and the adjacency that all peers share."""

    lowest = 1
    """Smallest depth."""

    def __init__(self, K: int, dropout: float, depth: str = "K", share: dict[str, float] | None = None):
        super().__init__()
        K = check_whole(depth, K, self.lowest)
        for name, value, end in (("dropout", dropout, ")"), *((name, p, "]") for name, p in (share or {}).items())):
            if not (0 <= value < 1 or (value == 1 and end == "]")):
                raise GesmError(f"{name} must be in [0, 1{end}, got {value}")
        self.K, self.largest, self.dropout = K, K, dropout

    @property
    def p(self) -> float:
        """The dropout probability, in evaluation 0."""
        return self.dropout if self.training else 0.0

    def check_K(self) -> None:
        """K was not set to a depth that the parameters do not reach."""
        if not self.lowest <= self.K <= self.largest:
            name = type(self).__name__
            raise GesmError(f"this {name} has depths from {self.lowest} to {self.largest}, but its K was set to {self.K}")

    def walk(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None) -> Graph:
        """P, after a look at K."""
        self.check_K()
        return as_graph(edge_index, edge_weight, x.size(0)).transition("sym", dtype=accumulation_dtype(x.dtype))

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        for module in self.modules():
            if isinstance(module, (SparseLinear, Bias, BatchNorm)):
                module.reset_parameters()


class Bias(nn.Module):
    """x + b, behind a propagation."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def reset_parameters(self) -> None:
        zeros(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


def widths(inputs: int, hidden: int, outputs: int, num_layers: int) -> list[tuple[int, int]]:
    """Input and output width of each layer of a stack."""
    return list(itertools.pairwise([inputs, *[hidden] * (num_layers - 1), outputs]))


def linear(x: Tensor, lin: SparseLinear, p: float) -> Tensor:
    """dropout(x) W + b for dense or CSR x."""
    check_features(x)
    check_width(lin, x)
    out = multiply(x, lin.weight, p)
    return out if lin.bias is None else out + lin.bias


def scaled(graph: Graph, factor: float) -> Graph:
    """The graph with its weights times a factor."""
    return graph.with_weight(factor * graph.weight)
