"""Bias and ELU in place."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gesm.ops._library import backend
from gesm.ops._memory import empty

__all__ = ["bias_elu_"]

BLOCK_ELEMENTS = 2**18  # 1 MB in float32: the second-level cache holds a block and its temporary


def bias_elu_(x: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""ELU with a bias, :math:`\mathrm{elu}(x + b) = \max(x + b, \exp(\min(x + b, 0)) - 1)`, in place of x.

    On a CPU written with `exp`, which is vectorised where PyTorch's `expm1` is not: 2 times faster forward, 4 times backward,
    with an absolute error of an ulp of 1. On other backends, in half precision and in a traced graph it is `F.elu_`.

    Args:
        x: of any shape, not a view; overwritten.
        bias: broadcast to x from the right.

    Returns:
        x.
    """
    if torch.compiler.is_compiling() or x.dtype.itemsize < 4 or backend(x.device) != "cpu":
        return F.elu_(x if bias is None else x.add_(bias))
    return _BiasELU.apply(x, bias)


class _BiasELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias):
        ctx.bias_shape = None if bias is None else bias.shape
        for part in x.split(_rows(x)):
            if bias is not None:
                part += bias
            torch.maximum(part, part.clamp(max=0).exp_().sub_(1), out=part)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (out,) = ctx.saved_tensors
        grad_x = empty(*out.shape, like=out)
        try:
            torch.ops.aten.elu_backward(grad, 1, 1, 1, True, out, grad_input=grad_x)
        except RuntimeError:  # a vectorised Jacobian: batched gradients are not written into given memory
            grad_x = torch.ops.aten.elu_backward(grad, 1, 1, 1, True, out)
        return grad_x, grad_x.sum_to_size(ctx.bias_shape) if ctx.needs_input_grad[1] else None


def _rows(x: Tensor) -> int:
    return max(BLOCK_ELEMENTS // max(x[:1].numel(), 1), 1)
