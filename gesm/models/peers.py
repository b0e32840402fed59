r"""Models of the literature behind the call of GESM: model(x, graph), x dense or torch.sparse CSR, on gesm's operators.

Each has an integer attribute `K`, its depth, which forward reads: a smaller one runs the same parameters less deep, as
:class:`gesm.nn.HopSampling` does. Propagation is by :math:`\mathbf{P} = \mathbf{D}^{-1/2} (\mathbf{A} + \mathbf{I})
\mathbf{D}^{-1/2}`, PyG's `gcn_norm` but that a self-loop already there weighs one, and always on the narrower side
of a linear map.

Shapes:
    - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, the adjacency in any form that :func:`gesm.as_graph` takes,
      edge weights :math:`(|\mathcal{E}|)` *(optional)*
    - **output:** logits :math:`(|\mathcal{V}|, F_{out})`
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import BatchNorm
from torch_geometric.nn.inits import glorot

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.models._peer import Bias, Peer, linear, scaled, widths
from gesm.nn.linear import SparseLinear
from gesm.ops import attend, spmm
from gesm.ops._checks import check_whole
from gesm.ops.dropout_linear import dropout

__all__ = ["APPNP", "GAT", "GCN", "GCNII", "MLP", "SGC", "MixHop"]


class SGC(Peer):
    r"""`"Simplifying Graph Convolutional Networks" <https://arxiv.org/abs/1902.07153>`_:
    :math:`\mathbf{Y} = \mathbf{P}^K \mathbf{X} \mathbf{W} + \mathbf{b}`, as :math:`\mathbf{P}^K (\mathbf{X} \mathbf{W})`.

    Args:
        in_channels: Size of each input sample, or :obj:`-1`.
        out_channels: Number of classes or labels.
        K: Number of steps.
        dropout: Dropout probability of X.
    """

    lowest = 0

    def __init__(self, in_channels: int, out_channels: int, K: int = 2, dropout: float = 0.0):
        super().__init__(K, dropout)
        self.lin, self.bias = SparseLinear(in_channels, out_channels, bias=False), Bias(out_channels)

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Logits."""
        walk, x = self.walk(x, edge_index, edge_weight), linear(x, self.lin, self.p)
        for _ in range(self.K):
            x = spmm(walk, x)
        return self.bias(x)


class APPNP(Peer):
    r"""`"Predict then Propagate" <https://arxiv.org/abs/1810.05997>`_:
    :math:`\mathbf{Z}_{k+1} = (1 - \alpha) \mathbf{P} \mathbf{Z}_k + \alpha \mathbf{Z}_0`, :math:`\mathbf{Z}_0` an MLP of X.

    Args:
        in_channels: Size of each input sample, or :obj:`-1`.
        hidden_channels: Width of the MLP's hidden layer.
        out_channels: Number of classes or labels.
        K: Number of steps.
        alpha: Teleport probability.
        dropout: Dropout probability of the inputs of both linear maps; the edges are not dropped.
    """

    lowest = 0

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        K: int = 10,
        alpha: float = 0.1,
        dropout: float = 0.0,
    ):
        super().__init__(K, dropout, share={"alpha": alpha})
        self.alpha = alpha
        self.lins = nn.ModuleList([SparseLinear(in_channels, hidden_channels), SparseLinear(hidden_channels, out_channels)])

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Logits."""
        walk = scaled(self.walk(x, edge_index, edge_weight), 1 - self.alpha)
        first, last = self.lins
        out = linear(F.relu(linear(x, first, self.p)), last, self.p)
        teleport = self.alpha * out
        for _ in range(self.K):
            out = spmm(walk, out) + teleport
        return out


class _Conv(nn.Module):
    """P X W + b; without a graph X W + b."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.lin = SparseLinear(in_channels, out_channels, bias=False, weight_initializer="glorot")
        self.bias = Bias(out_channels)

    def forward(self, x: Tensor, walk: Graph | None, p: float) -> Tensor:
        x = linear(x, self.lin, p)
        return self.bias(x if walk is None else spmm(walk, x))


