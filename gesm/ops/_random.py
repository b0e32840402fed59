"""Dropout decisions from a counter: every backend, and forward and backward, reads the same mask without storing it."""

import torch
from torch import Tensor

__all__ = ["keep_mask", "new_seed"]


def new_seed(device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """One int64 drawn from the generator (default: PyTorch's own of the device), shape [1]."""
    return torch.randint(2**62, (1,), device=device, generator=generator)


def keep_mask(counter: Tensor, seed: Tensor, p: float) -> Tensor:
    """Whether each int32 counter is kept under dropout of probability p.

    A 32-bit integer hash of (counter, seed): two rounds of xor-shift and odd multiplication (constants of the "lowbias32"
    hash of C. Wellons' hash-prospector), with half of the seed before each. PyTorch has no unsigned arithmetic, so that a
    logical shift is an arithmetic one and a mask.
    """
    low = (seed & 0xFFFFFFFF) - ((seed & 0x80000000) << 1)
    high = seed >> 32
    h = counter ^ low.to(torch.int32)
    h = h ^ ((h >> 16) & 0xFFFF)
    h = h * 0x7FEB352D
    h ^= (h >> 15) & 0x1FFFF
    h ^= high.to(torch.int32)
    h *= -0x7B935975  # 0x846CA68B
    h ^= (h >> 16) & 0xFFFF
    h *= 0x7FEB352D
    h ^= (h >> 15) & 0x1FFFF
    return h >= int(p * 2**32) - 2**31
