"""Step mixture: a learned sum over the steps of a random walk."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.dense.linear import Linear

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.graph import Graph, check_normalization
from gesm.nn._messages import looped_edges, message_passing_options, needs_messages
from gesm.nn.linear import check_width, multiply
from gesm.ops import dropout_linear, mix, spmm
from gesm.ops._checks import accumulation_dtype, check_features, check_probability, check_whole
from gesm.ops.dropout_linear import dropout

__all__ = ["StepMixture", "check_step_weight", "of_mixture"]


class _StepLinear(Linear):
    """The K + 1 maps B_k side by side, drawn as the one map over [x | P x | ... | P^K x] that they are."""

    def __init__(self, in_channels: int, out_channels: int, K: int):
        self.K = K
        super().__init__(in_channels, (K + 1) * out_channels, bias=False)

    def reset_parameters(self) -> None:
        if self.in_channels > 0:
            bound = math.sqrt(6 / ((self.K + 1) * self.in_channels + self.out_channels // (self.K + 1)))
            torch.nn.init.uniform_(self.weight, -bound, bound)


class StepMixture(MessagePassing):
    r"""The step mixture of the `"Graphs, Entities, and Step Mixture" <https://arxiv.org/abs/2005.08485>`_ paper.

    .. math::
        \mathbf{Y} = \sum_{k=0}^{K} \mathbf{P}^k \mathbf{X} \mathbf{B}_k + \mathbf{b},
        \quad \mathbf{P} = (\mathbf{A} + \mathbf{I}) \mathbf{D}^{-1}

    a linear map of :math:`[\mathbf{X} | \mathbf{P} \mathbf{X} | \dots | \mathbf{P}^K \mathbf{X}]`. Where
    :math:`F_{out} < F_{in}` it is computed as
    :math:`\mathbf{X} \mathbf{B}_0 + \mathbf{P} (\mathbf{X} \mathbf{B}_1 + \mathbf{P} (\dots))`, so that every product with P
    is as narrow as the output and no step is kept for backward.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive the size from the first input(s) to the forward
            method.
        out_channels (int, optional): Size of each output sample; needed by :obj:`mode="sum"`. (default: :obj:`None`)
        K (int, optional): Number of steps; K entries of `num_neighbors` in a neighbour loader. (default: :obj:`14`)
        mode (str, optional): :obj:`"sum"`, or :obj:`"concat"` for the blocks
            :math:`[\mathbf{X} | \dots | \mathbf{P}^K \mathbf{X}]` themselves, with no parameters. (default: :obj:`"sum"`)
        dropout (float, optional): Dropout probability of (dense) X, one mask for all steps; the published code masks the
            concatenated steps. (default: :obj:`0.0`)
        normalization (str, optional): Of P, :obj:`"col"`, :obj:`"row"` or :obj:`"sym"`. (default: :obj:`"col"`)
        add_self_loops (bool, optional): Whether to add self-loops. (default: :obj:`True`)
        bias (bool, optional): Whether to learn :math:`\mathbf{b}`. (default: :obj:`True`)
        **kwargs (optional): Additional arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, dense or torch.sparse CSR, or, for K at most 1,
          :math:`((|\mathcal{V_s}|, F_{in}), (|\mathcal{V_t}|, F_{in}))` if bipartite, adjacency in any form that
          :func:`gesm.as_graph` takes, edge weights :math:`(|\mathcal{E}|)` *(optional)*
        - **step_weight** *(optional)*: factors w of the steps' terms, :math:`(J + 1)` with J at most K, after which no step is
          taken, or one row a node, :math:`(|\mathcal{V}|, J + 1)`, or several mixtures that share their steps,
          :math:`(S, 1, J + 1)` or :math:`(S, |\mathcal{V}|, J + 1)`
        - **output:** :math:`(|\mathcal{V}|, F_{out})`, or :math:`(|\mathcal{V}|, (K + 1) * F_{in})` for "concat"; with S
          mixtures :math:`(S, |\mathcal{V}|, \dots)`
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        K: int = 14,
        mode: str = "sum",
        dropout: float = 0.0,
        normalization: str = "col",
        add_self_loops: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**message_passing_options(kwargs))
        if mode not in ("sum", "concat"):
            raise GesmError(f"mode must be 'sum' or 'concat', got {mode!r}")
        if (mode == "sum") != (out_channels is not None):
            raise GesmError(f"out_channels goes with mode='sum' and only with it, got {out_channels} and {mode!r}")
        in_channels, K = check_whole("in_channels", in_channels, -1), check_whole("K", K)
        if out_channels is not None:
            out_channels = check_whole("out_channels", out_channels, 1)
        check_probability("dropout", dropout)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.K = K
        self.mode = mode
        self.dropout = dropout
        check_normalization(normalization)
        self.normalization = normalization
        self.add_self_loops = add_self_loops

        self.lin = _StepLinear(in_channels, out_channels, K) if mode == "sum" else None
        has_bias = bias and mode == "sum"
        self.register_parameter("bias", torch.nn.Parameter(torch.empty(out_channels)) if has_bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        super().reset_parameters()
        if self.lin is not None:
            self.lin.reset_parameters()
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Any,
        edge_weight: Tensor | None = None,
        *,
        step_weight: Tensor | None = None,
    ) -> Tensor:
        """Mixture of the steps 0 ... K; see the class for shapes."""
        x_src, x_dst = x if isinstance(x, (tuple, list)) else (x, x)
        check_features(x_src, "x" if x_src is x_dst else "x_src")
        check_features(x_dst, "x" if x_src is x_dst else "x_dst")
        if x_src.size(1) != x_dst.size(1):
            raise GesmError(f"x_src and x_dst must be of one width, got {x_src.size(1)} and {x_dst.size(1)} columns")
        size = (x_src.size(0), x_dst.size(0))
        if x_src is not x_dst and self.K > 1:
            raise GesmError(
                f"a walk of K={self.K} steps stays on one set of nodes, but the graph is bipartite ({size[0]} sources, "
                f"{size[1]} targets); use K <= 1, or pass one x"
            )
        if step_weight is not None:
            check_step_weight(step_weight, self.K, size[1])
            step_weight = step_weight.to(x_src.device, x_src.dtype)
        walk = (self.normalization, self.add_self_loops and x_src is x_dst, accumulation_dtype(x_src.dtype))
        if needs_messages(self):
            graph, (edges, weight) = None, looped_edges(edge_index, edge_weight, size, *walk)
            step = lambda h: self.propagate(edges, x=(h, None), weight=weight.to(h.dtype), size=size)  # noqa: E731
        else:
            graph = as_graph(edge_index, edge_weight, size).transition(*walk)
            step = lambda h: spmm(graph, h)  # noqa: E731
        p = self.dropout if self.training else 0.0
        if p > 0 and torch.sparse_csr in (x_src.layout, x_dst.layout):
            raise GesmError("dropout works on dense features, but x is torch.sparse CSR; pass x.to_dense() or set dropout=0")
        if self.mode == "concat":
            if self.in_channels not in (-1, x_src.size(1)):
                raise GesmError(f"x has {x_src.size(1)} features, but the layer was made for in_channels={self.in_channels}")
            return self._concat(*_masked(x_src, x_dst, p), step, step_weight)
        if self.K > self.lin.K:
            raise GesmError(f"the layer was made with K={self.lin.K} and has no maps beyond, but its K was set to {self.K}")
        out = self._sum(x_src, x_dst, step, step_weight, graph, p)
        return out if self.bias is None else out + self.bias

    def _concat(self, x_src: Tensor, x_dst: Tensor, step: Callable[[Tensor], Tensor], step_weight: Tensor | None) -> Tensor:
        if step_weight is None:
            return torch.cat(self._steps(x_src, x_dst, step, self.K), dim=-1)
        taken = step_weight.size(-1)
        steps = self._steps(x_src, x_dst, step, taken - 1)
        out = torch.cat([step_weight[..., k, None] * h for k, h in enumerate(steps)], dim=-1)
        return F.pad(out, (0, (self.K + 1 - taken) * x_src.size(1)))

    def _sum(
        self,
        x_src: Tensor,
        x_dst: Tensor,
        step: Callable[[Tensor], Tensor],
        step_weight: Tensor | None,
        graph: Graph | None,
        p: float,
    ) -> Tensor:
        check_width(self.lin, x_src)
        weight, J = self.lin.weight, self.K if step_weight is None else step_weight.size(-1) - 1
        if J < self.lin.K:
            weight = weight[: (J + 1) * self.out_channels]
        if x_src is x_dst and graph is not None and self.out_channels < x_src.size(1):
            if step_weight is not None and step_weight.dim() == 1:
                weight = (weight.view(J + 1, -1) * step_weight.view(-1, 1)).view_as(weight)
            maps = dropout_linear(x_src, weight, p) if p > 0 else multiply(x_src, weight.t())
            if step_weight is None or step_weight.dim() == 1:
                return mix(graph, maps, J)
            return self._mix_weighted(graph, maps, step_weight)
        terms = map(F.linear, self._steps(*_masked(x_src, x_dst, p), step, J), weight.split(self.out_channels))
        if step_weight is None:
            return sum(terms)
        return sum(step_weight[..., k, None] * term for k, term in enumerate(terms))

    def _mix_weighted(self, graph: Graph, maps: Tensor, step_weight: Tensor) -> Tensor:
        """The narrow order for several mixtures, which Horner's rule takes side by side, and for nodes of their own weights."""
        *_, rows, steps = step_weight.shape
        blocks = maps.view(maps.size(0), steps, self.out_channels)
        if rows == 1 and step_weight.dim() == 3:
            return self._mix_several(graph, blocks, step_weight[:, 0])
        out = step_weight[..., 0, None] * blocks[:, 0]
        for k in range(1, steps):
            maps = spmm(graph, maps[:, self.out_channels :])
            out = out + step_weight[..., k, None] * maps[:, : self.out_channels]
        return out

    def _mix_several(self, graph: Graph, blocks: Tensor, step_weight: Tensor) -> Tensor:
        """[N, J + 1, C] and weights [S, J + 1] to [S, N, C]."""
        # A product with w_k (x) I scales and repeats a block in one pass; broadcasting over so few columns is slow.
        scale = torch.kron(step_weight.t().contiguous().unsqueeze(1), torch.eye(blocks.size(-1)).to(step_weight))
        *_, (block, w) = pairs = list(zip(blocks.unbind(1), scale.unbind(0), strict=True))
        out = block @ w
        for block, w in reversed(pairs[:-1]):
            out = torch.addmm(spmm(graph, out), block, w)
        return out.unflatten(1, (-1, blocks.size(-1))).transpose(0, 1).contiguous()

    def _steps(self, x_src: Tensor, x_dst: Tensor, step: Callable[[Tensor], Tensor], K: int) -> list[Tensor]:
        h = x_src if x_src.layout is torch.strided else x_src.to_dense()
        steps = [h if x_src is x_dst else x_dst.to_dense()]
        for _ in range(K):
            h = step(h)
            steps.append(h)
        return steps

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        """The weighted features of one edge; called only when an explainer or a hook wants to see them."""
        return weight.unsqueeze(-1) * x_j

    def __repr__(self) -> str:
        if self.mode == "concat":
            return f"{self.__class__.__name__}({self.in_channels}, K={self.K}, mode='concat')"
        return f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, K={self.K})"


