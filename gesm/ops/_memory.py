"""Memory of large CPU results: what the system hands out page by page costs more than the kernels that fill it."""

import math
import sys

import numpy as np
import torch
from torch import Tensor

__all__ = ["empty"]

# glibc keeps freed memory up to twice the largest mapped block that was ever freed (32 MB at most), and returns more to the
# system, whose page faults then cost as much as the kernels. One large block, never touched, sets that bound: attend on PubMed
# is 15 % faster. Other allocators ignore it.
MAPPED_BYTES = 2**25  # what is larger is mapped anew each time
torch.empty(MAPPED_BYTES // 4 - 2**16)


def empty(*size: int, like: Tensor) -> Tensor:
    """An uninitialised tensor on the CPU, float32 or float64 as `like`.

    Beyond `MAPPED_BYTES` it comes from NumPy, which asks Linux for huge pages: 40 MB are mapped and written in 3 ms, not 10.
    """
    if sys.platform != "linux" or math.prod(size) * like.element_size() < MAPPED_BYTES:
        return torch.empty(size, dtype=like.dtype)
    return torch.from_numpy(np.empty(size, dtype=np.float32 if like.dtype == torch.float32 else np.float64))
