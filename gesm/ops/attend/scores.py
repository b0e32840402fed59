"""Score functions of attend: one row each, with the way back; "given" is for scores that stand on the edges already."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ALL", "NEGATIVE_SLOPE", "SCORES", "Score", "by_edge"]

NEGATIVE_SLOPE = 0.2  # of the additive score's LeakyReLU, as in GAT


def by_edge(value: Tensor) -> Tensor:
    """Weights [E] as [E, 1]; given scores [E, heads] as they are."""
    return value.unsqueeze(1) if value.dim() == 1 else value


class Score(NamedTuple):
    """s(w, a, c) and its backward, on edges: w [E, 1] (given scores: [E, heads]), a and c [E, heads] of target and source.

    `forward(w, a, c, out)` may write into `out`, which may be a or c. `backward(ds, w, a, c, out)` gives the gradient of a,
    writes that of c into `out` and may overwrite its arguments; `by_value(ds, a, c)` gives that of w.
    """

    forward: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    by_value: Callable[[Tensor, Tensor, Tensor], Tensor]


def _product(w: Tensor, a: Tensor, c: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.mul(a, c, out=out).mul_(w)


def _product_backward(ds: Tensor, w: Tensor, a: Tensor, c: Tensor, out: Tensor) -> Tensor:
    ds *= w
    torch.mul(ds, a, out=out)
    return ds.mul_(c)


def _additive(w: Tensor, a: Tensor, c: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.nn.functional.leaky_relu_(torch.add(a, c, out=out), NEGATIVE_SLOPE)


def _additive_backward(ds: Tensor, w: Tensor, a: Tensor, c: Tensor, out: Tensor) -> Tensor:
    ds *= (a + c > 0).to(ds.dtype).mul_(1 - NEGATIVE_SLOPE).add_(NEGATIVE_SLOPE)
    return out.copy_(ds)


def _given(w: Tensor, a: Tensor, c: Tensor, out: Tensor | None = None) -> Tensor:
    return w.clone() if out is None else out.copy_(w)


def _given_backward(ds: Tensor, w: Tensor, a: Tensor, c: Tensor, out: Tensor) -> Tensor:
    out.zero_()
    return ds.zero_()


SCORES = {
    "product": Score(_product, _product_backward, lambda ds, a, c: (ds * a * c).sum(1)),
    "additive": Score(_additive, _additive_backward, lambda ds, a, c: ds.new_zeros(ds.size(0))),
}
ALL = {**SCORES, "given": Score(_given, _given_backward, lambda ds, a, c: ds)}
