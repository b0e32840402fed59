"""The k-core of a table: a dense part of a sparse data set."""

import torch

from gesm.errors import GesmError
from gesm.recommend.interactions import Interactions

__all__ = ["k_core"]


def k_core(interactions: Interactions, k: int) -> Interactions:
    """The largest part of a table in which every user and every item has at least k rows, numbered anew.

    Rows are counted, so that a pair that is there twice counts twice. Filtered over its whole span a table looks at the
    future: an item may stay because of rows that lie after a test window.

    Raises:
        GesmError: k below 1, or no row left.
    """
    if not isinstance(k, int) or k < 1:
        raise GesmError(f"k must be an int >= 1, got {k!r}")
    user, item = interactions.user, interactions.item
    rows = torch.arange(len(interactions))
    while True:
        many = torch.bincount(user[rows], minlength=interactions.num_users)[user[rows]] >= k
        keep = many & (torch.bincount(item[rows], minlength=interactions.num_items)[item[rows]] >= k)
        if keep.all():
            break
        rows = rows[keep]
    if not len(rows):
        raise GesmError(f"{interactions!r} has no {k}-core; choose a smaller k")
    return interactions.select(rows).compact()
