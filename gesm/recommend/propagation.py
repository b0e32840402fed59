"""Embeddings propagated over the graph of users and items, the steps weighted and summed."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.ops import spmm
from gesm.ops._checks import check_probability, check_whole

__all__ = ["EmbeddingPropagation"]

ALPHAS = ("uniform", "softmax", "free")


class EmbeddingPropagation(nn.Module):
    r"""The propagation of `LightGCN <https://arxiv.org/abs/2002.02126>`_, with fixed or learned weights of the steps.

    .. math::
        \mathbf{Y} = \sum_{j=0}^{K} w_j \alpha_j \mathbf{P}^j \mathbf{X}, \quad
        \mathbf{P} = \mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2}

    with no self-loops. It is computed as :math:`c_0 \mathbf{X} + \mathbf{P} (c_1 \mathbf{X} + \mathbf{P} (\dots))`, K products
    forward and K backward, and no step is kept. w is `step_weight`, one unless somebody such as
    :class:`gesm.nn.HopSampling` passes it.

    Args:
        K: number of steps, >= 0.
        alpha: "uniform", 1 / (K + 1) each (LightGCN); "softmax", learned, positive, of sum one; or "free", learned scalars.
            Learned ones start uniform. :class:`gesm.nn.HopSampling` multiplies the first k + 1 with (K + 1) / (k + 1) at depth
            k, whatever they are: below depth K the weights of "softmax" do not keep the sum one, unless they are uniform.
        edge_dropout: in training, the probability that an edge is left out, both directions together; P is normalised anew.

    Shapes:
        - **input:** embeddings :math:`(|\mathcal{V}|, d)`, a symmetric adjacency in any form that :func:`gesm.as_graph`
          takes (for speed a `Graph`, which keeps P), step weights :math:`(J + 1)`, :math:`(|\mathcal{V}|, J + 1)`, or
          several of them, :math:`(S, |\mathcal{V}|, J + 1)`, J <= K *(optional)*: steps beyond J are not computed
        - **output:** :math:`(|\mathcal{V}|, d)`, or :math:`(S, |\mathcal{V}|, d)`

    Raises:
        GesmError: for an argument out of range, a graph that is not symmetric, or step weights of a wrong shape.
    """

    def __init__(self, K: int = 3, alpha: str = "uniform", edge_dropout: float = 0.0):
        super().__init__()
        K = check_whole("K", K)
        if alpha not in ALPHAS:
            raise GesmError(f"alpha must be one of {', '.join(map(repr, ALPHAS))}, got {alpha!r}")
        check_probability("edge_dropout", edge_dropout)
        self.K, self.weighting, self.edge_dropout = K, alpha, edge_dropout
        self.generator: torch.Generator | None = None  # of edge dropout; None: PyTorch's own
        self.register_parameter("alpha", None if alpha == "uniform" else nn.Parameter(torch.empty(K + 1)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Makes the weights of the steps uniform."""
        if self.alpha is not None:
            nn.init.constant_(self.alpha, 0.0 if self.weighting == "softmax" else 1 / (self.K + 1))

    def step_coefficients(self, like: Tensor) -> Tensor:
        """alpha, [K + 1], in the type and on the device of `like`."""
        if self.alpha is None:
            return like.new_full((self.K + 1,), 1 / (self.K + 1))
        return (self.alpha.softmax(0) if self.weighting == "softmax" else self.alpha).to(like)

    def forward(self, x: Tensor, graph: Any, *, step_weight: Tensor | None = None) -> Tensor:
        """The weighted sum of the steps; see the class for shapes."""
        if not isinstance(x, Tensor) or x.dim() != 2 or not x.is_floating_point():
            passed = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise GesmError(f"x must be a floating-point tensor [num_nodes, embedding_dim], got {passed}")
        c = self.step_coefficients(x)
        if step_weight is not None:
            c = c[: self._checked(step_weight, x).size(-1)] * step_weight.to(x)
        if c.size(-1) == 1:
            return x * c
        p = self._transition(as_graph(graph, None, (x.size(0), x.size(0))))
        if c.dim() == 1:
            return _Walk.apply(p, x, c)
        out = x * c[..., :1]  # weights a row do not commute with P: the steps one after the other
        for j in range(1, c.size(-1)):
            x = spmm(p, x)
            out = out + x * c[..., j : j + 1]
        return out

    def _checked(self, step_weight: Tensor, x: Tensor) -> Tensor:
        *rows, steps = step_weight.shape if step_weight.dim() else (0,)
        if len(rows) > 2 or rows[-1:] not in ([], [1], [x.size(0)]) or not 1 <= steps <= self.K + 1:
            raise GesmError(
                f"step_weight must have shape [J + 1], [{x.size(0)}, J + 1] or [S, {x.size(0)}, J + 1] with J from 0 to "
                f"K = {self.K}, got {list(step_weight.shape)}"
            )
        return step_weight

    def _transition(self, graph: Graph) -> Graph:
        pair, count = graph._keep("pair", lambda: _pair_edges(graph))
        if self.training and self.edge_dropout > 0:
            keep = (
                (torch.rand(count, generator=self.generator) >= self.edge_dropout)
                .float()
                .to(graph.device)
                .index_select(0, pair)
            )
            graph = graph.with_weight(keep if graph.weight is None else keep * graph.weight)
        return graph.transition("sym", self_loops=False)

    def extra_repr(self) -> str:
        """The settings, for repr."""
        dropout = f", edge_dropout={self.edge_dropout}" if self.edge_dropout else ""
        return f"K={self.K}, alpha={self.weighting!r}{dropout}"


class _Walk(torch.autograd.Function):
    """sum over j of c_j P^j x for a symmetric P."""

    @staticmethod
    def forward(ctx, p, x, c):
        ctx.p, ctx.learned = p, c.requires_grad
        ctx.save_for_backward(c, x if c.requires_grad else None)
        return _horner(p, x, c)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        c, x = ctx.saved_tensors
        if not ctx.learned:
            return None, _horner(ctx.p, grad, c), None
        grad_x, grad_c = grad * c[0], [torch.vdot(x.flatten(), grad.flatten())]
        for j in range(1, c.numel()):  # <P^j x, grad> = <x, P^j grad>, so that no step of forward is needed
            grad = spmm(ctx.p, grad)
            grad_x.addcmul_(grad, c[j])
            grad_c.append(torch.vdot(x.flatten(), grad.flatten()))
        return None, grad_x, torch.stack(grad_c)


def _horner(p: Graph, x: Tensor, c: Tensor) -> Tensor:
    out = x * c[-1]
    for j in reversed(range(c.numel() - 1)):
        out = spmm(p, out).addcmul_(x, c[j])
    return out


def _pair_edges(graph: Graph) -> tuple[Tensor, int]:
    """[E] in CSR order: a number for each undirected edge, that both its directions bear; and how many there are.

    Raises:
        GesmError: if an edge has no counterpart of the same weight.
    """
    same = torch.equal(graph.rowptr, graph.colptr) and torch.equal(graph.col, graph.row)
    if not same or (graph.weight is not None and not torch.equal(graph.weight, graph.csc_weight)):
        raise GesmError(
            f"{graph} is not symmetric; give each edge in both directions with one weight, as Interactions.graph() does"
        )
    place, mirror = torch.arange(graph.num_edges, device=graph.device), graph.to_csc.long()
    first = place <= mirror  # the CSR and its transpose being equal, to_csc takes an edge to its counterpart
    return (first.cumsum(0) - 1).index_select(0, torch.minimum(place, mirror)), int(first.sum())
