"""Entity attention: one hop of multi-head attention with a residual."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.inits import glorot, zeros

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.graph import Graph, check_normalization
from gesm.nn._messages import looped_edges, message_passing_options, needs_messages
from gesm.nn.linear import SparseLinear, check_width, multiply
from gesm.ops import attend, attention_weights
from gesm.ops._checks import accumulation_dtype, check_features, check_probability, check_whole, is_whole
from gesm.ops.attend import reference
from gesm.ops.attend.scores import SCORES
from gesm.ops.elu import bias_elu_

__all__ = ["EntityAttention"]


class EntityAttention(MessagePassing):
    r"""The entity attention of the `"Graphs, Entities, and Step Mixture" <https://arxiv.org/abs/2005.08485>`_ paper.

    .. math::
        \mathbf{H}_i = \mathrm{elu}\Big(\sum_{j} \alpha_{ij} \mathbf{z}_j + \mathbf{b} + \mathbf{z}_i\Big),
        \quad \mathbf{Z} = \mathbf{X} \mathbf{W},
        \quad \alpha_{i\cdot} = \mathrm{softmax}_j(s_{ij})

    over the edges of A + I, for each head, heads concatenated. Scores:
    :math:`s_{ij} = P_{ij} (\mathbf{u} \cdot \mathbf{z}_i + b)(\mathbf{v} \cdot \mathbf{z}_j + c)` (`score="product"`, the
    authors' code) or :math:`s_{ij} = \mathrm{LeakyReLU}_{0.2}(\mathbf{u} \cdot \mathbf{z}_i + \mathbf{v} \cdot \mathbf{z}_j)`
    (`score="additive"`, their text).

    Args:
        in_channels (int or tuple): Size of each input sample, or :obj:`-1` to derive the size from the first input(s) to the
            forward method. A tuple corresponds to the sizes of source and target dimensionalities of a bipartite graph.
        out_channels (int): Size of each output sample, per head.
        heads (int, optional): Number of attention heads. (default: :obj:`8`)
        dropout (float, optional): Dropout probability of the attention weights. (default: :obj:`0.0`)
        score (str, optional): :obj:`"product"` or :obj:`"additive"`. (default: :obj:`"product"`)
        residual (bool, optional): Whether to add :math:`\mathbf{z}_i`. (default: :obj:`True`)
        normalization (str, optional): Of P, :obj:`"col"`, :obj:`"row"` or :obj:`"sym"`. (default: :obj:`"col"`)
        add_self_loops (bool, optional): Whether to add self-loops, unless x is a pair of two sets of nodes.
            (default: :obj:`True`)
        bias (bool, optional): Whether to learn :math:`\mathbf{b}`. (default: :obj:`True`)
        input_dropout (float, optional): Dropout probability of X. (default: :obj:`0.0`)
        **kwargs (optional): Additional arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, dense or torch.sparse CSR, or
          :math:`((|\mathcal{V_s}|, F_{s}), (|\mathcal{V_t}|, F_{t}))` if bipartite, adjacency in any form that
          :func:`gesm.as_graph` takes, edge weights :math:`(|\mathcal{E}|)` *(optional)*
        - **output:** :math:`(|\mathcal{V}|, H * F_{out})`; with :obj:`return_attention_weights=True` also
          :math:`((2, |\mathcal{E}|), (|\mathcal{E}|, H))`; with :obj:`return_embedding=True` also Z
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 8,
        dropout: float = 0.0,
        score: str = "product",
        residual: bool = True,
        normalization: str = "col",
        add_self_loops: bool = True,
        bias: bool = True,
        input_dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**message_passing_options(kwargs, node_dim=0))
        if score not in SCORES:
            raise GesmError(f"score must be one of {', '.join(map(repr, SCORES))}, got {score!r}")
        for name, p in (("dropout", dropout), ("input_dropout", input_dropout)):
            check_probability(name, p)
        heads, out_channels = check_whole("heads", heads, 1), check_whole("out_channels", out_channels, 1)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.score = score
        self.residual = residual
        check_normalization(normalization)
        self.normalization = normalization
        self.add_self_loops = add_self_loops

        width = heads * out_channels
        if is_whole(in_channels):
            self.lin = SparseLinear(in_channels, width, bias=False, weight_initializer="glorot")
            self.lin_src = self.lin_dst = None
        else:
            self.lin = None
            self.lin_src = SparseLinear(in_channels[0], width, bias=False, weight_initializer="glorot")
            self.lin_dst = SparseLinear(in_channels[1], width, bias=False, weight_initializer="glorot")
        self.att_src = Parameter(torch.empty(1, heads, out_channels))
        self.att_dst = Parameter(torch.empty(1, heads, out_channels))
        for name in ("att_src_bias", "att_dst_bias"):
            self.register_parameter(name, Parameter(torch.empty(heads)) if score == "product" else None)
        self.register_parameter("bias", Parameter(torch.empty(width)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        super().reset_parameters()
        for lin in (self.lin, self.lin_src, self.lin_dst):
            if lin is not None:
                lin.reset_parameters()
        glorot(self.att_src)
        glorot(self.att_dst)
        for bias in (self.att_src_bias, self.att_dst_bias, self.bias):
            zeros(bias)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Any,
        edge_weight: Tensor | None = None,
        *,
        return_attention_weights: bool = False,
        return_embedding: bool = False,
    ) -> Any:
        """One hop of attention; see the class for shapes."""
        x = x if isinstance(x, (tuple, list)) else (x, x)
        z_src, z_dst, a, c = self._project(*x)
        size, loops = (z_src.size(0), z_dst.size(0)), self.add_self_loops and x[0] is x[1]
        transition = lambda: self._transition(edge_index, edge_weight, size, loops, z_src.dtype)  # noqa: E731

        bias = None if self.bias is None else self.bias.view(self.heads, self.out_channels)
        if needs_messages(self):
            out = self._attend_by_messages(edge_index, edge_weight, z_src, a, c, size, loops)
            out = out + z_dst if self.residual else out
            out = F.elu(out if bias is None else out + bias)
        else:
            p = self.dropout if self.training else 0.0
            fused = self.residual and z_src is z_dst
            out = attend(transition(), z_src, a, c, score=self.score, dropout=p, residual=fused)
            out = out + z_dst if self.residual and not fused else out
            # In place, and before any view of it (autograd would copy): on PubMed each further [N, heads * d] costs as much
            # in page faults as in arithmetic.
            out = bias_elu_(out, bias)
        out = out.flatten(1)

        extra = []
        if return_attention_weights:
            graph = transition()
            extra.append((graph.edge_index, attention_weights(graph, a, c, score=self.score)))
        if return_embedding:
            extra.append(z_dst.flatten(1))
        return (out, *extra) if extra else out

    def _project(self, x_src: Tensor, x_dst: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Z of sources and targets, and the scores a of targets and c of sources."""
        src, dst = (self.att_src, self.att_src_bias), (self.att_dst, self.att_dst_bias)
        check_features(x_src, "x" if x_src is x_dst else "x_src")
        if x_src is x_dst and self.lin is not None:
            z, (a, c) = self._embed(x_src, self.lin, dst, src)
            return z, z, a, c
        if x_dst is None:
            raise GesmError("x_dst is missing; the layer scores and adds the features of targets too, pass (x_src, x_dst)")
        check_features(x_dst, "x" if x_src is x_dst else "x_dst")
        z_src, (c,) = self._embed(x_src, self.lin_src or self.lin, src)
        z_dst, (a,) = self._embed(x_dst, self.lin_dst or self.lin, dst)
        return z_src, z_dst, a, c

    def _embed(self, x: Tensor, lin: SparseLinear, *attentions: tuple[Tensor, Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        """Z, and u.z + b for each (u, b) as x (W u): F columns wide instead of heads * d, and no gradient on Z."""
        check_width(lin, x)
        heads, d = self.heads, self.out_channels
        if self.training and self.input_dropout > 0:  # z and its scores come of one mask
            z = multiply(x, lin.weight, self.input_dropout).view(-1, heads, d)
            scores = [(z * att).sum(-1) for att, _ in attentions]
            return z, [s if bias is None else s + bias for s, (_, bias) in zip(scores, attentions, strict=True)]
        eye = torch.eye(heads, dtype=x.dtype, device=x.device).view(heads, 1, heads)
        by_head = torch.cat([(att.view(heads, d, 1) * eye).view(heads * d, heads) for att, _ in attentions], dim=1)
        scores = multiply(x, lin.weight @ by_head).split(heads, dim=1)
        scores = [s if bias is None else s + bias for s, (_, bias) in zip(scores, attentions, strict=True)]
        return multiply(x, lin.weight).view(-1, heads, d), scores

    def _transition(
        self, edge_index: Any, edge_weight: Tensor | None, size: tuple[int, int], loops: bool, dtype: torch.dtype
    ) -> Graph:
        graph = as_graph(edge_index, edge_weight, size)
        return graph.transition(self.normalization, loops, accumulation_dtype(dtype))

    def _attend_by_messages(
        self,
        edge_index: Any,
        edge_weight: Tensor | None,
        z: Tensor,
        a: Tensor,
        c: Tensor,
        size: tuple[int, int],
        loops: bool,
    ) -> Tensor:
        dtype = accumulation_dtype(z.dtype)
        edge_index, p = looped_edges(edge_index, edge_weight, size, self.normalization, loops, dtype)
        alpha = reference.weights(edge_index[0], edge_index[1], p, a.to(dtype), c.to(dtype), self.score).to(z.dtype)
        alpha = F.dropout(alpha, self.dropout, self.training)
        return self.propagate(edge_index, x=(z, a), alpha=alpha, size=size)

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        """The weighted features of one edge; called only when an explainer or a hook wants to see them."""
        return alpha.unsqueeze(-1) * x_j

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"
