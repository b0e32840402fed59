"""mix in Triton: K launches of the sparse product, the block of each step added inside.

What is between two steps lies in buffers whose rows are whole multiples of 16 bytes, in the type of sums: a row of 7 columns
is then one sector of memory and two loads. The padding holds zeros that nobody reads.
"""

import torch
from torch import Tensor

from gesm.ops._triton import accumulator
from gesm.ops.spmm.triton import multiply_add

__all__ = ["mix", "mix_backward"]


def _buffers(x: Tensor, width: int, steps: int) -> list[Tensor]:
    padded = (width + 3) // 4 * 4
    return [x.new_empty(x.size(0), padded, dtype=accumulator(x.dtype)) for _ in range(min(max(steps, 0), 2))]


def mix(rowptr: Tensor, col: Tensor, value: Tensor, x: Tensor, K: int) -> Tensor:
    """[N, (K + 1) * C] to [N, C] by Horner's rule."""
    x = x if x.stride(1) == 1 else x.contiguous()
    width = x.size(1) // (K + 1)
    blocks = [x[:, k * width : (k + 1) * width] for k in range(K + 1)]
    if K == 0:
        return x.clone(memory_format=torch.contiguous_format)
    out, between = blocks[K], _buffers(x, width, K - 1)
    for k in reversed(range(K)):
        following = between[k % len(between)] if k else x.new_empty(x.size(0), width)
        multiply_add(rowptr, col, value, out, following, add=blocks[k])
        out = following
    return out


def mix_backward(colptr: Tensor, row: Tensor, value: Tensor, grad: Tensor, K: int) -> Tensor:
    """[N, C] to [N, (K + 1) * C]: block k is (P^T)^k grad."""
    grad = grad if grad.stride(1) == 1 else grad.contiguous()
    width = grad.size(1)
    out, between = grad.new_empty(grad.size(0), (K + 1) * width), _buffers(grad, width, K - 1)
    out[:, :width] = grad
    now = grad
    for k in range(1, K):
        following = between[k % len(between)]
        multiply_add(colptr, row, value, now, following, copy=out[:, k * width : (k + 1) * width])
        now = following
    if K:
        multiply_add(colptr, row, value, now, out[:, K * width :])
    return out
