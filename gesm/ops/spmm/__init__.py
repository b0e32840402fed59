"""Sparse times dense: y = A x over the edges of a graph."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.ops._checks import accumulation_dtype, check_graph, check_operand
from gesm.ops._library import backend, define, kernel_dtype, register
from gesm.ops.spmm import cpu, reference

__all__ = ["spmm"]

define("spmm(Tensor rowptr, Tensor col, Tensor value, Tensor x) -> Tensor")
define("sddmm(Tensor rowptr, Tensor col, Tensor a, Tensor b, int heads) -> Tensor")
register("spmm", cpu.spmm, "gesm.ops.spmm.triton")
register("sddmm", cpu.sddmm, "gesm.ops.spmm.triton")


@torch.library.register_fake("gesm::spmm")
def _(rowptr: Tensor, col: Tensor, value: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(rowptr.size(0) - 1, x.size(1))


@torch.library.register_fake("gesm::sddmm")
def _(rowptr: Tensor, col: Tensor, a: Tensor, b: Tensor, heads: int) -> Tensor:
    return a.new_empty(col.size(0), heads, dtype=accumulation_dtype(a.dtype))


class _SpMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rowptr, col, colptr, row, to_csc, value, csc_value, x):
        needs_value = value.requires_grad
        ctx.save_for_backward(
            rowptr, col, colptr, row, value if csc_value is None else csc_value, to_csc, x if needs_value else None
        )
        ctx.permuted = csc_value is not None
        return torch.ops.gesm.spmm(rowptr, col, value, x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        rowptr, col, colptr, row, value, to_csc, x = ctx.saved_tensors
        grad_value = grad_x = None
        if ctx.needs_input_grad[7]:
            csc_value = value if ctx.permuted else value.index_select(0, to_csc)
            grad_x = torch.ops.gesm.spmm(colptr, row, csc_value, grad)
        if ctx.needs_input_grad[5]:
            heads = value.size(1) if value.dim() == 2 else 1
            grad_value = torch.ops.gesm.sddmm(rowptr, col, grad, x, heads).view_as(value)
        return None, None, None, None, None, grad_value, None, grad_x


def spmm(graph: Graph, x: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Weighted sum over incoming edges, :math:`y_i = \sum_{j \to i} w_{ij} x_j`.

    Args:
        graph: the adjacency.
        x: [N_src, width], or [N_src, heads, d] with one weight a head.
        weight: [E], or [E, heads] if x has heads, in the CSR order of the graph; default: the graph's own, or ones.

    Returns:
        [N_dst, width] or [N_dst, heads, d], in the type of x; half precisions accumulate in float32.

    Raises:
        GesmError: for a wrong shape, type or device.

    The gradient of x is a product with the transpose, that of the weights a sampled dense-dense product; edge messages
    [E, width] are never formed, except by the reference.
    """
    check_graph(graph, "spmm")
    has_heads = isinstance(x, Tensor) and x.dim() == 3
    check_operand("x", x, (graph.num_src, None, None) if has_heads else (graph.num_src, None), graph)
    if has_heads and x.size(1) < 1:
        raise GesmError(f"x must have at least one head, got shape {list(x.shape)}")
    dtype = accumulation_dtype(x.dtype)
    own = weight is None
    if own:
        weight = graph.weight if graph.weight is not None else x.new_ones(graph.num_edges)
    else:
        per_head = has_heads and isinstance(weight, Tensor) and weight.dim() == 2
        shape = (graph.num_edges, x.size(1)) if per_head else (graph.num_edges,)
        check_operand("weight", weight, shape, graph)
    weight = weight.to(dtype)
    name = backend(x.device)
    if name == "reference":
        return reference.spmm(graph.col, graph.target, weight, x.to(dtype), graph.num_dst).to(x.dtype)
    csc_weight = None
    if own and not weight.requires_grad:
        csc_weight = weight if graph.weight is None else graph.csc_weight.to(dtype)
    flat = x.flatten(1).to(kernel_dtype(x.dtype, name))
    out = _SpMM.apply(graph.rowptr, graph.col, graph.colptr, graph.row, graph.to_csc, weight, csc_weight, flat)
    return out.view(graph.num_dst, *x.shape[1:]).to(x.dtype)
