"""spmm in plain PyTorch: any device, differentiable; the truth that every backend is tested against."""

from torch import Tensor

__all__ = ["spmm"]


def spmm(col: Tensor, target: Tensor, value: Tensor, x: Tensor, num_dst: int) -> Tensor:
    """y_i = sum over edges e = (j -> i) of value_e x_j; x [N_src, ..., d], value [E] or [E, heads] broadcast from the left."""
    value = value.view(*value.shape, *[1] * (x.dim() - value.dim()))
    out = x.new_zeros(num_dst + 1, *x.shape[1:])  # the edges that a traced graph displaced point to the row num_dst
    return out.index_add(0, target, value * x.index_select(0, col))[:num_dst]
