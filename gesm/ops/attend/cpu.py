"""attend on the CPU, block by block of rows; [E, heads, d] never exists.

Backward is FlashAttention's: d loss / d s_ij = alpha_ij (grad_i . x_j - delta_i) with delta_i = sum_j alpha_ij (grad_i . x_j),
alpha recomputed from the kept log-sum-exp. A pass over the rows gives the gradients of the target scores and leaves, for each
edge and head, alpha and the gradient of the source score; a pass over the transpose sums these into the sources. No two
threads write one row. The result itself is not kept, and what follows may work on it in place.
"""

import torch
from torch import Tensor

from gesm.ops._random import counters, keep_mask
from gesm.ops._sparse import Block, blocks, csr_matmul, csr_sddmm, place, segment_max, segment_sum
from gesm.ops.attend.scores import SCORES

__all__ = ["attend", "attend_backward"]


def _keep(block: Block, like: Tensor, seed: Tensor, p: float) -> Tensor:
    """[entries, heads] dropout factors, 0 or 1 / (1 - p), by the number of each edge and head."""
    heads = like.size(1)
    counter = counters(block.entries.start * heads, block.entries.stop * heads)
    return keep_mask(counter, seed, p, like.dtype).mul_(1 / (1 - p)).view(-1, heads)


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
        s = SCORES[score].forward(value[block.entries].unsqueeze(1), a, score_src.index_select(0, col[block.entries]))
        top = segment_max(block, s)
        alpha = s.sub_(top.index_select(0, block.row)).exp_()
        total = segment_sum(block, alpha)
        alpha /= total.index_select(0, block.row)
        lse[block.rows] = total.log_().add_(top)
        if p > 0:
            alpha *= _keep(block, alpha, seed, p)
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
    grad_dst, grad_src = x.new_empty(score_dst.shape), x.new_empty(score_src.shape)
    grad_value = torch.zeros_like(value) if needs_value else value.new_empty(0)
    alpha, grad_src_edge = x.new_empty(0, heads), x.new_empty(0, heads)

    for block in blocks(rowptr, col, heads):
        w = value[block.entries].unsqueeze(1)
        a = score_dst[block.rows].index_select(0, block.row)
        c = score_src.index_select(0, col[block.entries])
        weight = SCORES[score].forward(w, a, c).sub_(lse[block.rows].index_select(0, block.row)).exp_()
        dot = csr_sddmm(block.heads_rowptr, block.heads_col, grad[block.head_rows(heads)], x)
        dot = block.from_heads(dot, heads)
        kept = weight
        if p > 0:
            keep = _keep(block, dot, seed, p)
            dot *= keep
            kept = keep.mul_(weight)
        alpha = place(alpha, block.entries, kept, col.numel())
        delta = segment_sum(block, weight * dot)
        ds = dot.sub_(delta.index_select(0, block.row)).mul_(weight)
        by_dst, by_src, by_value = SCORES[score].backward(ds, w, a, c)
        grad_dst[block.rows] = segment_sum(block, by_dst)
        grad_src_edge = place(grad_src_edge, block.entries, by_src, col.numel())
        if needs_value and by_value is not None:
            grad_value[block.entries] = by_value().sum(1)

    grad_x = x.new_empty(0, d)
    for block in blocks(colptr, row, heads, to_csc):
        grad_src[block.rows] = segment_sum(block, grad_src_edge)
        part = csr_matmul(block.heads_rowptr, block.heads_col, block.to_heads(alpha), grad)
        if residual:
            part += grad[block.head_rows(heads)]
        grad_x = place(grad_x, block.head_rows(heads), part, num_src * heads)
    return grad_x.view(num_src, heads, d), grad_dst, grad_src, grad_value


torch.library.impl("gesm::attend", "CPU", torch.no_grad()(attend))
torch.library.impl("gesm::attend_backward", "CPU", torch.no_grad()(attend_backward))
