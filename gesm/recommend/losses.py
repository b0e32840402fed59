"""Losses of ranking, and the scores of pairs that they are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gesm.errors import GesmError
from gesm.ops._sparse import csr, csr_matmul, csr_sddmm

__all__ = ["bpr_loss", "pair_scores", "sampled_softmax_loss"]


def bpr_loss(pos: Tensor, neg: Tensor) -> Tensor:
    r"""Bayesian personalised ranking (`Rendle et al. <https://arxiv.org/abs/1205.2618>`_),
    :math:`\mathrm{mean} -\log \sigma(s^+ - s^-)`.

    Args:
        pos: scores of the pairs seen, [B].
        neg: scores of the same users with items not seen, [B] or [B, n].

    Raises:
        GesmError: if there is no row of `neg` for each of `pos`.
    """
    if pos.dim() != 1 or neg.dim() not in (1, 2) or neg.size(0) != pos.size(0):
        raise GesmError(f"bpr_loss takes scores [B] and [B] or [B, n], got {list(pos.shape)} and {list(neg.shape)}")
    return F.softplus(neg - (pos if neg.dim() == 1 else pos.unsqueeze(1))).mean()


def sampled_softmax_loss(
    user_emb: Tensor, pos_item_emb: Tensor, neg_item_emb: Tensor, temperature: float = 1.0, log_q: Tensor | None = None
) -> Tensor:
    r"""Cross-entropy of each pair's item against M items that all pairs share.

    .. math::
        \mathrm{mean}_b \; \log \Big( 1 + \sum_{m=1}^{M} \exp\big((s_{bm} - s_b^+) / \tau - \log (M q_m)\big) \Big)

    Args:
        user_emb: [B, d].
        pos_item_emb: [B, d].
        neg_item_emb: [M, d].
        temperature: :math:`\tau` > 0.
        log_q: [M], the logarithm of the probability q with which each of the M was drawn; with it the sum estimates that
            over all items (`Bengio and Senecal <https://doi.org/10.1109/TNN.2007.912312>`_). None leaves the last term out.

    A drawn item may be the pair's own, or another of the user's.

    Raises:
        GesmError: for shapes that do not fit, or a temperature that is not positive.
    """
    if user_emb.shape != pos_item_emb.shape or user_emb.dim() != 2:
        raise GesmError(
            f"user_emb and pos_item_emb must both be [B, d], got {list(user_emb.shape)} and {list(pos_item_emb.shape)}"
        )
    pos = (user_emb * pos_item_emb).sum(1)
    return softmax_against(pos, log_partition(user_emb, neg_item_emb, temperature, log_q), temperature)


def log_partition(user_emb: Tensor, neg_item_emb: Tensor, temperature: float = 1.0, log_q: Tensor | None = None) -> Tensor:
    """[B]: the logarithm of the sum over the M shared items, which is that of a user, not of a pair."""
    if neg_item_emb.dim() != 2 or neg_item_emb.size(0) < 1 or neg_item_emb.size(1) != user_emb.size(1):
        raise GesmError(f"neg_item_emb must be [M, {user_emb.size(1)}] with M >= 1, got {list(neg_item_emb.shape)}")
    if not temperature > 0:
        raise GesmError(f"temperature must be positive, got {temperature}")
    logits = user_emb @ (neg_item_emb / temperature).t()
    if log_q is None:
        return logits.logsumexp(1)
    if log_q.shape != neg_item_emb.shape[:1]:
        raise GesmError(f"log_q must be [{neg_item_emb.size(0)}], one for each shared item, got {list(log_q.shape)}")
    return (logits - (log_q + torch.tensor(float(log_q.numel())).log())).logsumexp(1)


def softmax_against(pos: Tensor, log_sum: Tensor, temperature: float = 1.0) -> Tensor:
    """The loss from the pairs' scores [B] and the logarithms of the sums over the shared items [B]."""
    return F.softplus(log_sum - pos / temperature).mean()


def pair_scores(user_emb: Tensor, item_emb: Tensor, user: Tensor, item: Tensor) -> Tensor:
    r"""The products :math:`u \cdot i` of chosen pairs; neither they nor their gradients gather rows [B, d] on the CPU.

    Args:
        user_emb: [U, d].
        item_emb: [I, d].
        user: [B], quickest in ascending order.
        item: [B], or [B, m] for m items each.

    Returns:
        [B] or [B, m].

    Raises:
        GesmError: for shapes that do not fit.
    """
    if user_emb.dim() != 2 or item_emb.dim() != 2 or user_emb.size(1) != item_emb.size(1):
        raise GesmError(
            f"user_emb and item_emb must be [U, d] and [I, d], got {list(user_emb.shape)} and {list(item_emb.shape)}"
        )
    if user.dim() != 1 or item.dim() not in (1, 2) or item.size(0) != user.size(0):
        raise GesmError(f"user must be [B] and item [B] or [B, m], got {list(user.shape)} and {list(item.shape)}")
    for name, index, size in (("user", user, user_emb.size(0)), ("item", item, item_emb.size(0))):
        if index.numel() and not (index.min() >= 0 and index.max() < size):
            raise GesmError(f"{name} holds {int(index.min())} to {int(index.max())}, allowed is 0 to {size - 1}")
    if user_emb.device.type != "cpu":
        rows = user_emb.index_select(0, user)
        return (rows.view(*rows.shape[:1], *[1] * (item.dim() - 1), -1) * item_emb[item]).sum(-1)
    if bool((user[1:] >= user[:-1]).all()):
        return _PairScores.apply(user_emb, item_emb, user, item)
    order = user.argsort(stable=True)
    inverse = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel()))
    return _PairScores.apply(user_emb, item_emb, user[order], item[order]).index_select(0, inverse)


class _PairScores(torch.autograd.Function):
    """The pairs as the entries of a CSR [U, I]: a sampled product forward, two sparse products backward."""

    @staticmethod
    def forward(ctx, user_emb, item_emb, user, item):
        width = item.numel() // max(user.numel(), 1)
        rowptr = torch.searchsorted(user, torch.arange(user_emb.size(0) + 1)).mul_(width).int()
        col = item.reshape(-1).int()
        ctx.save_for_backward(user_emb, item_emb, user, rowptr, col)
        return csr_sddmm(rowptr, col, user_emb, item_emb).view(item.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        user_emb, item_emb, user, rowptr, col = ctx.saved_tensors
        grad = grad.reshape(-1)
        grad_user = csr_matmul(csr(rowptr, col, grad, item_emb.size(0)), item_emb)
        key, order = col.sort(stable=True)
        colptr = torch.searchsorted(key, torch.arange(item_emb.size(0) + 1, dtype=torch.int32)).int()
        row = user.int().index_select(0, order // (col.numel() // max(user.numel(), 1)) if col.numel() else order)
        grad_item = csr_matmul(csr(colptr, row, grad.index_select(0, order), user_emb.size(0)), user_emb)
        return grad_user, grad_item, None, None
