"""Score functions of attend: one row each, with the derivatives by the two node scores and the edge weight."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["SCORES", "Score"]

NEGATIVE_SLOPE = 0.2  # of the additive score's LeakyReLU, as in GAT


class Score(NamedTuple):
    """s(w, a, c) and its partial derivatives (by w, a, c); w [E, 1], a and c [E, heads] of target and source."""

    value: Callable[[Tensor, Tensor, Tensor], Tensor]
    partials: Callable[[Tensor, Tensor, Tensor], tuple[Tensor | None, Tensor, Tensor]]


def _additive(w: Tensor, a: Tensor, c: Tensor) -> Tensor:
    return torch.nn.functional.leaky_relu(a + c, NEGATIVE_SLOPE)


def _additive_partials(w: Tensor, a: Tensor, c: Tensor) -> tuple[None, Tensor, Tensor]:
    slope = (a + c > 0).to(a.dtype).mul_(1 - NEGATIVE_SLOPE).add_(NEGATIVE_SLOPE)
    return None, slope, slope


def _product(w: Tensor, a: Tensor, c: Tensor) -> Tensor:
    return w * a * c


def _product_partials(w: Tensor, a: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return a * c, w * c, w * a


SCORES = {"product": Score(_product, _product_partials), "additive": Score(_additive, _additive_partials)}