class GCN(Peer):
    r"""`"Semi-supervised Classification with Graph Convolutional Networks" <https://arxiv.org/abs/1609.02907>`_:
    :math:`\mathbf{X}^{(l+1)} = \mathrm{relu}(\mathbf{P} \mathbf{X}^{(l)} \mathbf{W}_l + \mathbf{b}_l)`, no relu on the last.

    At depth k it has its first k - 1 layers and the last; at depth 1 the first without its propagation, and the last.

    Args:
        in_channels: Size of each input sample, or :obj:`-1`.
        hidden_channels: Width of the hidden layers.
        out_channels: Number of classes or labels.
        num_layers: Number of layers.
        dropout: Dropout probability of each layer's input.
        batch_norm: "hidden" normalises each hidden layer in batches before its relu, PyG's `norm="batch_norm"`; or "none".
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 2,
        dropout: float = 0.0,
        batch_norm: str = "none",
    ):
        super().__init__(num_layers, dropout, "num_layers")
        if batch_norm not in ("none", "hidden"):
            raise GesmError(f"batch_norm must be one of 'none', 'hidden', got {batch_norm!r}")
        self.convs = nn.ModuleList(_Conv(*w) for w in widths(in_channels, hidden_channels, out_channels, num_layers))
        self.norms = nn.ModuleList(
            nn.Identity() if batch_norm == "none" else BatchNorm(hidden_channels, allow_single_element=True)
            for _ in self.convs[1:]
        )

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Logits."""
        walk = self.walk(x, edge_index, edge_weight)
        *hidden, last = self.convs
        for conv, norm in [*zip(hidden, self.norms, strict=True)][: max(self.K - 1, 1)]:
            x = F.relu_(norm(conv(x, walk if self.K > 1 else None, self.p)))
        return last(x, walk, self.p)


