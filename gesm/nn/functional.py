"""Hop sampling as functions."""

from collections.abc import Callable
from typing import Any

import torch

from gesm.nn.hop_sampling import Distribution, HopSampling, hop_probabilities

__all__ = ["hop_probabilities", "hop_sampling"]


def hop_sampling(
    f: Callable[..., Any],
    K: int,
    *args: Any,
    distribution: Distribution = "uniform",
    inference: str | int = "full",
    training: bool = True,
    generator: torch.Generator | None = None,
    **kwargs: Any,
) -> Any:
    """f(k, ...) at a random depth, the functional form of :class:`gesm.nn.HopSampling`.

    Args:
        f: Function of the depth k, `args` and `kwargs`.
        K: Largest depth.
        *args: Passed on to f.
        distribution: As in :class:`gesm.nn.HopSampling`.
        inference: As in :class:`gesm.nn.HopSampling`.
        training: False reads as `inference` says.
        generator: As in :class:`gesm.nn.HopSampling`.
        **kwargs: Passed on to f.

    Returns:
        What f returns.
    """
    hop = HopSampling(f, K, distribution=distribution, inference=inference, generator=generator)
    hop.training = training  # f, if it is a module, stays in its own mode
    return hop(*args, **kwargs)
