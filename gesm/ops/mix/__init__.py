"""The Horner chain: y = sum over k of P^k x_k with every product as narrow as the output."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.ops._checks import accumulation_dtype, check_graph, check_operand, check_whole
from gesm.ops._library import backend, define, kernel_dtype, register
from gesm.ops.mix import cpu, reference
from gesm.ops.spmm import spmm

__all__ = ["mix"]

define("mix(Tensor rowptr, Tensor col, Tensor value, Tensor x, int K) -> Tensor")
define("mix_backward(Tensor colptr, Tensor row, Tensor value, Tensor grad, int K) -> Tensor")
register("mix", cpu.mix, "gesm.ops.mix.triton")
register("mix_backward", cpu.mix_backward, "gesm.ops.mix.triton")


@torch.library.register_fake("gesm::mix")
def _(rowptr: Tensor, col: Tensor, value: Tensor, x: Tensor, K: int) -> Tensor:
    return x.new_empty(x.size(0), x.size(1) // (K + 1))


@torch.library.register_fake("gesm::mix_backward")
def _(colptr: Tensor, row: Tensor, value: Tensor, grad: Tensor, K: int) -> Tensor:
    return grad.new_empty(grad.size(0), grad.size(1) * (K + 1))


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rowptr, col, colptr, row, value, csc_value, x, K):
        ctx.save_for_backward(colptr, row, csc_value)
        ctx.K = K
        return torch.ops.gesm.mix(rowptr, col, value, x, K)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return *[None] * 6, torch.ops.gesm.mix_backward(*ctx.saved_tensors, grad, ctx.K), None


def mix(graph: Graph, x: Tensor, K: int) -> Tensor:
    r"""Mixture of random-walk steps, :math:`y = \sum_{k=0}^{K} P^k x_k`, as :math:`x_0 + P (x_1 + P (x_2 + \dots))`.

    Args:
        graph: P, square, with weights (`Graph.transition()`).
        x: [N, (K + 1) * C], the blocks x_0 ... x_K side by side.
        K: number of steps, >= 0.

    Returns:
        [N, C], in the type of x; half precisions accumulate in float32.

    Raises:
        GesmError: for a wrong shape, type or device, a bipartite graph, or K < 0.

    The gradient is the same chain with the transpose; no step is kept in memory. Where the weights need a gradient, the
    chain is made of `spmm`.
    """
    check_graph(graph, "mix")
    K = check_whole("K", K)
    if graph.is_bipartite and K > 0:
        raise GesmError(f"mix needs as many sources as targets, got {graph}; several steps are walks on one set of nodes")
    check_operand("x", x, (graph.num_dst, None), graph)
    if x.size(1) % (K + 1):
        raise GesmError(f"x must hold K + 1 = {K + 1} blocks of equal width, got {x.size(1)} columns")
    dtype = accumulation_dtype(x.dtype)
    weight = graph.weight.to(dtype) if graph.weight is not None else x.new_ones(graph.num_edges, dtype=dtype)
    name = backend(x.device)
    if name == "reference":
        return reference.mix(graph.col, graph.target, weight, x.to(dtype), K).to(x.dtype)
    if weight.requires_grad and torch.is_grad_enabled():
        blocks = x.to(dtype).unflatten(1, (K + 1, -1))
        out = blocks[:, K]
        for k in reversed(range(K)):
            out = blocks[:, k] + spmm(graph, out)
        return out.to(x.dtype)
    csc_weight = weight if graph.weight is None else graph.csc_weight.to(dtype)
    x_kernel = x.to(kernel_dtype(x.dtype, name))
    out = _Mix.apply(graph.rowptr, graph.col, graph.colptr, graph.row, weight, csc_weight, x_kernel, K)
    return out.to(x.dtype)
