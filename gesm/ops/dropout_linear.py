"""A linear map of dropped-out features that never holds the dropped-out features."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gesm.errors import GesmError
from gesm.ops._random import counters, new_seed, random_bits

__all__ = ["dropout_linear"]

BLOCK_ELEMENTS = 2**20  # 4 MB in float32: near the cache of two cores, and still a large matrix product


def dropout_linear(x: Tensor, weight: Tensor, p: float, training: bool = True) -> Tensor:
    r"""Linear map of dropped-out features, :math:`y = \mathrm{dropout}_p(x)\, W^{\top}`.

    On a CPU it works by blocks of rows, each masked and multiplied while it is near, so that besides x only one byte an
    element is kept for backward. The mask is a hash of the element's number and one drawn seed, 16 bits an element (PyTorch's
    own draws a Bernoulli number each), so p is rounded to a multiple of 2^-16; the scale is that of the rounded p. Elsewhere,
    in half precision and in a traced graph it is `F.linear(F.dropout(x, p), weight)`.

    Args:
        x: [N, F].
        weight: [C, F].
        p: probability of dropping an element, in [0, 1).
        training: False is a plain linear map.

    Returns:
        [N, C].

    Raises:
        GesmError: for p outside [0, 1).
    """
    if not 0 <= p < 1:
        raise GesmError(f"dropout must be in [0, 1), got {p}")
    if not training or p == 0:
        return F.linear(x, weight)
    plain = x.device.type != "cpu" or x.dtype.itemsize < 4 or x.dtype != weight.dtype
    if plain or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return F.linear(F.dropout(x, p), weight)
    threshold = min(round(p * 2**16), 2**16 - 1)
    return _DropoutLinear.apply(x, weight, threshold, new_seed(x.device))


def _row_blocks(x: Tensor) -> list[slice]:
    step = max(BLOCK_ELEMENTS // max(x.size(1), 1), 1)
    return [slice(start, start + step) for start in range(0, x.size(0), step)]


class _DropoutLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, threshold, seed):
        ctx.scale = 2**16 / (2**16 - threshold)
        kept = torch.empty(x.shape, dtype=torch.uint8)
        out = x.new_empty(x.size(0), weight.size(0))
        scaled = weight.t() * ctx.scale
        for rows in _row_blocks(x):
            mask = _mask(x[rows], rows.start * x.size(1), threshold, seed)
            kept[rows] = mask
            torch.mm(mask.mul_(x[rows]), scaled, out=out[rows])
        ctx.save_for_backward(x, weight, kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, kept = ctx.saved_tensors
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
        scaled = weight * ctx.scale
        for rows in _row_blocks(x):
            mask = kept[rows].to(x.dtype)
            if grad_x is not None:
                torch.mm(grad[rows], scaled, out=grad_x[rows]).mul_(mask)
            grad_weight.addmm_(grad[rows].t(), mask.mul_(x[rows]))
        return grad_x, grad_weight.mul_(ctx.scale), None, None


def _mask(part: Tensor, start: int, threshold: int, seed: Tensor) -> Tensor:
    """0 or 1 for each element; two 16-bit halves of a counter's bits decide two elements."""
    first, last = start // 2, (start + part.numel() + 1) // 2
    bits = random_bits(counters(first, last), seed).view(torch.int16)
    bits = bits[start - 2 * first :][: part.numel()].view(part.shape)
    return torch.ge(bits, threshold - 2**15, out=torch.empty(part.shape, dtype=part.dtype))
