"""mix on the CPU: K narrow sparse products, forward with P and backward with its transpose; no activation is kept."""

from torch import Tensor

from gesm.ops._sparse import csr, csr_matmul

__all__ = ["mix", "mix_backward"]


def mix(rowptr: Tensor, col: Tensor, value: Tensor, x: Tensor, K: int) -> Tensor:
    """[N, (K + 1) * C] to [N, C] by Horner's rule."""
    matrix = csr(rowptr, col, value, x.size(0))
    *steps, out = x.split(x.size(1) // (K + 1), dim=1) if x.size(1) else [x] * (K + 1)
    for step in reversed(steps):
        out = csr_matmul(matrix, out, add=step)
    return out if K else out.clone()


def mix_backward(colptr: Tensor, row: Tensor, value: Tensor, grad: Tensor, K: int) -> Tensor:
    """[N, C] to [N, (K + 1) * C]: block k is (P^T)^k grad."""
    width = grad.size(1)
    out = grad.new_empty(grad.size(0), (K + 1) * width)
    matrix = csr(colptr, row, value, grad.size(0))
    out[:, :width] = grad
    for k in range(K):
        now, following = (out[:, i * width : (i + 1) * width] for i in (k, k + 1))
        csr_matmul(matrix, now, out=following)
    return out
