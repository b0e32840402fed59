"""spmm and its weight gradient in Triton: programs own items of rows (`gesm.ops._rows`), several where rows are narrow.

A step of a program gathers a tile [rows, edges, columns]; sums stay apart by edge until the end.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from gesm.ops._rows import items
from gesm.ops._triton import accumulator, combine, launch, optional, power_of_two, slots, tl_dtype

__all__ = ["multiply_add", "sddmm", "spmm"]


@triton.jit(do_not_specialize=["num_items"])
def _spmm(row, start, end, slot, num_items, col, value, part, x, add, out, copy, x_units, add_stride, out_stride,
          copy_stride, HEADS: tl.constexpr, UNIT: tl.constexpr, X: tl.constexpr, ADD: tl.constexpr, OUT: tl.constexpr,
          COPY: tl.constexpr, ACC: tl.constexpr, BR: tl.constexpr, BE: tl.constexpr, BW: tl.constexpr):  # fmt: skip
    o_r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    on_r = o_r < num_items
    i = tl.load(row + o_r, mask=on_r, other=0).to(tl.int64)
    first = tl.load(start + o_r, mask=on_r, other=0).to(tl.int64)
    last = tl.load(end + o_r, mask=on_r, other=0).to(tl.int64)
    o_slot = tl.load(slot + o_r, mask=on_r, other=0).to(tl.int64)
    o_w = tl.program_id(1) * BW + tl.arange(0, BW)
    on_w = (o_w < X)[None, :]
    b_acc = tl.zeros([BR, BE, BW], dtype=ACC)
    for step in range(0, tl.max(last - first, 0), BE):
        o_e = first[:, None] + step + tl.arange(0, BE)[None, :]
        on_e = o_e < last[:, None]
        j = tl.load(col + o_e, mask=on_e, other=0).to(tl.int64)
        on = on_e[:, :, None] & on_w[None, :, :]
        if HEADS == 1:
            b_w = tl.load(value + o_e, mask=on_e, other=0)[:, :, None]
        else:
            b_w = tl.load(value + o_e[:, :, None] * HEADS + (o_w // (X // HEADS))[None, None, :], mask=on, other=0)
        b_x = tl.load(x + j[:, :, None] * (x_units * UNIT) + o_w[None, None, :], mask=on, other=0)
        b_acc += b_w.to(ACC) * b_x.to(ACC)
    b_sum = tl.sum(b_acc, 1)
    tl.store(part + o_slot[:, None] * X + o_w[None, :], b_sum, mask=(on_r & (o_slot >= 0))[:, None] & on_w)
    whole = (on_r & (o_slot < 0))[:, None]
    i, o_w = i[:, None], o_w[None, :]
    if ADD:
        b_sum += tl.load(add + i * add_stride + o_w, mask=whole & (o_w < ADD), other=0).to(ACC)
    tl.store(out + i * out_stride + o_w, b_sum.to(out.dtype.element_ty), mask=whole & (o_w < OUT))
    if COPY:
        tl.store(copy + i * copy_stride + o_w, b_sum.to(copy.dtype.element_ty), mask=whole & (o_w < COPY))


def _tile(width: int, aligned: bool) -> dict[str, int]:
    """Rows, edges and columns of a program of 128 threads: 16 elements each, 8 where loads are single words, 32 if wide."""
    BW, BE = min(power_of_two(width), 512), 8
    elements = 2048 if aligned else 1024
    return {"BR": max(elements // (BE * BW), 1), "BE": BE, "BW": BW, "num_warps": 4}


def multiply_add(
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    x: Tensor,
    out: Tensor,
    add: Tensor | None = None,
    copy: Tensor | None = None,
) -> None:
    """out = A x (+ add), written to `copy` as well; all may be blocks of columns, and padded ones, of something wider."""
    work, width = items(rowptr), max(x.size(1), out.size(1))  # what pads `out` is written too, with zeros
    part, tile = slots(work, x.size(1), like=x), _tile(width, aligned=x.size(1) % 4 == 0)
    tensors, strides, widths = optional(out, x=x, add=add, out=out, copy=copy)
    unit = math.gcd(x.stride(0), 16)  # tells the compiler how far rows are aligned
    strides[0] //= unit
    launch(
        _spmm, (triton.cdiv(work.num_items, tile["BR"]), triton.cdiv(width, tile["BW"])),
        work.row, work.start, work.end, work.slot, work.num_items, col, value.contiguous(), part, *tensors, *strides,
        HEADS=value.size(1) if value.dim() == 2 else 1, UNIT=unit, **widths, ACC=tl_dtype(part.dtype), **tile,
    )  # fmt: skip
    combine(work, part, out, add, copy)


def spmm(rowptr: Tensor, col: Tensor, value: Tensor, x: Tensor) -> Tensor:
    """[N_src, width] to [N_dst, width]; value [E], or [E, heads] with width = heads * d."""
    out = x.new_empty(rowptr.numel() - 1, x.size(1))
    multiply_add(rowptr, col, value, x if x.stride(1) == 1 else x.contiguous(), out)
    return out


@triton.jit
def _sddmm(row, start, end, col, a, b, out, HEADS: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr,
           BE: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    i_item = tl.program_id(0).to(tl.int64)
    i = tl.load(row + i_item).to(tl.int64)
    first, last = tl.load(start + i_item).to(tl.int64), tl.load(end + i_item).to(tl.int64)
    o_h = tl.program_id(1) * BH + tl.arange(0, BH)
    on_h = o_h < HEADS
    for e in range(first, last, BE):
        o_e = e + tl.arange(0, BE)
        on_e = o_e < last
        j = tl.load(col + o_e, mask=on_e, other=0).to(tl.int64)
        b_dot = tl.zeros([BE, BH], dtype=ACC)
        for k in tl.static_range(0, D, BD):
            o_d = k + tl.arange(0, BD)
            o_hd = o_h[:, None] * D + o_d[None, :]
            on_hd = on_h[:, None] & (o_d < D)[None, :]
            b_a = tl.load(a + i * (HEADS * D) + o_hd, mask=on_hd, other=0).to(ACC)
            on = on_e[:, None, None] & on_hd[None, :, :]
            b_b = tl.load(b + j[:, None, None] * (HEADS * D) + o_hd[None, :, :], mask=on, other=0).to(ACC)
            b_dot += tl.sum(b_a[None, :, :] * b_b, 2)
        tl.store(out + o_e[:, None] * HEADS + o_h[None, :], b_dot, mask=on_e[:, None] & on_h[None, :])


def sddmm(rowptr: Tensor, col: Tensor, a: Tensor, b: Tensor, heads: int) -> Tensor:
    """a_i . b_j for every entry (i, j), head by head; a [N_dst, heads * d], b [N_src, heads * d], result [E, heads]."""
    work, d = items(rowptr), a.size(1) // heads
    out = a.new_zeros(col.numel(), heads, dtype=accumulator(a.dtype))  # entries behind rowptr[-1] stay zero
    BD = min(power_of_two(d), 128)
    BH = min(power_of_two(heads), 512 // BD)
    launch(
        _sddmm, (work.num_items if d else 0, triton.cdiv(heads, BH)), work.row, work.start, work.end, col, a.contiguous(),
        b.contiguous(), out, HEADS=heads, D=d, ACC=tl_dtype(out.dtype), BE=max(min(2048 // (BH * BD), 32), 4), BH=BH, BD=BD,
        num_warps=4 if BH * BD > 64 else 2,
    )  # fmt: skip
    return out
