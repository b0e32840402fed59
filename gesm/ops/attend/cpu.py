"""attend on the CPU, block by block of rows; edge values exist for one block at a time and [E, heads, d] never.

Backward is FlashAttention's: d loss / d s_ij = alpha_ij (grad_i . x_j - delta_i) with delta_i = sum_j alpha_ij (grad_i . x_j).
One pass over the rows gives delta and the gradients of the target scores, one over the transpose those of x and the source
scores; both recompute alpha from the kept log-sum-exp, so that nothing is permuted and no two threads write one row. The
result itself is not kept, and what follows may work on it in place.
"""

import torch
from torch import Tensor

from gesm.ops._random import keep_mask
from gesm.ops._sparse import blocks, csr_matmul, csr_sddmm, place, segment_max, segment_sum
from gesm.ops.attend.scores import SCORES

__all__ = ["attend", "attend_backward"]


def _keep(edge: Tensor, like: Tensor, seed: Tensor, p: float) -> Tensor:
    """[entries, heads] dropout factors, 0 or 1 / (1 - p), for the edges at the CSR positions `edge`."""
    heads = like.size(1)
    counter = edge.to(torch.int32).unsqueeze(1) * heads + torch.arange(heads, dtype=torch.int32)
    return keep_mask(counter, seed, p).to(like.dtype).mul_(1 / (1 - p))


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
    num_src, heads, d = x.shape
    x = x.contiguous().view(num_src * heads, d)
    out = x.new_empty(0, d)
    lse = x.new_empty(score_dst.shape)
    for block in blocks(rowptr, col, heads):
        a = score_dst[block.rows].index_select(0, block.row)
        s = SCORES[score].value(value[block.entries].unsqueeze(1), a, score_src.index_select(0, col[block.entries]))
        top = segment_max(block, s)
        alpha = s.sub_(top.index_select(0, block.row)).exp_()
        total = segment_sum(block, alpha)
        alpha /= total.index_select(0, block.row)
        lse[block.rows] = total.log_().add_(top)
        if p > 0:
            edge = torch.arange(block.entries.start, block.entries.stop, dtype=torch.int32)
            alpha *= _keep(edge, alpha, seed, p)
        part = csr_matmul(block.heads_rowptr, block.heads_col, block.to_heads(alpha), x)
        if residual:
            part += x[block.head_rows(heads)]
        out = place(out, block.head_rows(heads), part, lse.numel())
    # Not a view for autograd, which lets nobody write into a view that a Function returns.
    return torch.ops.aten._unsafe_view(out, (score_dst.size(0), heads, d)), lse


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
    num_src, heads, d = x.shape
    x = x.contiguous().view(num_src * heads, d)
    grad = grad.contiguous().view(grad.size(0) * heads, d)
    grad_x, grad_dst, grad_src = x.new_empty(0, d), x.new_empty(score_dst.shape), x.new_empty(score_src.shape)
    delta = torch.empty_like(grad_dst)
    grad_value = torch.zeros_like(value) if needs_value else value.new_empty(0)

    for block in blocks(rowptr, col, heads):
        w = value[block.entries].unsqueeze(1)
        a = score_dst[block.rows].index_select(0, block.row)
        c = score_src.index_select(0, col[block.entries])
        alpha = SCORES[score].value(w, a, c).sub_(lse[block.rows].index_select(0, block.row)).exp_()
        dot = csr_sddmm(block.heads_rowptr, block.heads_col, grad[block.head_rows(heads)], x)
        dot = block.from_heads(dot, heads)
        if p > 0:
            edge = torch.arange(block.entries.start, block.entries.stop, dtype=torch.int32)
            dot = dot * _keep(edge, dot, seed, p)
        delta[block.rows] = segment_sum(block, alpha * dot)
        ds = alpha.mul_(dot.sub_(delta[block.rows].index_select(0, block.row)))
        by_value, by_dst, _ = SCORES[score].partials(w, a, c)
        grad_dst[block.rows] = segment_sum(block, ds * by_dst)
        if needs_value and by_value is not None:
            grad_value[block.entries] = (ds * by_value).sum(1)

    for block in blocks(colptr, row, heads):
        edge = to_csc[block.entries]
        w = value.index_select(0, edge).unsqueeze(1)
        target = row[block.entries]
        a = score_dst.index_select(0, target)
        c = score_src[block.rows].index_select(0, block.row)
        alpha = SCORES[score].value(w, a, c).sub_(lse.index_select(0, target)).exp_()
        dot = csr_sddmm(block.heads_rowptr, block.heads_col, x[block.head_rows(heads)], grad)
        dot = block.from_heads(dot, heads)
        dropped = alpha
        if p > 0:
            keep = _keep(edge, dot, seed, p)
            dot, dropped = dot * keep, alpha * keep
        ds = alpha * (dot - delta.index_select(0, target))
        grad_src[block.rows] = segment_sum(block, ds * SCORES[score].partials(w, a, c)[2])
        part = csr_matmul(block.heads_rowptr, block.heads_col, block.to_heads(dropped), grad)
        if residual:
            part += grad[block.head_rows(heads)]
        grad_x = place(grad_x, block.head_rows(heads), part, num_src * heads)
    return grad_x.view(num_src, heads, d), grad_dst, grad_src, grad_value


torch.library.impl("gesm::attend", "CPU", attend)
torch.library.impl("gesm::attend_backward", "CPU", attend_backward)
