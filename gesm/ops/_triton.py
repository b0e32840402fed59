"""What the Triton kernels share: launching, tile sizes, dropout, and sums over the pieces of split rows.

Offsets are 64-bit everywhere. Graph sizes are runtime values that never specialise a kernel; widths and heads, which belong
to a model, are compiled in. Nothing is tuned at run time: one tile for each width. There are no atomics, so that equal inputs
give equal bits.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gesm.ops._rows import Items

__all__ = ["accumulator", "combine", "keep", "launch", "optional", "power_of_two", "slots", "tl_dtype"]


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """One launch on the device of the tensors, if there is anything to do."""
    if not all(grid):
        return
    device = next(arg.device for arg in args if isinstance(arg, Tensor))
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[grid](*args, **options)
    else:
        kernel[grid](*args, **options)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type of sums: float64 for itself, else float32."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def power_of_two(n: int) -> int:
    """The next one, from 1 on."""
    return 1 << max(n - 1, 0).bit_length()


def slots(work: Items, *shape: int, like: Tensor) -> Tensor:
    """Room for what the pieces of split rows yield, in the type of sums."""
    return like.new_empty(work.num_slots, *shape, dtype=accumulator(like.dtype))


@triton.jit
def keep(position, seed, threshold):
    """Whether dropout keeps each position; bit for bit `gesm.ops._random.keep_mask`."""
    seed = tl.load(seed)
    h = (position >> 1).to(tl.int32) ^ seed.to(tl.int32)
    h ^= h >> 16
    h *= 0x7FEB352D
    h ^= (seed >> 32).to(tl.int32)
    h ^= h >> 15
    h *= -0x7B935975
    h ^= (h >> 16) & 0xFFFF
    half = tl.where((position & 1) == 0, h << 16, h) >> 16
    return half >= threshold - 32768


@triton.jit
def _combine(split_row, split_start, part, add, out, copy, add_stride, out_stride, copy_stride, WIDTH: tl.constexpr,
             ADD: tl.constexpr, OUT: tl.constexpr, COPY: tl.constexpr, ACC: tl.constexpr, BS: tl.constexpr,
             BW: tl.constexpr):  # fmt: skip
    i_split = tl.program_id(0)
    row = tl.load(split_row + i_split).to(tl.int64)
    first, last = tl.load(split_start + i_split).to(tl.int64), tl.load(split_start + i_split + 1).to(tl.int64)
    o_w = tl.program_id(1) * BW + tl.arange(0, BW)
    on_w = o_w < WIDTH
    b_acc = tl.zeros([BS, BW], dtype=ACC)
    for s in range(first, last, BS):
        o_s = s + tl.arange(0, BS).to(tl.int64)
        b_acc += tl.load(part + o_s[:, None] * WIDTH + o_w[None, :], mask=(o_s < last)[:, None] & on_w[None, :], other=0)
    b_sum = tl.sum(b_acc, 0)
    if ADD:
        b_sum += tl.load(add + row * add_stride + o_w, mask=o_w < ADD, other=0).to(ACC)
    tl.store(out + row * out_stride + o_w, b_sum.to(out.dtype.element_ty), mask=o_w < OUT)
    if COPY:
        tl.store(copy + row * copy_stride + o_w, b_sum.to(copy.dtype.element_ty), mask=o_w < COPY)


def combine(work: Items, part: Tensor, out: Tensor, add: Tensor | None = None, copy: Tensor | None = None) -> None:
    """Sums the slots of split rows, [slots, width], into their rows of `out` (and `copy`), plus the rows of `add`.

    The tensors may differ in width: of each, its own columns are read or written.
    """
    width = max(part.size(1), out.size(1))
    BW = min(power_of_two(width), 128)
    tensors, strides, widths = optional(out, add=add, out=out, copy=copy)
    launch(
        _combine, (work.split_row.numel() if work.num_slots else 0, triton.cdiv(width, BW)),
        work.split_row, work.split_start, part, *tensors, *strides,
        WIDTH=part.size(1), **widths, ACC=tl_dtype(part.dtype), BS=16, BW=BW, num_warps=4,
    )  # fmt: skip


def optional(stand_in: Tensor, **tensors: Tensor | None) -> tuple[list[Tensor], list[int], dict[str, int]]:
    """Tensors that a kernel may do without, their row strides, and their widths as constants NAME, 0 for what is missing."""
    present = [stand_in if t is None else t for t in tensors.values()]
    strides = [0 if t is None else t.stride(0) for t in tensors.values()]
    return present, strides, {name.upper(): 0 if t is None else t.size(1) for name, t in tensors.items()}


def tl_dtype(dtype: torch.dtype) -> Any:
    """Triton's name of a type of sums."""
    return tl.float64 if dtype is torch.float64 else tl.float32
