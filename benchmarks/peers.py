"""GESM written the way a PyG user writes it: MessagePassing attention and concatenated propagation steps.

The peer that `benchmarks/` measures against. It follows PyG's own layers (GATConv, APPNP, TAGConv): adjacency as
`edge_index`, normalisation cached, self-loops added once, messages gathered and scattered, `torch_geometric.utils.softmax`.
The benchmarks check that, given the same parameters, it computes what `gesm.models.GESM` computes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.inits import glorot, zeros
from torch_geometric.utils import add_remaining_self_loops, scatter, softmax

__all__ = ["PyGAttend", "PyGEntityAttention", "PyGGESM", "column_normalize"]


def column_normalize(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Edges and weights of (A + I) D^-1 in PyG's convention (row 0 source, row 1 target)."""
    edge_index, weight = add_remaining_self_loops(edge_index, torch.ones(edge_index.size(1)), 1.0, num_nodes)
    degree = scatter(weight, edge_index[0], dim=0, dim_size=num_nodes, reduce="sum")
    return edge_index, weight / degree[edge_index[0]]


class PyGAttend(MessagePassing):
    """Edge softmax of product scores and weighted sum, gather-scatter: x [N, heads, d] to [N, heads, d]."""

    def __init__(self, dropout: float = 0.0):
        super().__init__(aggr="add", node_dim=0)
        self.dropout = dropout

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor, score_dst: Tensor, score_src: Tensor) -> Tensor:
        alpha = self.edge_updater(edge_index, score=(score_src, score_dst), weight=weight, size=None)
        return self.propagate(edge_index, x=x, alpha=alpha)

    def edge_update(self, score_j, score_i, weight, index, ptr, size_i):
        alpha = softmax(weight.view(-1, 1) * score_i * score_j, index, ptr, size_i)
        return F.dropout(alpha, self.dropout, self.training)

    def message(self, x_j, alpha):
        return alpha.unsqueeze(-1) * x_j


class PyGEntityAttention(nn.Module):
    """Entity attention with product scores: H = elu(alpha Z + bias + Z)."""

    def __init__(self, in_channels: int, out_channels: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.out_channels = heads, out_channels
        self.lin = nn.Linear(in_channels, heads * out_channels, bias=False)
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_src = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_dst_bias = nn.Parameter(torch.empty(heads))
        self.att_src_bias = nn.Parameter(torch.empty(heads))
        self.bias = nn.Parameter(torch.empty(heads * out_channels))
        self.attend = PyGAttend(dropout)
        for weight in (self.lin.weight, self.att_dst, self.att_src):
            glorot(weight)
        for bias in (self.att_dst_bias, self.att_src_bias, self.bias):
            zeros(bias)

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        z = self.lin(x).view(-1, self.heads, self.out_channels)
        score_dst = (z * self.att_dst).sum(-1) + self.att_dst_bias
        score_src = (z * self.att_src).sum(-1) + self.att_src_bias
        out = self.attend(z, edge_index, weight, score_dst, score_src)
        return F.elu((out + z).flatten(1) + self.bias)


class _Propagate(MessagePassing):
    def __init__(self):
        super().__init__(aggr="add")

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, weight=weight)

    def message(self, x_j, weight):
        return weight.view(-1, 1) * x_j


class PyGGESM(nn.Module):
    """GESM in gather-scatter form: [H | P H | ... | P^K H] through one Linear."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        K: int = 14,
        heads: int = 8,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ):
        super().__init__()
        self.K, self.dropout = K, dropout
        self.attention = PyGEntityAttention(in_channels, hidden_channels, heads, attention_dropout)
        self.propagate = _Propagate()
        self.lin = nn.Linear((K + 1) * heads * hidden_channels, out_channels)
        self._cache: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self._cache is None:
            self._cache = column_normalize(edge_index, x.size(0))
        edge_index, weight = self._cache
        steps = [self.attention(x, edge_index, weight)]
        for _ in range(self.K):
            steps.append(self.propagate(steps[-1], edge_index, weight))
        return self.lin(F.dropout(torch.cat(steps, dim=-1), self.dropout, self.training))
