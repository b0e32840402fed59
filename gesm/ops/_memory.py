"""Memory of large CPU results, used again: what the system hands out page by page costs more than the kernels that fill it."""

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["empty"]

# glibc keeps freed memory up to twice the largest mapped block that was ever freed (32 MB at most), and returns more to the
# system, whose page faults then cost as much as the kernels. One large block, never touched, sets that bound: attend on PubMed
# is 15 % faster. Other allocators ignore it.
MAPPED_BYTES = 2**25  # what is larger is mapped anew each time, or comes from here
torch.empty(MAPPED_BYTES // 4 - 2**16)

IDLE_BYTES = 2**30  # the most that waits here to be used again
_ALIGNMENT = 64

# By id, latest last. A lease can end in the middle of anything that allocates, so only single steps on the dict are relied on.
_idle: dict[int, np.ndarray] = {}


class _Lease:
    """Lends memory to one tensor, and takes it back when that tensor and its views are gone."""

    def __init__(self, memory: np.ndarray):
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self, idle: dict[int, np.ndarray] = _idle, limit: int = IDLE_BYTES) -> None:  # defaults outlive the module
        idle[id(self.memory)] = self.memory
        kept = 0
        for key in reversed(list(idle)):
            memory = idle.get(key)
            kept += 0 if memory is None else memory.nbytes
            if kept > limit:
                idle.pop(key, None)


def empty(*size: int, like: Tensor) -> Tensor:
    """An uninitialised tensor on the CPU, in the type of `like` (float32 or float64).

    Beyond `MAPPED_BYTES` it lies in memory that an earlier such tensor has left, if that was of about its size: on PubMed
    a fresh result of 40 MB costs 9 ms to write, a used one 1 ms. Up to `IDLE_BYTES` are kept for that.
    """
    num_bytes = math.prod(size) * like.element_size()
    if num_bytes < MAPPED_BYTES:
        return torch.empty(size, dtype=like.dtype)
    memory = _take(num_bytes + _ALIGNMENT)
    lent = np.asarray(_Lease(memory))
    start = -lent.ctypes.data % _ALIGNMENT
    # Not a view for autograd: users may write into what a Function returns.
    return torch.ops.aten._unsafe_view(torch.from_numpy(lent[start : start + num_bytes]).view(like.dtype), size)


def _take(num_bytes: int) -> np.ndarray:
    """Idle memory of the size or at most an eighth more, the latest used first; else new memory."""
    for key in reversed(list(_idle)):
        memory = _idle.get(key)
        fits = memory is not None and num_bytes <= memory.nbytes <= num_bytes * 9 // 8
        if fits and _idle.pop(key, None) is not None:
            return memory
    return np.empty(num_bytes, dtype=np.uint8)
