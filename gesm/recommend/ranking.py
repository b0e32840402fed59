"""Full-catalogue ranking and its metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch_geometric.metrics import (
    LinkPredAveragePopularity,
    LinkPredCoverage,
    LinkPredDiversity,
    LinkPredHitRatio,
    LinkPredMAP,
    LinkPredMetricCollection,
    LinkPredNDCG,
    LinkPredPrecision,
    LinkPredRecall,
)
from torch_geometric.metrics.link_pred import LinkPredMetricData

from gesm.errors import GesmError
from gesm.recommend.interactions import Interactions
from gesm.recommend.split import Targets

__all__ = ["Ranking", "evaluate", "top_k"]

Score = Callable[[Tensor], Tensor]
METRICS = {
    "ndcg": LinkPredNDCG,
    "map": LinkPredMAP,
    "recall": LinkPredRecall,
    "precision": LinkPredPrecision,
    "hit": LinkPredHitRatio,
}


@dataclass(frozen=True, eq=False)
class Ranking:
    """Recommendations for the users of some targets, and how good they are.

    Attributes:
        users: int64 [M], as `Targets.users`.
        items: int64 [M, max(k)], best first; -1 where a user has no more items to rank.
        per_user: Metric such as "ndcg@10" to float32 [M].
        mean: The same metrics' means over users, and those of whole lists: "coverage@10", "personalization@10",
            "popularity@10", with categories "diversity@10".
    """

    users: Tensor
    items: Tensor
    per_user: dict[str, Tensor]
    mean: dict[str, float]


def top_k(
    score: Score,
    users: Tensor,
    k: int,
    exclude: sp.csr_array | None = None,
    candidates: Tensor | None = None,
    batch: int = 1024,
) -> Tensor:
    """The k items with the highest scores, among all items, for each user.

    Args:
        score: Takes int64 [B] users and returns [B, I] scores, one for each item; -inf bars an item.
        users: int64 [M].
        k: Length of the lists, at most the number of candidates.
        exclude: CSR [U, I]; its stored entries are items that are barred for a user, such as `train.matrix()`.
        candidates: Items that may be recommended, int64 or bool [I]; None for all.
        batch: Users scored at once.

    Returns:
        int64 [M, k] items, best first, of equal scores the lower number; -1 at the end of lists with fewer than k items
        left.

    Raises:
        GesmError: k, batch, users, scores or candidates of the wrong size or type; scores that are NaN.
    """
    for name, value in (("k", k), ("batch", batch)):
        if not isinstance(value, int) or value < 1:
            raise GesmError(f"{name} must be an int >= 1, got {value!r}")
    if not isinstance(users, Tensor) or users.dim() != 1 or users.dtype != torch.int64:
        raise GesmError("users must be an int64 tensor [M] of user numbers")
    if not len(users):
        return users.new_empty(0, k)
    if users.min() < 0:
        raise GesmError(f"users must be numbers from 0 up, got {int(users.min())} (unknown ids are -1); leave them out")
    return torch.cat([_best(score, chunk, k, exclude, candidates) for chunk in users.split(batch)])


def check_length(k: int, items: int) -> None:
    """Refuses lists that are longer than there are items to rank."""
    if k > items:
        raise GesmError(f"k is {k}, but only {items} items can be ranked; choose a smaller k")


def _best(score: Score, users: Tensor, k: int, exclude: sp.csr_array | None, candidates: Tensor | None) -> Tensor:
    with torch.no_grad():
        scores = score(users)
    if not isinstance(scores, Tensor) or scores.dim() != 2 or scores.size(0) != len(users):
        passed = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise GesmError(f"score must return a tensor [{len(users)}, num_items], one row a user, got {passed}")
    if not scores.is_floating_point():
        raise GesmError(f"score must return floats, got {scores.dtype}; convert them with .float()")
    num_items = scores.size(1)
    barred = torch.zeros(num_items, dtype=torch.bool)
    if candidates is not None:
        barred = ~_mask(candidates, num_items)
    check_length(k, num_items - int(barred.sum()))
    scores = scores.masked_fill(barred.to(scores.device), -torch.inf)
    if exclude is not None:
        if exclude.shape[1] != num_items or exclude.shape[0] <= int(users.max()):
            raise GesmError(
                f"exclude has shape {list(exclude.shape)}, but users go up to {int(users.max())} of {num_items} items"
            )
        part = exclude[users.cpu().numpy()]
        rows = np.repeat(np.arange(len(users)), np.diff(part.indptr))
        flat = torch.from_numpy(rows * num_items + part.indices).to(scores.device)
        scores.view(-1).index_fill_(0, flat, -torch.inf)
    values, items = scores.topk(k)
    if bool(values[:, 0].isnan().any()):  # NaN sorts before every number
        raise GesmError("score returned NaN; the model has diverged, or its inputs hold NaN")
    last = values[:, -1:]
    tied = ((scores >= last).sum(1) > k).nonzero().view(-1)  # topk takes any of equal scores
    if len(tied):
        items[tied] = _first(scores[tied], last[tied], k)
    items = items.sort(1).values
    values, order = scores.gather(1, items).sort(dim=1, descending=True, stable=True)
    return items.gather(1, order).masked_fill(values == -torch.inf, -1).to(users.device)


def _first(scores: Tensor, last: Tensor, k: int) -> Tensor:
    """In each row the entries above its `last`, and as many equal to it, from the left, as make k."""
    above, equal = scores > last, scores == last
    kept = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
    return kept.nonzero()[:, 1].view(-1, k)


def _mask(candidates: Tensor, num_items: int) -> Tensor:
    if candidates.dtype == torch.bool and candidates.shape == (num_items,):
        return candidates
    if candidates.dtype != torch.int64 or candidates.dim() != 1:
        raise GesmError(f"candidates must be int64 item numbers or a bool mask [{num_items}], got {candidates.dtype}")
    if len(candidates) and not (candidates.min() >= 0 and candidates.max() < num_items):
        raise GesmError(f"candidates go from {int(candidates.min())} to {int(candidates.max())} of {num_items} items")
    return torch.zeros(num_items, dtype=torch.bool).index_fill_(0, candidates, True)


def evaluate(
    score: Score,
    targets: Targets,
    train: Interactions,
    k: Sequence[int] = (10, 20),
    category: Tensor | None = None,
    batch: int = 1024,
) -> Ranking:
    r"""Rank the whole catalogue for the users of the targets and measure the lists.

    Candidates are the items seen in training. For targets of the kind "new" the training items of a user are excluded
    from the list; for "repeat" and "all" nothing is, since they are among what is to be found.

    With :math:`r_j` 1 if the j-th item is a target and n the user's number of targets:

    - ndcg: :math:`\sum_j r_j / \log_2(j + 1)` over its largest value, that of the first :math:`\min(n, K)` places.
    - map: :math:`\frac{1}{\min(n, K)} \sum_j r_j \mathrm{precision@}j`: the denominator is min(n, K), not n.
    - recall: hits / n; precision: hits / K; hit: whether there is one.
    - coverage: share of the candidates that is in some list; personalization: mean over pairs of users of the share of
      items that their lists do not share, over all users (PyG's class draws the line at 4096); popularity: mean
      number of training users of the recommended items; diversity: share of a list's pairs that differ in category.

    All but personalization, which is counted exactly, come from `torch_geometric.metrics`. Lists shorter than K, where a
    user has hardly any item left, do not enter the measures of lists.

    Args:
        score: As in `top_k`.
        targets: Of `gesm.recommend.targets`.
        train: The training rows, whose items are the candidates.
        k: Lengths of lists.
        category: int64 [I], one category an item, for diversity.
        batch: Users scored at once.

    Raises:
        GesmError: no users to rank for, k or category of the wrong type, and what `top_k` refuses.
    """
    ks = sorted(set(k)) if isinstance(k, Sequence) else []
    if not ks or not all(isinstance(value, int) and value >= 1 for value in ks):
        raise GesmError(f"k must be one or more ints >= 1 in a tuple, got {k!r}")
    if not len(targets.users):
        raise GesmError(f"no user has a target of kind {targets.kind!r} in this window; take another window or kind")
    if category is not None and category.shape != (train.num_items,):
        raise GesmError(f"category must have shape [{train.num_items}], one an item, got {list(category.shape)}")
    pairs = train.pairs()
    popularity = torch.bincount(pairs.item, minlength=train.num_items)
    exclude = train.matrix() if targets.kind == "new" else None
    items = top_k(score, targets.users, ks[-1], exclude, popularity > 0, batch).cpu()
    per_user, mean = _relevance(items, targets, ks, train.num_items)
    for size in ks:
        lists = items[:, :size]
        mean |= _lists(lists[(lists >= 0).all(1)], popularity, category, size)
    return Ranking(targets.users, items, per_user, mean)


def _relevance(items: Tensor, targets: Targets, ks: list[int], num_items: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    row = torch.searchsorted(targets.users, targets.user)
    items, labels = items.masked_fill(items < 0, num_items), torch.stack([row, targets.item])  # num_items is no target
    metrics = LinkPredMetricCollection({f"{name}@{size}": metric(size) for size in ks for name, metric in METRICS.items()})
    metrics.update(items, labels)
    data = LinkPredMetricData(items, labels)
    per_user = {name: metric._compute(data).float() for name, metric in metrics.items()}
    return per_user, {name: float(value) for name, value in metrics.compute().items()}


def _lists(lists: Tensor, popularity: Tensor, category: Tensor | None, k: int) -> dict[str, float]:
    if not len(lists):
        return {}
    place = (popularity > 0).cumsum(0) - 1  # of an item among the candidates
    measures = {"coverage": LinkPredCoverage(k, int(place[-1]) + 1), "popularity": LinkPredAveragePopularity(k, popularity)}
    if category is not None and k > 1:
        measures["diversity"] = LinkPredDiversity(k, category)
    for name, measure in measures.items():
        measure.update(place[lists] if name == "coverage" else lists, None)
    mean = {f"{name}@{k}": float(measure.compute()) for name, measure in measures.items()}
    if len(lists) > 1:
        count = torch.bincount(lists.flatten(), minlength=len(popularity)).double()
        shared = (count * (count - 1)).sum() / (len(lists) * (len(lists) - 1))
        mean[f"personalization@{k}"] = float(1 - shared / k)
    return mean
