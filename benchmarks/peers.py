"""The peers that `benchmarks/` measures against: GESM written the way a PyG user writes it, and PyG's own GAT and GCN.

The GESM peer follows PyG's layers (GATConv, APPNP, TAGConv): adjacency as `edge_index`, normalisation cached, self-loops
added once, messages gathered and scattered, `torch_geometric.utils.softmax`, propagation steps concatenated. Given the same
parameters (`copy_parameters`) it computes what `gesm.models.GESM` computes; the suite checks that before it times anything.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, MessagePassing, TAGConv
from torch_geometric.nn.inits import glorot, zeros
from torch_geometric.utils import add_remaining_self_loops, scatter, softmax, spmm

from gesm.models import GESM
from gesm.nn import EntityAttention, StepMixture

__all__ = ["PyGAttend", "PyGEntityAttention", "PyGGAT", "PyGGCN", "PyGGESM", "PyGStep", "PyGStepMixture"]
__all__ += ["adjacency_t", "column_normalize", "copy_parameters"]


def column_normalize(edge_index: Tensor, num_nodes: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Edges and weights of (A + I) D^-1 in PyG's convention (row 0 source, row 1 target)."""
    weight = torch.ones(edge_index.size(1), dtype=dtype)
    edge_index, weight = add_remaining_self_loops(edge_index, weight, 1.0, num_nodes)
    degree = scatter(weight, edge_index[0], dim=0, dim_size=num_nodes, reduce="sum")
    return edge_index, weight / degree[edge_index[0]]


def adjacency_t(edge_index: Tensor, weight: Tensor, num_nodes: int) -> Tensor:
    """The transposed adjacency as torch.sparse CSR, what PyG multiplies with instead of gathering and scattering."""
    adj_t = torch.sparse_coo_tensor(edge_index.flip(0), weight, (num_nodes, num_nodes), check_invariants=False)
    return adj_t.to_sparse_csr()


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


class PyGStep(MessagePassing):
    """One step P x; gather-scatter for an edge_index with weights, one sparse product for an `adjacency_t`."""

    def __init__(self):
        super().__init__(aggr="add")

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.propagate(edge_index, x=x, weight=weight)

    def message(self, x_j, weight):
        return weight.view(-1, 1) * x_j

    def message_and_aggregate(self, edge_index, x):
        return spmm(edge_index, x, reduce=self.aggr)


class PyGGESM(nn.Module):
    """GESM with [H | P H | ... | P^K H] through one Linear; `sparse_steps` multiplies with an `adjacency_t` for P."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        K: int = 14,
        heads: int = 8,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        sparse_steps: bool = False,
    ):
        super().__init__()
        self.K, self.dropout, self.sparse_steps = K, dropout, sparse_steps
        self.attention = PyGEntityAttention(in_channels, hidden_channels, heads, attention_dropout)
        self.step = PyGStep()
        self.lin = nn.Linear((K + 1) * heads * hidden_channels, out_channels)
        self._cache: tuple[tuple, tuple] | None = None

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self._cache is None:
            edges = column_normalize(edge_index, x.size(0), x.dtype)
            self._cache = edges, (adjacency_t(*edges, x.size(0)),) if self.sparse_steps else edges
        edges, adjacency = self._cache
        steps = [self.attention(x, *edges)]
        for _ in range(self.K):
            steps.append(self.step(steps[-1], *adjacency))
        return self.lin(F.dropout(torch.cat(steps, dim=-1), self.dropout, self.training))


class PyGStepMixture(nn.Module):
    """The step mixture as PyG has it: `TAGConv` with the weights of P, after dropout."""

    def __init__(self, in_channels: int, out_channels: int, K: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.conv = TAGConv(in_channels, out_channels, K, normalize=False)

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        return self.conv(F.dropout(x, self.dropout, self.training), edge_index, weight)


@torch.no_grad()
def copy_parameters(ours: nn.Module, peer: nn.Module) -> None:
    """Gives a peer the parameters of gesm's one-layer GESM with product scores, or of its layer."""
    match ours, peer:
        case GESM(), PyGGESM():
            (conv,) = ours.convs
            copy_parameters(conv.attention, peer.attention)
            blocks = conv.mixture.lin.weight.unflatten(0, (peer.K + 1, -1))  # [K + 1, C, heads * d]
            peer.lin.weight.copy_(blocks.transpose(0, 1).flatten(1))
            peer.lin.bias.copy_(conv.mixture.bias)
        case EntityAttention(), PyGEntityAttention():
            for name, parameter in peer.named_parameters():
                value = ours.get_parameter(name)
                parameter.copy_(value.t() if name == "lin.weight" else value)
        case StepMixture(), PyGStepMixture():
            for lin, block in zip(peer.conv.lins, ours.lin.weight.split(ours.out_channels), strict=True):
                lin.weight.copy_(block)
            peer.conv.bias.copy_(ours.bias)


class PyGGAT(nn.Module):
    """GAT as in its paper and PyG's example: two layers, 8 heads of 8 channels, dropout 0.6."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first = GATConv(in_channels, 8, heads=8, dropout=0.6)
        self.second = GATConv(64, out_channels, heads=1, concat=False, dropout=0.6)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = F.elu(self.first(F.dropout(x, 0.6, self.training), edge_index))
        return self.second(F.dropout(x, 0.6, self.training), edge_index)


class PyGGCN(nn.Module):
    """GCN as in its paper and PyG's example: two layers, 16 channels, dropout 0.5, normalisation cached."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first = GCNConv(in_channels, 16, cached=True)
        self.second = GCNConv(16, out_channels, cached=True)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.first(F.dropout(x, 0.5, self.training), edge_index).relu()
        return self.second(F.dropout(x, 0.5, self.training), edge_index)
