"""mix on the CPU: K narrow sparse products, forward with P and backward with its transpose; no activation is kept."""

import torch
from torch import Tensor

from gesm.ops._sparse import csr_matmul

__all__ = ["mix", "mix_backward"]


def mix(rowptr: Tensor, col: Tensor, value: Tensor, x: Tensor, K: int) -> Tensor:
    """[N, (K + 1) * C] to [N, C] by Horner's rule."""
    width = x.size(1) // (K + 1)
    out = x[:, K * width :].contiguous()
    for k in reversed(range(K)):
        out = csr_matmul(rowptr, col, value, out)
        out += x[:, k * width : (k + 1) * width]
    return out if K else out.clone()


def mix_backward(colptr: Tensor, row: Tensor, value: Tensor, grad: Tensor, K: int) -> Tensor:
    """[N, C] to [N, (K + 1) * C]: block k is (P^T)^k grad."""
    width = grad.size(1)
    out = grad.new_empty(grad.size(0), (K + 1) * width)
    grad = grad.contiguous()
    out[:, :width] = grad
    for k in range(1, K + 1):
        grad = csr_matmul(colptr, row, value, grad)
        out[:, k * width : (k + 1) * width] = grad
    return out


torch.library.impl("gesm::mix", "CPU", torch.no_grad()(mix))
torch.library.impl("gesm::mix_backward", "CPU", torch.no_grad()(mix_backward))
