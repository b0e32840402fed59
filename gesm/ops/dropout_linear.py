"""A linear map of dropped-out features that never holds the dropped-out features."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gesm.errors import GesmError
from gesm.ops._checks import check_probability
from gesm.ops._memory import empty
from gesm.ops._random import TABLE_BLOCK, dropout_scale, dropout_threshold, new_seed, table_mask

__all__ = ["dropout", "dropout_linear"]

BLOCK_ELEMENTS = TABLE_BLOCK  # 4 MB in float32: near the cache of two cores, and still a large matrix product


def dropout_linear(x: Tensor, weight: Tensor, p: float, training: bool = True) -> Tensor:
    r"""Linear map of dropped-out features, :math:`y = \mathrm{dropout}_p(x)\, W^{\top}`.

    On a CPU it works by blocks of rows, each masked and multiplied while it is near; backward makes the masks again, so that
    nothing but x is kept. A mask comes from one drawn seed and a table of random bits, 16 an element (PyTorch's own draws a
    Bernoulli number each), so p is rounded to a multiple of 2^-16; the scale is that of the rounded p. Elsewhere, in half
    precision and in a traced graph it is `F.linear(F.dropout(x, p), weight)`.

    Args:
        x: [N, F].
        weight: [C, F].
        p: probability of dropping an element, in [0, 1).
        training: False is a plain linear map.

    Returns:
        [N, C].

    Raises:
        GesmError: for p outside [0, 1), an x that is not a matrix, or a weight of another width.
    """
    check_probability("dropout", p)
    if x.dim() != 2:
        raise GesmError(f"x must have shape [N, F], got {list(x.shape)}")
    if weight.dim() != 2 or weight.size(1) != x.size(1):
        raise GesmError(f"weight must have shape [C, {x.size(1)}] for an x of {x.size(1)} columns, got {list(weight.shape)}")
    if not training or p == 0:
        return F.linear(x, weight)
    plain = x.size(1) > BLOCK_ELEMENTS or x.device.type != "cpu" or x.dtype.itemsize < 4 or x.dtype != weight.dtype
    if plain or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return F.linear(F.dropout(x, p), weight)
    return _DropoutLinear.apply(x, weight, dropout_threshold(p), new_seed(x.device))


def dropout(x: Tensor, p: float) -> Tensor:
    """F.dropout; on a CPU with the table's bits, ten times cheaper than a Bernoulli number an element."""
    if p == 0 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    threshold, seed = dropout_threshold(p), int(new_seed(x.device))
    mask = torch.empty(x.numel(), dtype=x.dtype, device=x.device)
    for block, part in enumerate(mask.split(BLOCK_ELEMENTS)):
        part.copy_(table_mask(block, part.numel(), seed, threshold, x.dtype))
    return x * mask.mul_(dropout_scale(threshold)).view(x.shape)


def _blocks(x: Tensor, seed: Tensor, threshold: int) -> Iterator[tuple[slice, Tensor]]:
    """Runs of rows, and for each the mask of 0 and 1."""
    seed, step = int(seed), max(BLOCK_ELEMENTS // max(x.size(1), 1), 1)
    for block, start in enumerate(range(0, x.size(0), step)):
        rows = slice(start, min(start + step, x.size(0)))
        num_rows, width = rows.stop - start, x.size(1)
        yield rows, table_mask(block, num_rows * width, seed, threshold, x.dtype).view(num_rows, width)


class _DropoutLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, threshold, seed):
        ctx.threshold, ctx.scale = threshold, dropout_scale(threshold)
        ctx.save_for_backward(x, weight, seed)
        out = x.new_empty(x.size(0), weight.size(0))
        scaled = weight.t() * ctx.scale
        for rows, mask in _blocks(x, seed, threshold):
            torch.mm(mask.mul_(x[rows]), scaled, out=out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        try:
            return _DropoutLinear._backward_by_blocks(ctx, grad)
        except RuntimeError:  # a vectorised Jacobian: batched gradients are not written into given memory
            pass
        x, weight, seed = ctx.saved_tensors
        mask = torch.cat([part for _, part in _blocks(x, seed, ctx.threshold)]).mul_(ctx.scale)
        return (grad @ weight) * mask, grad.t() @ (mask * x), None, None

    @staticmethod
    def _backward_by_blocks(ctx, grad):
        x, weight, seed = ctx.saved_tensors
        grad_x = empty(*x.shape, like=x) if ctx.needs_input_grad[0] else None
        learned = ctx.needs_input_grad[1]
        grad_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format) if learned else None
        scaled = weight * ctx.scale
        for rows, mask in _blocks(x, seed, ctx.threshold):
            if grad_x is not None:
                torch.mm(grad[rows], scaled, out=grad_x[rows]).mul_(mask)
            if learned:
                grad_weight.addmm_(grad[rows].t(), mask.mul_(x[rows]))
        return grad_x, grad_weight.mul_(ctx.scale) if learned else None, None, None
