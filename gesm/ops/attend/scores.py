"""Score functions of attend: one row each, with the way back."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["SCORES", "Score"]

NEGATIVE_SLOPE = 0.2  # of the additive score's LeakyReLU, as in GAT


class Score(NamedTuple):
    """s(w, a, c) and its backward, on edges: w [E, 1], a and c [E, heads] of target and source.

    `backward(ds, w, a, c)` gives the gradients of a and c, and a function for that of w (before its sum over heads), which few
    ask for, or None where the score ignores w. It may overwrite ds.
    """

    forward: Callable[[Tensor, Tensor, Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Callable[[], Tensor] | None]]


def _product(w: Tensor, a: Tensor, c: Tensor) -> Tensor:
    return (a * c).mul_(w)


def _product_backward(ds: Tensor, w: Tensor, a: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    scaled = ds * w
    return scaled * c, scaled * a, lambda: ds * a * c


def _additive(w: Tensor, a: Tensor, c: Tensor) -> Tensor:
    return torch.nn.functional.leaky_relu(a + c, NEGATIVE_SLOPE)


def _additive_backward(ds: Tensor, w: Tensor, a: Tensor, c: Tensor) -> tuple[Tensor, Tensor, None]:
    ds *= (a + c > 0).to(ds.dtype).mul_(1 - NEGATIVE_SLOPE).add_(NEGATIVE_SLOPE)
    return ds, ds, None


SCORES = {"product": Score(_product, _product_backward), "additive": Score(_additive, _additive_backward)}