def of_mixture(name: str, doc: str) -> property:
    """A property that reads and sets an attribute of `mixture`."""
    return property(lambda self: getattr(self.mixture, name), lambda self, value: setattr(self.mixture, name, value), doc=doc)


def _masked(x_src: Tensor, x_dst: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Both dropped out, with one mask where they are one."""
    if p == 0:
        return x_src, x_dst
    masked = dropout(x_src, p)
    return masked, masked if x_src is x_dst else dropout(x_dst, p)


def check_step_weight(step_weight: Tensor, K: int, num_nodes: int) -> None:
    """step_weight is [J + 1], [N, J + 1], [S, 1, J + 1] or [S, N, J + 1] with J <= K, of floating point."""
    is_real = isinstance(step_weight, Tensor) and step_weight.is_floating_point()
    shape = list(step_weight.shape) if is_real else []
    rows_fit = len(shape) < 2 or shape[-2] == num_nodes or (len(shape) == 3 and shape[-2] == 1)
    if 1 <= len(shape) <= 3 and 1 <= shape[-1] <= K + 1 and rows_fit:
        return  # before any text with num_nodes in it, which would bind a traced graph to that size
    allowed = f"[J + 1], [{num_nodes}, J + 1], [S, 1, J + 1] or [S, {num_nodes}, J + 1] with J at most K={K}"
    if not is_real:
        found = getattr(step_weight, "dtype", type(step_weight).__name__)
        raise GesmError(f"step_weight must be a floating-point tensor {allowed}, got {found}")
    raise GesmError(f"step_weight must have shape {allowed}, got {shape}")
