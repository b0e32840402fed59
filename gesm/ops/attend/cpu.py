"""attend on the CPU, block by block of rows; [E, heads, d] never exists.

Backward is FlashAttention's: d loss / d s_ij = alpha_ij (grad_i . x_j - delta_i) with delta_i = sum_j alpha_ij (grad_i . x_j),
alpha recomputed from the kept log-sum-exp. A pass over the rows gives the gradients of the target scores and leaves, for each
edge and head, alpha and the gradient of the source score; a pass over the transpose sums these into the sources. No two
threads write one row. The result itself is not kept, and what follows may work on it in place.
"""

import torch
from torch import Tensor

from gesm.ops._memory import empty
from gesm.ops._random import dropout_scale, dropout_threshold, keep_mask
from gesm.ops._sparse import Block, blocks, csr_matmul, csr_sddmm, segment_max, segment_sum
from gesm.ops.attend.scores import ALL, by_edge

__all__ = ["attend", "attend_backward"]

SAFE_SCORE = 16.0  # exp of it is far from overflow, and rounds no worse than a difference of two scores


def _keep(block: Block, like: Tensor, seed: Tensor, p: float) -> Tensor:
    """[entries, heads] dropout factors, 0 or 1 / (1 - p), by the number of each edge and head."""
    heads, threshold = like.size(1), dropout_threshold(p)
    mask = keep_mask(block.entries.start * heads, block.entries.stop * heads, int(seed), threshold, like.dtype)
    return mask.mul_(dropout_scale(threshold)).view(-1, heads)


def _softmax_(block: Block, s: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the rows of the block, in place of s [entries, heads], and the log-sum-exp of each row.

    Scores are shifted by the maximum of their row only where one of them is large.
    """
    small = not s.numel() or max(abs(float(bound)) for bound in s.aminmax()) < SAFE_SCORE  # False for NaN
    if not small:
        top = segment_max(block, s)
        s -= top.index_select(0, block.row)
    total = segment_sum(block, s.exp_())
    s /= total.index_select(0, block.row)
    return s, total.log_() if small else total.log_().add_(top)


def _weighted_sum(block: Block, alpha: Tensor, x: Tensor, residual: bool, out: Tensor) -> None:
    """Writes the block's rows of alpha x (+ x) into `out`; a residual is one more on the weights of the self-loops."""
    rows = block.head_rows(alpha.size(1))
    matrix = block.matrix(alpha, x.size(0) // alpha.size(1))
    if residual and block.loops is not None:
        matrix.values().index_add_(0, block.loops, alpha.new_ones(()).expand(block.loops.numel()))
        residual = False
    csr_matmul(matrix, x, add=x[rows] if residual else None, out=out[rows])


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
    out = empty(score_dst.numel(), d, like=x)
    lse = x.new_empty(score_dst.shape)
    for block in blocks(rowptr, col, heads):
        a = score_dst[block.rows].index_select(0, block.row)
        c = score_src.index_select(0, col[block.entries])
        s = ALL[score].forward(by_edge(value[block.entries]), a, c, out=a)
        alpha, lse[block.rows] = _softmax_(block, s)
        if p > 0:
            alpha *= _keep(block, alpha, seed, p)
        _weighted_sum(block, alpha, x, residual, out)
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
    alpha, grad_src_edge = (x.new_empty(col.numel(), heads) for _ in range(2))

    for block in blocks(rowptr, col, heads):
        w = by_edge(value[block.entries])
        a = score_dst[block.rows].index_select(0, block.row)
        c = score_src.index_select(0, col[block.entries])
        s = ALL[score].forward(w, a, c)
        weight = torch.sub(s, lse[block.rows].index_select(0, block.row), out=alpha[block.entries]).exp_()
        dot = csr_sddmm(block.heads_rowptr, block.heads_col, grad[block.head_rows(heads)], x)
        dot = block.from_heads(dot, heads)
        keep = _keep(block, dot, seed, p) if p > 0 else None
        if keep is not None:
            dot *= keep
        delta = segment_sum(block, torch.mul(weight, dot, out=s))
        ds = dot.sub_(delta.index_select(0, block.row)).mul_(weight)
        if keep is not None:
            weight *= keep
        if needs_value:
            grad_value[block.entries] = ALL[score].by_value(ds, a, c)
        by_dst = ALL[score].backward(ds, w, a, c, grad_src_edge[block.entries])
        grad_dst[block.rows] = segment_sum(block, by_dst)
        a = c = s = weight = dot = keep = ds = by_dst = None  # [entries, heads] each: room for what follows

    grad_x = empty(num_src * heads, d, like=x)
    for block in blocks(colptr, row, heads):
        edge = to_csc[block.entries]
        grad_src[block.rows] = segment_sum(block, grad_src_edge.index_select(0, edge))
        _weighted_sum(block, alpha.index_select(0, edge), grad, residual, grad_x)
    return grad_x.view(num_src, heads, d), grad_dst, grad_src, grad_value
