"""Dropout decisions from a counter: every backend, and forward and backward, reads the same mask without storing it."""

import random
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["dropout_scale", "dropout_threshold", "keep_mask", "new_seed", "random_bits", "table_mask"]

TABLE = 2**22  # random 16-bit numbers: 8 MB
TABLE_BLOCK = TABLE // 4  # the most elements that table_mask decides about at once


def new_seed(device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """One int64 drawn from the generator (default: PyTorch's own of the device), shape [1]."""
    return torch.randint(2**62, (1,), device=device, generator=generator)


def dropout_threshold(p: float) -> int:
    """Of the 2^16 values that decide about an element, how many drop it: p is rounded to a multiple of 2^-16."""
    return min(round(p * 2**16), 2**16 - 1)


def dropout_scale(threshold: int) -> float:
    """1 / (1 - p) for the rounded p."""
    return 2**16 / (2**16 - threshold)


def keep_mask(
    start: int, stop: int, seed: Tensor | int, threshold: int, dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """1 for each of the elements start ... stop - 1 that is kept, else 0, as `dtype`.

    The low and the high half of one counter's bits decide about two elements, 2 c and 2 c + 1.
    """
    first, last = start // 2, (stop + 1) // 2
    counter = torch.arange(last - first, dtype=torch.int32, device=device)
    if first:
        counter += (first + 2**31) % 2**32 - 2**31
    bits = random_bits(counter, seed).view(torch.int16)[start - 2 * first :][: stop - start]
    return _keep(bits, threshold, dtype)


def _keep(bits: Tensor, threshold: int, dtype: torch.dtype) -> Tensor:
    """0 or 1 for 16 random bits; a comparison written straight to floating point is three times faster than one to bool."""
    return torch.ge(bits, threshold - 2**15, out=torch.empty(bits.shape, dtype=dtype, device=bits.device))


def random_bits(counter: Tensor, seed: Tensor | int) -> Tensor:
    """32 random bits for each int32 counter, which is overwritten with them.

    An integer hash of (counter, seed): xor-shifts and odd multiplications (the constants of the "lowbias32" hash of
    C. Wellons' hash-prospector), with one half of the seed before and one amid. The first two shifts keep the sign, for
    PyTorch has no unsigned arithmetic: that costs one bit of the state, and clearing it would cost a pass over memory each.
    """
    h = counter.bitwise_xor_(_int32(seed))
    h ^= h >> 16
    h *= 0x7FEB352D
    h ^= _int32(seed >> 32)
    h ^= h >> 15
    h *= -0x7B935975  # 0x846CA68B
    h ^= (h >> 16).bitwise_and_(0xFFFF)
    return h


def _int32(number: Tensor | int) -> Tensor | int:
    """The low half of 64 bits as a signed number."""
    half = (number & 0xFFFFFFFF) - ((number & 0x80000000) << 1)
    return half if isinstance(half, int) else half.to(torch.int32)


def table_mask(block: int, size: int, seed: int, threshold: int, dtype: torch.dtype) -> Tensor:
    """1 for each of the `size` elements of a block that is kept, else 0, as `dtype`; on the CPU, at half the cost.

    The bits are the exclusive or of two runs of a table, one from each half, which begin where a hash of (seed, block) says:
    within a block no number is read twice, and there are 2^40 pairs of runs.
    """
    half, starts, table = TABLE // 2, random.Random(seed + block * 2**64), _table()
    first, second = (starts.randint(0, half - size) for _ in range(2))
    return _keep(table[first:][:size] ^ table[half + second :][:size], threshold, dtype)


@lru_cache(maxsize=1)
def _table() -> Tensor:
    counter = torch.arange(TABLE // 2, dtype=torch.int32, device="cpu")  # whatever the default device is
    return random_bits(counter, 0x243F6A8885A308D3).view(torch.int16)
