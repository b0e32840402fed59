"""Edge softmax and weighted sum in one operator; only the log-sum-exp of each row is kept for backward."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.ops._checks import accumulation_dtype, check_graph, check_operand, check_probability
from gesm.ops._library import backend, define, kernel_dtype, register
from gesm.ops._random import new_seed
from gesm.ops.attend import cpu, reference
from gesm.ops.attend.scores import SCORES

__all__ = ["attend", "attend_scores", "attention_weights"]

define(
    "attend(Tensor rowptr, Tensor col, Tensor value, Tensor x, Tensor score_dst, Tensor score_src, str score, float p, "
    "Tensor seed, bool residual) -> (Tensor, Tensor)"
)
define(
    "attend_backward(Tensor rowptr, Tensor col, Tensor colptr, Tensor row, Tensor to_csc, Tensor value, Tensor x, "
    "Tensor score_dst, Tensor score_src, Tensor lse, Tensor grad, str score, float p, Tensor seed, bool residual, "
    "bool needs_value) -> (Tensor, Tensor, Tensor, Tensor)"
)
register("attend", cpu.attend, "gesm.ops.attend.triton")
register("attend_backward", cpu.attend_backward, "gesm.ops.attend.triton")


@torch.library.register_fake("gesm::attend")
def _(rowptr, col, value, x, score_dst, score_src, score, p, seed, residual):
    return x.new_empty(rowptr.size(0) - 1, x.size(1), x.size(2)), score_dst.new_empty(rowptr.size(0) - 1, x.size(1))


@torch.library.register_fake("gesm::attend_backward")
def _(rowptr, col, colptr, row, to_csc, value, x, score_dst, score_src, lse, grad, score, p, seed, residual, needs_value):
    grads = [t.new_empty(t.shape) for t in (x, score_dst, score_src)]
    return *grads, value.new_empty(value.shape if needs_value else (0,))


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rowptr, col, colptr, row, to_csc, value, x, score_dst, score_src, score, p, seed, residual):
        out, lse = torch.ops.gesm.attend(rowptr, col, value, x, score_dst, score_src, score, p, seed, residual)
        ctx.save_for_backward(rowptr, col, colptr, row, to_csc, value, x, score_dst, score_src, lse, seed)
        ctx.score, ctx.p, ctx.residual = score, p, residual
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        *tensors, seed = ctx.saved_tensors
        needs_value = ctx.needs_input_grad[5]
        grads = torch.ops.gesm.attend_backward(*tensors, grad, ctx.score, ctx.p, seed, ctx.residual, needs_value)
        grad_x, grad_dst, grad_src, grad_value = grads
        return *[None] * 5, grad_value if needs_value else None, grad_x, grad_dst, grad_src, *[None] * 4


def _check_scores(graph: Graph, heads: int | None, score_dst: Tensor, score_src: Tensor, score: str) -> None:
    if score not in SCORES:
        raise GesmError(f"score must be one of {', '.join(map(repr, SCORES))}, got {score!r}")
    check_operand("score_dst", score_dst, (graph.num_dst, heads), graph)
    check_operand("score_src", score_src, (graph.num_src, score_dst.size(1)), graph)


def attend(
    graph: Graph,
    x: Tensor,
    score_dst: Tensor,
    score_src: Tensor,
    *,
    score: str = "product",
    dropout: float = 0.0,
    seed: Tensor | None = None,
    residual: bool = False,
) -> Tensor:
    r"""Attention over incoming edges, edge softmax and weighted sum in one.

    .. math::
        y_i = \sum_{j \to i} \alpha_{ij} x_j, \quad \alpha_{i\cdot} = \mathrm{softmax}_j(s_{ij})

    `score="product"`: :math:`s_{ij} = w_{ij} a_i c_j` (the GESM authors' code); `score="additive"`:
    :math:`s_{ij} = \mathrm{LeakyReLU}_{0.2}(a_i + c_j)` (GAT), which ignores the weights. A node with no incoming edge gets
    zero.

    Args:
        graph: the adjacency, usually `Graph.transition()`, whose weights are w.
        x: [N_src, heads, d].
        score_dst: a, [N_dst, heads].
        score_src: c, [N_src, heads].
        score: "product" or "additive".
        dropout: probability of dropping a weight alpha_ij, in [0, 1), rounded to a multiple of 2^-16; the rest is scaled by
            1 / (1 - dropout).
        seed: int64 [1] that fixes the mask; default: drawn from PyTorch's generator.
        residual: add x_i to y_i; for graphs with one set of nodes.

    Returns:
        [N_dst, heads, d], in the type of x; half precisions accumulate in float32.

    Raises:
        GesmError: for a wrong shape, type, device, score or dropout.

    Memory on the CPU: the inputs, the result, one log-sum-exp a node and head, and in backward two numbers an edge and head;
    [E, heads, d] is never formed, forward or backward. With Triton: the same, and in backward one number an edge and head.
    The reference, which other devices run, forms [E, heads, d].
    """
    _check_x(graph, x, "attend")
    _check_scores(graph, x.size(1), score_dst, score_src, score)
    dtype = accumulation_dtype(x.dtype)
    weight = graph.weight.to(dtype) if graph.weight is not None else x.new_ones(graph.num_edges, dtype=dtype)
    return _attend(graph, weight, x, score_dst.to(dtype), score_src.to(dtype), score, dropout, seed, residual)


def attend_scores(
    graph: Graph,
    x: Tensor,
    scores: Tensor,
    *,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    residual: bool = False,
) -> Tensor:
    r"""Attention by scores of one's own, :math:`y_i = \sum_{j \to i} \mathrm{softmax}_j(s_{ij})\, x_j`; see :func:`attend`.

    Args:
        graph: the adjacency; its weights are not used.
        x: [N_src, heads, d].
        scores: s, [E, heads] in the CSR order of the graph (`graph.edge_index`; what is in the order of the `edge_index` it
            was made from goes there by `scores[graph.perm]`). They get a gradient too.
        dropout: as in `attend`.
        seed: as in `attend`.
        residual: as in `attend`.

    Returns:
        [N_dst, heads, d], in the type of x; half precisions accumulate in float32.

    Raises:
        GesmError: for a wrong shape, type, device or dropout.
    """
    _check_x(graph, x, "attend_scores")
    check_operand("scores", scores, (graph.num_edges, x.size(1)), graph)
    scores = scores.to(accumulation_dtype(x.dtype))
    a, c = (scores.new_zeros(n, x.size(1)) for n in (graph.num_dst, graph.num_src))
    return _attend(graph, scores, x, a, c, "given", dropout, seed, residual)


def _check_x(graph: Graph, x: Tensor, op: str) -> None:
    check_graph(graph, op)
    check_operand("x", x, (graph.num_src, None, None), graph)
    if x.size(1) < 1:
        raise GesmError(f"x must have at least one head, got shape {list(x.shape)}")


def _attend(
    graph: Graph,
    value: Tensor,
    x: Tensor,
    score_dst: Tensor,
    score_src: Tensor,
    score: str,
    dropout: float,
    seed: Tensor | None,
    residual: bool,
) -> Tensor:
    check_probability("dropout", dropout)
    if residual and graph.is_bipartite:
        raise GesmError(f"a residual needs as many sources as targets, got {graph}; add it to the result instead")
    if seed is not None and not (
        isinstance(seed, Tensor) and seed.dtype == torch.int64 and seed.shape == (1,) and seed.device == x.device
    ):
        raise GesmError(f"seed must be an int64 tensor of shape [1] on {x.device}, got {seed!r}")
    if seed is None:
        seed = new_seed(x.device) if dropout > 0 else torch.zeros(1, dtype=torch.long, device=x.device)
    name = backend(x.device)
    operands = value, x.to(kernel_dtype(x.dtype, name)), score_dst, score_src, score, float(dropout), seed, residual
    if name == "reference":
        return reference.attend(graph.col, graph.target, *operands).to(x.dtype)
    return _Attend.apply(graph.rowptr, graph.col, graph.colptr, graph.row, graph.to_csc, *operands).to(x.dtype)


def attention_weights(graph: Graph, score_dst: Tensor, score_src: Tensor, *, score: str = "product") -> Tensor:
    """The weights alpha [E, heads] themselves, in the CSR order of the graph (`graph.edge_index`), without dropout.

    In a traced graph, whose sizes are static, the edges that self-loops displaced follow last, with the target N.
    """
    check_graph(graph, "attention_weights")
    _check_scores(graph, None, score_dst, score_src, score)
    dtype = accumulation_dtype(score_dst.dtype)
    weight = graph.weight.to(dtype) if graph.weight is not None else score_dst.new_ones(graph.num_edges, dtype=dtype)
    alpha = reference.weights(graph.col, graph.target, weight, score_dst.to(dtype), score_src.to(dtype), score)
    return alpha.to(score_dst.dtype)