class _Attention(nn.Module):
    """GAT's layer, heads side by side; without a graph each node sees itself alone."""

    def __init__(self, in_channels: int, out_channels: int, heads: int, skip: bool):
        super().__init__()
        self.heads, self.width = heads, int(heads * out_channels)  # NumPy's numbers split nothing
        self.lin = SparseLinear(in_channels, self.width * (2 if skip else 1), bias=False, weight_initializer="glorot")
        self.att_src, self.att_dst = (nn.Parameter(torch.empty(1, heads, out_channels)) for _ in range(2))
        self.bias = Bias(heads * out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        glorot(self.att_src)
        glorot(self.att_dst)

    def forward(self, x: Tensor, walk: Graph | None, p: float) -> Tensor:
        z, *skip = linear(x, self.lin, p).split(self.width, dim=1)  # of one masked x
        if walk is not None:
            z = z.unflatten(1, (self.heads, -1))
            scores = (z * self.att_dst).sum(-1), (z * self.att_src).sum(-1)
            z = attend(walk, z, *scores, score="additive", dropout=p).flatten(1)
        return self.bias(sum(skip, z))


class GAT(Peer):
    r"""`"Graph Attention Networks" <https://arxiv.org/abs/1710.10903>`_ on A + I, elu between layers, one head in the last.

    Its depth is that of :class:`GCN`. Edge weights do not count.

    Args:
        in_channels: Size of each input sample, or :obj:`-1`.
        hidden_channels: Width of a head.
        out_channels: Number of classes or labels.
        num_layers: Number of layers.
        heads: Number of heads of all layers but the last.
        dropout: Dropout probability of each layer's input and of its attention weights.
        skip_connections: Whether each layer adds a linear map of its input, what PyG's `GATConv` calls `residual`.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 2,
        heads: int = 8,
        dropout: float = 0.0,
        skip_connections: bool = False,
    ):
        super().__init__(num_layers, dropout, "num_layers")
        heads = check_whole("heads", heads, 1)
        sizes = widths(in_channels, heads * hidden_channels, out_channels, num_layers)
        *hidden, (last, _) = sizes
        convs = [_Attention(inputs, hidden_channels, heads, skip_connections) for inputs, _ in hidden]
        self.convs = nn.ModuleList([*convs, _Attention(last, out_channels, 1, skip_connections)])

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Logits."""
        walk = self.walk(x, edge_index, edge_weight)
        *hidden, last = self.convs
        for conv in hidden[: max(self.K - 1, 1)]:
            x = F.elu_(conv(x, walk if self.K > 1 else None, self.p))
        return last(x, walk, self.p)

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        super().reset_parameters()
        for conv in self.convs:
            conv.reset_parameters()


class GCNII(Peer):
    r"""`"Simple and Deep Graph Convolutional Networks" <https://arxiv.org/abs/2007.02133>`_, with its linear maps before and
    after the K layers:

    .. math::
        \mathbf{X}^{(l)} = \mathrm{relu}\big(\mathbf{S} ((1 - \beta_l) \mathbf{I} + \beta_l \mathbf{W}_l)\big),\quad
        \mathbf{S} = (1 - \alpha) \mathbf{P} \mathbf{X}^{(l-1)} + \alpha \mathbf{X}^{(0)},\quad
        \beta_l = \log(\theta / l + 1)

    At depth k it has its first k layers.

    Args:
        in_channels: Size of each input sample, or :obj:`-1`.
        hidden_channels: Width of the layers.
        out_channels: Number of classes or labels.
        num_layers: Number of layers.
        alpha: Weight of the first layer's input.
        theta: Strength of the maps.
        dropout: Dropout probability of x, of each layer's input and of the last map's.
    """

    lowest = 0

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 64,
        alpha: float = 0.1,
        theta: float = 0.5,
        dropout: float = 0.0,
    ):
        super().__init__(num_layers, dropout, "num_layers", {"alpha": alpha})
        if theta <= 0:
            raise GesmError(f"theta must be positive, got {theta}")
        self.alpha, self.theta = alpha, theta
        self.lins = nn.ModuleList([SparseLinear(in_channels, hidden_channels), SparseLinear(hidden_channels, out_channels)])
        self.weights = nn.ParameterList(torch.empty(hidden_channels, hidden_channels) for _ in range(num_layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        super().reset_parameters()
        for weight in self.weights:
            glorot(weight)

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Logits."""
        walk = scaled(self.walk(x, edge_index, edge_weight), 1 - self.alpha)
        first, last = self.lins
        x = F.relu_(linear(x, first, self.p))
        initial, eye = self.alpha * x, torch.eye(x.size(1), dtype=x.dtype, device=x.device)
        for layer, weight in enumerate(list(self.weights)[: self.K], start=1):
            beta = math.log(self.theta / layer + 1)
            x = F.relu_((spmm(walk, dropout(x, self.p)) + initial) @ torch.lerp(eye, weight, beta))
        return linear(x, last, self.p)


class MixHop(Peer):
    r"""`"MixHop" <https://arxiv.org/abs/1905.00067>`_: layers :math:`\mathrm{relu}([\mathbf{P}^j \mathbf{X} \mathbf{W}_j]_j +
    \mathbf{b})` over the powers j, then a linear map. At depth k it has its first k layers.

    Args:
        in_channels: Size of each input sample, or :obj:`-1`.
        hidden_channels: Width of a power.
        out_channels: Number of classes or labels.
        num_layers: Number of layers before the last map.
        powers: Powers of P, from 0 up.
        dropout: Dropout probability of the input of each map.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 2,
        powers: Sequence[int] = (0, 1, 2),
        dropout: float = 0.0,
    ):
        super().__init__(num_layers, dropout, "num_layers")
        if not powers or list(powers) != sorted({*powers}) or powers[0] < 0:
            raise GesmError(f"powers must be whole numbers from 0 up that increase, got {list(powers)}")
        self.powers = tuple(powers)
        width = len(powers) * hidden_channels
        self.convs = nn.ModuleList(_Conv(inputs, width) for inputs in [in_channels, *[width] * (num_layers - 1)])
        self.lin = SparseLinear(width, out_channels)

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Logits."""
        walk = self.walk(x, edge_index, edge_weight)
        for conv in self.convs[: self.K]:
            z, blocks, power = linear(x, conv.lin, self.p), [], 0
            for i, target in enumerate(self.powers):
                for _ in range(target - power):
                    z = spmm(walk, z)
                width, power = z.size(1) // (len(self.powers) - i), target
                block, z = z.split((width, z.size(1) - width), 1)
                blocks.append(block)
            x = F.relu_(conv.bias(torch.cat(blocks, dim=-1)))
        return linear(x, self.lin, self.p)


class MLP(Peer):
    r"""Linear maps and relu, no propagation; `K` counts the hidden layers. At depth k it has the first k maps and the last.

    Args:
        in_channels: Size of each input sample, or :obj:`-1`.
        hidden_channels: Width of the hidden layers.
        out_channels: Number of classes or labels.
        num_layers: Number of linear maps; one is logistic regression.
        dropout: Dropout probability of the input of each map.
    """

    lowest = 0

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int = 2, dropout: float = 0.0):
        check_whole("num_layers", num_layers, 1)
        super().__init__(num_layers - 1, dropout)
        sizes = widths(in_channels, hidden_channels, out_channels, num_layers)
        self.lins = nn.ModuleList(SparseLinear(*w) for w in sizes)

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Logits."""
        self.check_K()
        *hidden, last = self.lins
        for lin in hidden[: self.K]:
            x = F.relu(linear(x, lin, self.p))
        return linear(x, last, self.p)
