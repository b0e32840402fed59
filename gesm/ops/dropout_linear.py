"""A linear map of dropped-out features that never holds the dropped-out features."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gesm.errors import GesmError

__all__ = ["dropout_linear"]

BLOCK_ELEMENTS = 2**18  # 1 MB in float32: the rows at hand stay in a core's cache from mask to product


def dropout_linear(
    x: Tensor, weight: Tensor, p: float, training: bool = True, generator: torch.Generator | None = None
) -> Tensor:
    r"""Linear map of dropped-out features, :math:`y = \mathrm{dropout}_p(x)\, W^{\top}`.

    On a CPU it works by blocks of rows: each is masked and multiplied while it is in cache, so that besides x only one byte an
    element is kept for backward. One 64-bit word of the generator decides four elements (PyTorch's own mask draws a Bernoulli
    number each), so p is rounded to a multiple of 2^-16; the scale is that of the rounded p. Elsewhere, and in a traced
    graph, it is `F.linear(F.dropout(x, p), weight)`.

    Args:
        x: [N, F].
        weight: [C, F].
        p: probability of dropping an element, in [0, 1).
        training: False is a plain linear map.
        generator: of the mask; default: PyTorch's own.

    Returns:
        [N, C].

    Raises:
        GesmError: for p outside [0, 1).
    """
    if not 0 <= p < 1:
        raise GesmError(f"dropout must be in [0, 1), got {p}")
    if not training or p == 0:
        return F.linear(x, weight)
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return F.linear(F.dropout(x, p), weight)
    return _DropoutLinear.apply(x, weight, min(round(p * 2**16), 2**16 - 1), generator)


def _row_blocks(x: Tensor) -> list[slice]:
    step = max(BLOCK_ELEMENTS // max(x.size(1), 1), 1)
    return [slice(start, start + step) for start in range(0, x.size(0), step)]


class _DropoutLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, threshold, generator):
        ctx.scale = 2**16 / (2**16 - threshold)
        mask = torch.empty(x.shape, dtype=torch.bool)
        out = x.new_empty(x.size(0), weight.size(0))
        scaled = weight.t() * ctx.scale
        for rows in _row_blocks(x):
            part, kept = x[rows], mask[rows]
            words = torch.empty((part.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
            torch.ge(words.view(torch.int16)[: part.numel()].view_as(part), threshold - 2**15, out=kept)
            torch.mm(part * kept, scaled, out=out[rows])
        ctx.save_for_backward(x, weight, mask)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, mask = ctx.saved_tensors
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight)
        scaled = weight * ctx.scale
        for rows in _row_blocks(x):
            grad_weight.addmm_(grad[rows].t(), x[rows] * mask[rows])
            if grad_x is not None:
                torch.mm(grad[rows], scaled, out=grad_x[rows]).mul_(mask[rows])
        return grad_x, grad_weight.mul_(ctx.scale), None, None
