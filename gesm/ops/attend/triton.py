"""attend in Triton. Programs own items of rows (`gesm.ops._rows`), walk them a tile [edges, heads, d] at a time, and keep
softmax and sums apart by the place of an edge in its tile until the end.

Forward gathers x once, backward gathers the gradient of the result once: over the transpose, each source j has x_j at hand,
and one look at grad_i gives both its share of grad_x_j and t_ij = alpha_ij (grad_i . x_j), kept as [E, heads] until three
narrow passes are done: delta_i = sum_j t_ij; then d loss / d s_ij = t_ij - alpha_ij delta_i in place of t_ij, and its sums over
targets; then those over sources. alpha comes from the kept log-sum-exp. The result is not kept.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from gesm.ops._random import dropout_threshold
from gesm.ops._rows import Items, items
from gesm.ops._triton import combine, keep, launch, power_of_two, slots, tl_dtype
from gesm.ops.attend.scores import NEGATIVE_SLOPE

__all__ = ["attend", "attend_backward"]

LOWEST = tl.constexpr(-3e38)  # instead of minus infinity, whose differences are undefined
SLOPE = tl.constexpr(NEGATIVE_SLOPE)


@triton.jit
def _score(w, a, c, SCORE: tl.constexpr):
    if SCORE == "product":
        return a * c * w
    else:
        return tl.where(a + c > 0, a + c, (a + c) * SLOPE)


@triton.jit(do_not_specialize=["threshold"])
def _forward(row, start, end, slot, col, value, x, a, c, seed, threshold, out, lse, part_m, part_l, part,
             HEADS: tl.constexpr, D: tl.constexpr, SCORE: tl.constexpr, DROP: tl.constexpr, RESIDUAL: tl.constexpr,
             ACC: tl.constexpr, BE: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    i_item = tl.program_id(0).to(tl.int64)
    i, i_slot = tl.load(row + i_item).to(tl.int64), tl.load(slot + i_item).to(tl.int64)
    first, last = tl.load(start + i_item).to(tl.int64), tl.load(end + i_item).to(tl.int64)
    o_h, o_d = tl.program_id(1) * BH + tl.arange(0, BH), tl.arange(0, BD)
    on_h = o_h < HEADS
    o_hd, on_hd = o_h[:, None] * D + o_d[None, :], on_h[:, None] & (o_d < D)[None, :]
    if SCORE != "given":
        b_a = tl.load(a + i * HEADS + o_h, mask=on_h, other=0)[None, :]
    b_m, b_l = tl.full([BE, BH], LOWEST, dtype=ACC), tl.zeros([BE, BH], dtype=ACC)
    b_acc = tl.zeros([BE, BH, BD], dtype=ACC)
    for e in range(first, last, BE):
        o_e = e + tl.arange(0, BE)
        on_e = o_e < last
        j = tl.load(col + o_e, mask=on_e, other=0).to(tl.int64)
        on = on_e[:, None, None] & on_hd[None, :, :]  # asked for before the scores, whose barriers would hold it up
        b_x = tl.load(x + j[:, None, None] * (HEADS * D) + o_hd[None, :, :], mask=on, other=0)
        o_eh, on_eh = o_e[:, None] * HEADS + o_h[None, :], on_e[:, None] & on_h[None, :]
        if SCORE == "given":
            b_s = tl.load(value + o_eh, mask=on_eh, other=0)
        else:
            b_w = tl.load(value + o_e, mask=on_e, other=0)[:, None]
            b_s = _score(b_w, b_a, tl.load(c + j[:, None] * HEADS + o_h[None, :], mask=on_eh, other=0), SCORE)
        b_s = tl.where(on_eh, b_s, b_m)
        b_top = tl.maximum(b_m, b_s)
        b_p = tl.where(on_eh, tl.exp(b_s - b_top), 0.0)
        b_old = tl.exp(b_m - b_top)
        b_l = b_l * b_old + b_p
        if DROP:
            b_p = tl.where(keep(o_eh, seed, threshold), b_p * (65536 / (65536 - threshold).to(ACC)), 0.0)
        b_acc = b_acc * b_old[:, :, None] + b_p[:, :, None] * b_x.to(ACC)
        b_m = b_top
    b_top = tl.max(b_m, 0)
    b_old = tl.exp(b_m - b_top[None, :])
    b_total = tl.sum(b_l * b_old, 0)
    b_sum = tl.sum(b_acc * b_old[:, :, None], 0)
    if i_slot >= 0:
        tl.store(part_m + i_slot * HEADS + o_h, b_top, mask=on_h)
        tl.store(part_l + i_slot * HEADS + o_h, b_total, mask=on_h)
        tl.store(part + i_slot * (HEADS * D) + o_hd, b_sum, mask=on_hd)
    else:
        b_total = tl.where(on_h & (first < last), b_total, 1.0)
        b_sum = b_sum / b_total[:, None]
        if RESIDUAL:
            b_sum += tl.load(x + i * (HEADS * D) + o_hd, mask=on_hd, other=0).to(ACC)
        tl.store(lse + i * HEADS + o_h, b_top + tl.log(b_total), mask=on_h)
        tl.store(out + i * (HEADS * D) + o_hd, b_sum.to(out.dtype.element_ty), mask=on_hd)


@triton.jit
def _merge(split_row, split_start, part_m, part_l, part, x, out, lse, HEADS: tl.constexpr, D: tl.constexpr,
           RESIDUAL: tl.constexpr, ACC: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    i_split, h = tl.program_id(0), tl.program_id(1)
    i = tl.load(split_row + i_split).to(tl.int64)
    first, last = tl.load(split_start + i_split).to(tl.int64), tl.load(split_start + i_split + 1).to(tl.int64)
    o_d = tl.arange(0, BD)
    on_d = o_d < D
    b_m, b_l = tl.full([BS], LOWEST, dtype=ACC), tl.zeros([BS], dtype=ACC)
    b_acc = tl.zeros([BS, BD], dtype=ACC)
    for s in range(first, last, BS):
        o_s = s + tl.arange(0, BS)
        on_s = o_s < last
        b_s = tl.load(part_m + o_s * HEADS + h, mask=on_s, other=LOWEST)
        b_top = tl.maximum(b_m, b_s)
        b_p, b_old = tl.exp(b_s - b_top), tl.exp(b_m - b_top)
        b_l = b_l * b_old + b_p * tl.load(part_l + o_s * HEADS + h, mask=on_s, other=0)
        o_part = (o_s * HEADS + h)[:, None] * D + o_d[None, :]
        b_part = tl.load(part + o_part, mask=on_s[:, None] & on_d[None, :], other=0)
        b_acc = b_acc * b_old[:, None] + b_p[:, None] * b_part
        b_m = b_top
    b_top = tl.max(b_m, 0)
    b_old = tl.exp(b_m - b_top)
    b_total = tl.sum(b_l * b_old, 0)
    b_sum = tl.sum(b_acc * b_old[:, None], 0) / b_total
    o_hd = (i * HEADS + h) * D + o_d
    if RESIDUAL:
        b_sum += tl.load(x + o_hd, mask=on_d, other=0).to(ACC)
    tl.store(lse + i * HEADS + h, b_top + tl.log(b_total))
    tl.store(out + o_hd, b_sum.to(out.dtype.element_ty), mask=on_d)


@triton.jit(do_not_specialize=["threshold"])
def _sources(row, start, end, slot, target, to_csc, value, x, a, c, lse, grad, seed, threshold, t, grad_x, part,
             HEADS: tl.constexpr, D: tl.constexpr, SCORE: tl.constexpr, DROP: tl.constexpr, RESIDUAL: tl.constexpr,
             ACC: tl.constexpr, BE: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    i_item = tl.program_id(0).to(tl.int64)
    j, i_slot = tl.load(row + i_item).to(tl.int64), tl.load(slot + i_item).to(tl.int64)
    first, last = tl.load(start + i_item).to(tl.int64), tl.load(end + i_item).to(tl.int64)
    o_h, o_d = tl.program_id(1) * BH + tl.arange(0, BH), tl.arange(0, BD)
    on_h = o_h < HEADS
    o_hd, on_hd = o_h[:, None] * D + o_d[None, :], on_h[:, None] & (o_d < D)[None, :]
    b_x = tl.load(x + j * (HEADS * D) + o_hd, mask=on_hd, other=0).to(ACC)[None, :, :]
    if SCORE != "given":
        b_c = tl.load(c + j * HEADS + o_h, mask=on_h, other=0)[None, :]
    b_acc = tl.zeros([BE, BH, BD], dtype=ACC)
    for e in range(first, last, BE):
        o_e = e + tl.arange(0, BE)
        on_e = o_e < last
        i = tl.load(target + o_e, mask=on_e, other=0).to(tl.int64)
        on = on_e[:, None, None] & on_hd[None, :, :]
        b_g = tl.load(grad + i[:, None, None] * (HEADS * D) + o_hd[None, :, :], mask=on, other=0)
        k = tl.load(to_csc + o_e, mask=on_e, other=0).to(tl.int64)
        o_kh, o_ih = k[:, None] * HEADS + o_h[None, :], i[:, None] * HEADS + o_h[None, :]
        on_eh = on_e[:, None] & on_h[None, :]
        if SCORE == "given":
            b_s = tl.load(value + o_kh, mask=on_eh, other=0)
        else:
            b_w = tl.load(value + k, mask=on_e, other=0)[:, None]
            b_s = _score(b_w, tl.load(a + o_ih, mask=on_eh, other=0), b_c, SCORE)
        b_p = tl.where(on_eh, tl.exp(b_s - tl.load(lse + o_ih, mask=on_eh, other=0)), 0.0)
        if DROP:
            b_p = tl.where(keep(o_kh, seed, threshold), b_p * (65536 / (65536 - threshold).to(ACC)), 0.0)
        b_g = b_g.to(ACC)
        tl.store(t + o_kh, b_p * tl.sum(b_g * b_x, 2), mask=on_eh)
        b_acc += b_p[:, :, None] * b_g
    b_sum = tl.sum(b_acc, 0)
    if i_slot >= 0:
        tl.store(part + i_slot * (HEADS * D) + o_hd, b_sum, mask=on_hd)
    else:
        if RESIDUAL:
            b_sum += tl.load(grad + j * (HEADS * D) + o_hd, mask=on_hd, other=0).to(ACC)
        tl.store(grad_x + j * (HEADS * D) + o_hd, b_sum.to(grad_x.dtype.element_ty), mask=on_hd)


@triton.jit(do_not_specialize=["num_items"])
def _edge_sums(row, start, end, slot, num_items, order, index, edge, factor, out, part, HEADS: tl.constexpr,
               ORDER: tl.constexpr, FACTOR: tl.constexpr, ACC: tl.constexpr, BR: tl.constexpr, BE: tl.constexpr,
               BH: tl.constexpr):  # fmt: skip
    o_r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    on_r, o_h = o_r < num_items, tl.arange(0, BH)[None, :]
    i, o_slot = tl.load(row + o_r, mask=on_r, other=0).to(tl.int64), tl.load(slot + o_r, mask=on_r, other=0).to(tl.int64)
    first = tl.load(start + o_r, mask=on_r, other=0).to(tl.int64)
    last = tl.load(end + o_r, mask=on_r, other=0).to(tl.int64)
    on_h = o_h < HEADS
    b_acc = tl.zeros([BR, BE, BH], dtype=ACC)
    for step in range(0, tl.max(last - first, 0), BE):
        o_e = first[:, None] + step + tl.arange(0, BE)[None, :]
        on_e = o_e < last[:, None]
        on = on_e[:, :, None] & on_h[None, :, :]
        k = tl.load(order + o_e, mask=on_e, other=0).to(tl.int64) if ORDER else o_e
        b_e = tl.load(edge + k[:, :, None] * HEADS + o_h[None, :, :], mask=on, other=0)
        if FACTOR:
            n = tl.load(index + o_e, mask=on_e, other=0).to(tl.int64)
            b_e *= tl.load(factor + n[:, :, None] * HEADS + o_h[None, :, :], mask=on, other=0)
        b_acc += b_e
    b_sum = tl.sum(b_acc, 1)
    whole, split = (on_r & (o_slot < 0))[:, None] & on_h, (on_r & (o_slot >= 0))[:, None] & on_h
    tl.store(out + i[:, None] * HEADS + o_h, b_sum, mask=whole)
    tl.store(part + o_slot[:, None] * HEADS + o_h, b_sum, mask=split)


@triton.jit(do_not_specialize=["num_items"])
def _targets(row, start, end, slot, num_items, col, value, a, c, lse, delta, t, grad_value, out, part,
             HEADS: tl.constexpr, SCORE: tl.constexpr, VALUE: tl.constexpr, ACC: tl.constexpr, BR: tl.constexpr,
             BE: tl.constexpr, BH: tl.constexpr):  # fmt: skip
    o_r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    on_r, o_h = o_r < num_items, tl.arange(0, BH)[None, :]
    i, o_slot = tl.load(row + o_r, mask=on_r, other=0).to(tl.int64), tl.load(slot + o_r, mask=on_r, other=0).to(tl.int64)
    first = tl.load(start + o_r, mask=on_r, other=0).to(tl.int64)
    last = tl.load(end + o_r, mask=on_r, other=0).to(tl.int64)
    on_h = o_h < HEADS
    o_ih, on_rh = i[:, None] * HEADS + o_h, on_r[:, None] & on_h
    b_lse = tl.load(lse + o_ih, mask=on_rh, other=0)[:, None, :]
    b_delta = tl.load(delta + o_ih, mask=on_rh, other=0)[:, None, :]
    if SCORE != "given":
        b_a = tl.load(a + o_ih, mask=on_rh, other=0)[:, None, :]
    b_acc = tl.zeros([BR, BE, BH], dtype=ACC)
    for step in range(0, tl.max(last - first, 0), BE):
        o_e = first[:, None] + step + tl.arange(0, BE)[None, :]
        on_e = o_e < last[:, None]
        o_eh, on = o_e[:, :, None] * HEADS + o_h[None, :, :], on_e[:, :, None] & on_h[None, :, :]
        if SCORE == "given":
            b_s = tl.load(value + o_eh, mask=on, other=0)
        else:
            b_w = tl.load(value + o_e, mask=on_e, other=0)[:, :, None]
            j = tl.load(col + o_e, mask=on_e, other=0).to(tl.int64)
            b_c = tl.load(c + j[:, :, None] * HEADS + o_h[None, :, :], mask=on, other=0)
            b_s = _score(b_w, b_a, b_c, SCORE)
        b_p = tl.exp(tl.where(on, b_s - b_lse, LOWEST))
        b_ds = tl.load(t + o_eh, mask=on, other=0) - b_p * b_delta
        if SCORE == "product":
            if VALUE:
                tl.store(grad_value + o_e, tl.sum(b_ds * b_a * b_c, 2), mask=on_e)
            b_ds *= b_w
            b_acc += b_ds * b_c
        if SCORE == "additive":
            b_ds = tl.where(b_a + b_c > 0, b_ds, b_ds * SLOPE)
            b_acc += b_ds
        tl.store(t + o_eh, b_ds, mask=on)
    if SCORE != "given":
        b_sum = tl.sum(b_acc, 1)
        whole, split = (on_r & (o_slot < 0))[:, None] & on_h, (on_r & (o_slot >= 0))[:, None] & on_h
        tl.store(out + o_ih, b_sum, mask=whole)
        tl.store(part + o_slot[:, None] * HEADS + o_h, b_sum, mask=split)


def _wide_tile(heads: int, d: int, dtype: torch.dtype) -> dict[str, int]:
    """Edges, heads and columns of a program: 32 elements a thread, 16 where they or their loads are not of 16 bytes."""
    BD = power_of_two(d)
    BH = min(power_of_two(heads), max(512 // BD, 1))
    num_warps = min(max(BH * BD // 64, 1), 4)
    elements = (16 if dtype is torch.float64 or d % 4 else 32) * 32 * num_warps
    return {"BE": min(max(elements // (BH * BD), 1), 16), "BH": BH, "BD": BD, "num_warps": num_warps}


def _narrow_tile(heads: int, dtype: torch.dtype) -> dict[str, int]:
    """Rows, edges and heads of a program: 4 elements a thread, 2 of 8 bytes."""
    BH, BE = power_of_two(heads), 8
    return {"BR": max((256 if dtype is torch.float64 else 512) // (BE * BH), 1), "BE": BE, "BH": BH, "num_warps": 4}


def _runs(work: Items) -> tuple[Tensor, ...]:
    return work.row, work.start, work.end, work.slot


def attend(
    rowptr: Tensor,
    col: Tensor,
    value: Tensor,
    x: Tensor,
    score_dst: Tensor,
    score_src: Tensor,
    score: str,
    p: float,
    seed: Tensor,
    residual: bool,
) -> tuple[Tensor, Tensor]:
    """x [N_src, heads, d] to [N_dst, heads, d], and the log-sum-exp [N_dst, heads] of each row's scores."""
    _, heads, d = x.shape
    x, value, a, c = x.contiguous(), value.contiguous(), score_dst.contiguous(), score_src.contiguous()
    out, lse = x.new_empty(a.size(0), heads, d), a.new_empty(a.shape)
    work, threshold = items(rowptr), dropout_threshold(p)
    part_m, part_l, part = (slots(work, *shape, like=x) for shape in ((heads,), (heads,), (heads, d)))
    shared = {"HEADS": heads, "D": d, "RESIDUAL": residual, "ACC": tl_dtype(part.dtype)}
    tile = _wide_tile(heads, d, x.dtype)
    launch(
        _forward, (work.num_items, triton.cdiv(heads, tile["BH"])),
        *_runs(work), col, value, x, a, c, seed, threshold, out, lse, part_m, part_l, part,
        SCORE=score, DROP=p > 0, **shared, **tile,
    )  # fmt: skip
    launch(
        _merge, (work.split_row.numel(), heads), work.split_row, work.split_start, part_m, part_l, part, x, out, lse,
        BS=16, BD=tile["BD"], num_warps=min(max(tile["BD"] // 8, 1), 8), **shared,
    )  # fmt: skip
    return out, lse


def attend_backward(
    rowptr: Tensor,
    col: Tensor,
    colptr: Tensor,
    row: Tensor,
    to_csc: Tensor,
    value: Tensor,
    x: Tensor,
    score_dst: Tensor,
    score_src: Tensor,
    lse: Tensor,
    grad: Tensor,
    score: str,
    p: float,
    seed: Tensor,
    residual: bool,
    needs_value: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, score_dst, score_src and (if asked for, else empty) the edge values."""
    _, heads, d = x.shape
    x, grad, value = x.contiguous(), grad.contiguous(), value.contiguous()
    a, c = score_dst.contiguous(), score_src.contiguous()
    by_target, by_source, threshold = items(rowptr), items(colptr), dropout_threshold(p)
    grad_x = torch.empty_like(x)
    grad_dst, grad_src = torch.empty_like(a), torch.empty_like(c)
    t = a.new_zeros(col.numel(), heads) if score == "given" else a.new_empty(col.numel(), heads)
    part, tile = slots(by_source, heads * d, like=x), _wide_tile(heads, d, x.dtype)
    ACC = tl_dtype(part.dtype)
    launch(
        _sources, (by_source.num_items, triton.cdiv(heads, tile["BH"])),
        *_runs(by_source), row, to_csc, value, x, a, c, lse, grad, seed, threshold, t, grad_x, part,
        HEADS=heads, D=d, SCORE=score, DROP=p > 0, RESIDUAL=residual, ACC=ACC, **tile,
    )  # fmt: skip
    combine(by_source, part, grad_x.flatten(1), grad.flatten(1) if residual else None)

    def edge_sums(work: Items, out: Tensor, order: Tensor | None = None, index: Tensor | None = None) -> None:
        tile, part = _narrow_tile(heads, out.dtype), slots(work, heads, like=out)
        launch(
            _edge_sums, (triton.cdiv(work.num_items, tile["BR"]),),
            *_runs(work), work.num_items, col if order is None else order, col if index is None else index, t, a, out, part,
            HEADS=heads, ORDER=order is not None, FACTOR=index is not None, ACC=ACC, **tile,
        )  # fmt: skip
        combine(work, part, out)

    delta = torch.empty_like(lse)
    edge_sums(by_target, delta)
    grad_value = torch.zeros_like(value) if needs_value and score != "given" else value.new_empty(0)
    tile, part = _narrow_tile(heads, a.dtype), slots(by_target, heads, like=a)
    launch(
        _targets, (triton.cdiv(by_target.num_items, tile["BR"]),),
        *_runs(by_target), by_target.num_items, col, value, a, c, lse, delta, t, grad_value, grad_dst, part,
        HEADS=heads, SCORE=score, VALUE=needs_value, ACC=ACC, **tile,
    )  # fmt: skip
    if score == "given":
        return grad_x, grad_dst.zero_(), grad_src.zero_(), t if needs_value else grad_value
    combine(by_target, part, grad_dst)
    edge_sums(by_source, grad_src, to_csc, row if score == "product" else None)
    return grad_x, grad_dst, grad_src, grad_value
