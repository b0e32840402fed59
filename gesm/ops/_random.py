"""Dropout decisions from a counter: every backend, and forward and backward, reads the same mask without storing it."""

import torch
from torch import Tensor

__all__ = ["counters", "keep_mask", "new_seed", "random_bits"]


def new_seed(device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """One int64 drawn from the generator (default: PyTorch's own of the device), shape [1]."""
    return torch.randint(2**62, (1,), device=device, generator=generator)


def keep_mask(counter: Tensor, seed: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """1 for each int32 counter that dropout of probability p keeps, else 0, as `dtype`."""
    keep = torch.empty(counter.shape, dtype=dtype, device=counter.device)
    return torch.ge(random_bits(counter, seed), int(p * 2**32) - 2**31, out=keep)


def random_bits(counter: Tensor, seed: Tensor) -> Tensor:
    """32 random bits for each int32 counter, [counter's shape].

    An integer hash of (counter, seed): xor-shifts and odd multiplications (the "lowbias32" hash of C. Wellons'
    hash-prospector), with one half of the seed before and one amid. PyTorch has no unsigned arithmetic, so that a logical shift
    is an arithmetic one and a mask.
    """
    low = ((seed & 0xFFFFFFFF) - ((seed & 0x80000000) << 1)).to(torch.int32)
    h = counter ^ low
    h ^= (h >> 16).bitwise_and_(0xFFFF)
    h *= 0x7FEB352D
    h ^= (seed >> 32).to(torch.int32)
    h ^= (h >> 15).bitwise_and_(0x1FFFF)
    h *= -0x7B935975  # 0x846CA68B
    h ^= (h >> 16).bitwise_and_(0xFFFF)
    return h


def counters(start: int, stop: int) -> Tensor:
    """The int32 counters start ... stop - 1 on the CPU, wrapping around."""
    return torch.arange(stop - start, dtype=torch.int32).add_((start + 2**31) % 2**32 - 2**31)
