"""attend in plain PyTorch: any device, differentiable; the truth that every backend is tested against."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gesm.ops._random import dropout_scale, dropout_threshold, keep_mask
from gesm.ops.attend.scores import ALL, by_edge

__all__ = ["attend", "weights"]


def weights(col: Tensor, target: Tensor, value: Tensor, score_dst: Tensor, score_src: Tensor, score: str) -> Tensor:
    """alpha [E, heads]: softmax of the scores over each target's incoming edges."""
    score_dst = F.pad(score_dst, (0, 0, 0, 1))  # the edges that a traced graph displaced point to the row num_dst
    s = ALL[score].forward(by_edge(value), score_dst.index_select(0, target), score_src.index_select(0, col))
    index = target.long().unsqueeze(1).expand_as(s)
    top = torch.zeros_like(score_dst).scatter_reduce(0, index, s.detach(), "amax", include_self=False)
    p = (s - top.index_select(0, target)).exp()
    total = torch.zeros_like(score_dst).index_add(0, target, p)
    return p / total.index_select(0, target)


def attend(
    col: Tensor,
    target: Tensor,
    value: Tensor,
    x: Tensor,
    score_dst: Tensor,
    score_src: Tensor,
    score: str,
    p: float,
    seed: Tensor,
    residual: bool,
) -> Tensor:
    """y_i = sum over edges j -> i of dropout(alpha_ij) x_j (+ x_i), head by head; x [N_src, heads, d], y [N_dst, heads, d]."""
    alpha = weights(col, target, value, score_dst, score_src, score)
    if p > 0:
        threshold = dropout_threshold(p)
        alpha = alpha * keep_mask(0, alpha.numel(), seed, threshold, alpha.dtype, alpha.device).view_as(alpha)
        alpha = alpha * dropout_scale(threshold)
    out = x.new_zeros(score_dst.size(0) + 1, *x.shape[1:])
    out = out.index_add(0, target, alpha.unsqueeze(-1) * x.index_select(0, col))[: score_dst.size(0)]
    return out + x if residual else out
