"""mix in plain PyTorch: any device, differentiable; the truth that every backend is tested against."""

from torch import Tensor

from gesm.ops.spmm import reference as spmm_reference

__all__ = ["mix"]


def mix(col: Tensor, target: Tensor, value: Tensor, x: Tensor, K: int) -> Tensor:
    """y = sum over k of P^k x_k, x [N, (K + 1) * C] holding the blocks x_0 ... x_K side by side; [N, C]."""
    blocks = x.unflatten(1, (K + 1, -1))
    out = blocks[:, K]
    for k in reversed(range(K)):
        out = blocks[:, k] + spmm_reference.spmm(col, target, value, out, x.size(0))
    return out
