"""Interactions: who took what, and when; every other part of `gesm.recommend` takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.recommend import _columns

__all__ = ["Interactions", "Pairs"]


class Pairs(NamedTuple):
    """The unique (user, item) pairs of a table, in the order of user and item.

    Args:
        user: int64 [P].
        item: int64 [P].
        time: int64 [P], the first time of the pair; None if the table has no times.
        count: int64 [P], rows of the pair.
        weight: float32 [P], sum over the pair's rows; None if the table has no weights.
    """

    user: Tensor
    item: Tensor
    time: Tensor | None
    count: Tensor
    weight: Tensor | None


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """A table of interactions, one row each, with users and items numbered from 0.

    The constructors number the ids and sort the rows by time, ties in the order given. Users and items without a row are
    legal (`select` leaves them), so that parts of a table share their numbers.

    Attributes:
        user: int64 [n], 0 to `num_users` - 1.
        item: int64 [n], 0 to `num_items` - 1.
        time: int64 [n], seconds (or any unit that orders the rows), or None.
        weight: float32 [n] >= 0, or None.
        num_users: U.
        num_items: I.
        user_ids: NumPy array [U], the original ids.
        item_ids: NumPy array [I], the original ids.
        name: Of the data, for reports.

    Raises:
        GesmError: for a column of another length or type, or a number out of range.
    """

    user: Tensor
    item: Tensor
    time: Tensor | None
    weight: Tensor | None
    num_users: int
    num_items: int
    user_ids: np.ndarray
    item_ids: np.ndarray
    name: str = "interactions"

    def __post_init__(self):
        for key, dtype in (("user", torch.int64), ("item", torch.int64), ("time", torch.int64), ("weight", torch.float32)):
            value = getattr(self, key)
            if value is None and key in ("time", "weight"):
                continue
            if not isinstance(value, Tensor) or value.dtype != dtype or value.dim() != 1:
                passed = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise GesmError(f"{key} must be a {dtype} tensor [n], got {passed}; Interactions.from_arrays converts")
            if value.numel() != self.user.numel():
                raise GesmError(f"user has {self.user.numel()} rows but {key} {value.numel()}; columns must be of one length")
        for key, size, ids in (("user", self.num_users, self.user_ids), ("item", self.num_items, self.item_ids)):
            if not isinstance(size, int) or size < 0:
                raise GesmError(f"num_{key}s must be an int >= 0, got {size!r}")
            if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.hasobject:
                passed = f"{ids.dtype} {list(ids.shape)}" if isinstance(ids, np.ndarray) else type(ids).__name__
                raise GesmError(
                    f"{key}_ids must be a NumPy array [{size}] of whole numbers or strings, got {passed}; convert it, "
                    "e.g. with np.array(ids, dtype=str)"
                )
            if len(ids) != size:
                raise GesmError(f"{key}_ids holds {len(ids)} ids, but num_{key}s is {size}; there must be one each")
            value = getattr(self, key)
            if value.numel() and not (value.min() >= 0 and value.max() < size):
                low, high = int(value.min()), int(value.max())
                raise GesmError(f"{key} holds numbers from {low} to {high}, allowed is 0 to {size - 1} (num_{key}s {size})")

    @classmethod
    def from_arrays(
        cls, user: Any, item: Any, time: Any = None, weight: Any = None, name: str = "interactions"
    ) -> Interactions:
        """A table from columns of any kind.

        Args:
            user: [n] ids, whole numbers or strings, in an array, tensor or list; numbered in their sorted order.
            item: [n] ids, likewise.
            time: [n] seconds (fractions are dropped), or dates: datetime64, or ISO 8601 text; None if unknown.
            weight: [n] numbers >= 0, such as quantities; None for none.
            name: Of the data.

        Raises:
            GesmError: columns that are empty, of unequal length, hold NaN or mix types.
        """
        (user, user_ids), (item, item_ids) = _columns.encode(user, "user"), _columns.encode(item, "item")
        time = None if time is None else _columns.seconds(time)
        weight = None if weight is None else _columns.weights(weight)
        table = cls(user, item, time, weight, len(user_ids), len(item_ids), user_ids, item_ids, name)
        return table._sorted()

    @classmethod
    def from_pandas(
        cls,
        frame: Any,
        user: str = "user",
        item: str = "item",
        time: str | None = "time",
        weight: str | None = None,
        name: str = "interactions",
    ) -> Interactions:
        """A table from a pandas frame; the arguments name its columns (`time=None`: it has no times).

        Raises:
            GesmError: a column that is not there, or is refused by `from_arrays`.
        """
        return cls.from_arrays(*_columns.of_table(frame, user, item, time, weight), name=name)

    def _sorted(self) -> Interactions:
        if self.time is None or bool((self.time[1:] >= self.time[:-1]).all()):
            return self
        return self.select(self.time.argsort(stable=True))

    def __len__(self) -> int:
        return self.user.numel()

    def __repr__(self) -> str:
        span = ""
        if self.time is not None and len(self):
            span = f", {_day(self.time.min())} to {_day(self.time.max())}"
        return f"Interactions({self.name}: {len(self)} rows, {self.num_users} users, {self.num_items} items{span})"

    def select(self, rows: Tensor | np.ndarray | Sequence[int]) -> Interactions:
        """The rows of a mask, or of indices in their order, users and items keeping their numbers.

        Raises:
            GesmError: a mask of another length, or an index out of range.
        """
        rows = torch.as_tensor(rows)
        if rows.dtype == torch.bool:
            if rows.shape != self.user.shape:
                raise GesmError(f"the mask has shape {list(rows.shape)}, but there are {len(self)} rows")
            rows = rows.nonzero().flatten()
        rows = rows.long()
        if rows.numel() and not (rows.min() >= 0 and rows.max() < len(self)):
            raise GesmError(f"rows go from {int(rows.min())} to {int(rows.max())}, allowed is 0 to {len(self) - 1}")
        time, weight = (None if c is None else c.index_select(0, rows) for c in (self.time, self.weight))
        user, item = self.user.index_select(0, rows), self.item.index_select(0, rows)
        return replace(self, user=user, item=item, time=time, weight=weight)

    def compact(self) -> Interactions:
        """The table without the users and items that have no row, the others numbered anew in the same order."""
        users, user = torch.unique(self.user, return_inverse=True)
        items, item = torch.unique(self.item, return_inverse=True)
        ids = self.user_ids[users.numpy()], self.item_ids[items.numpy()]
        return Interactions(user, item, self.time, self.weight, len(users), len(items), *ids, self.name)

    def extended(self, more: Interactions) -> Interactions:
        """The rows of both tables, users and items of this one keeping their numbers and new ones following.

        Ids are matched by `user_ids` and `item_ids`; rows are sorted by time, those of this table first among equals.

        Raises:
            GesmError: ids of another kind, or times or weights in only one table.
        """
        for key in ("time", "weight"):
            if (getattr(self, key) is None) != (getattr(more, key) is None):
                raise GesmError(f"only one of the tables has {key}; give both or neither")
        user, user_ids = _follow(self.user_ids, more.user_ids, more.user, "user")
        item, item_ids = _follow(self.item_ids, more.item_ids, more.item, "item")
        time, weight = (
            None if first is None else torch.cat([first, second])
            for first, second in ((self.time, more.time), (self.weight, more.weight))
        )
        user, item = torch.cat([self.user, user]), torch.cat([self.item, item])
        sizes = len(user_ids), len(item_ids)
        return Interactions(user, item, time, weight, *sizes, user_ids, item_ids, self.name)._sorted()

    def without(self, known: Interactions) -> Interactions:
        """The rows whose user, item and time no row of `known` has; all of them if a table has no times to tell them by.

        Users and items keep their numbers and are matched by their ids.

        Raises:
            GesmError: ids of another kind.
        """
        if self.time is None or known.time is None:
            return self
        user, _ = _follow(known.user_ids, self.user_ids, self.user, "user")
        item, items = _follow(known.item_ids, self.item_ids, self.item, "item")
        pair = torch.cat([known.user * len(items) + known.item, user * len(items) + item]).unique(return_inverse=True)[1]
        times, time = torch.cat([known.time, self.time]).unique(return_inverse=True)
        old, new = (pair * len(times) + time).split([len(known), len(self)])
        return self.select(~torch.isin(new, old))

    def pairs(self) -> Pairs:
        """The unique pairs with first time, number of rows and summed weight."""
        key, inverse, count = torch.unique(self.user * self.num_items + self.item, return_inverse=True, return_counts=True)
        width = max(self.num_items, 1)
        time = weight = None
        if self.time is not None:
            time = torch.empty_like(key).scatter_reduce_(0, inverse, self.time, "amin", include_self=False)
        if self.weight is not None:
            weight = torch.zeros(key.numel(), dtype=torch.float64).index_add_(0, inverse, self.weight.double()).float()
        return Pairs(key // width, key % width, time, count, weight)

    def graph(self, weight: str | None = None) -> Graph:
        """The bipartite graph: users are nodes 0 to U - 1, items U to U + I - 1, each unique pair an edge both ways.

        Args:
            weight: None for edges without weight, "count" for the number of rows of the pair.
        """
        if weight not in (None, "count"):
            raise GesmError(f"weight must be None or 'count', got {weight!r}")
        pairs = self.pairs()
        user, item = pairs.user, pairs.item + self.num_users
        edge_index = torch.stack([torch.cat([user, item]), torch.cat([item, user])])
        edge_weight = None if weight is None else pairs.count.float().repeat(2)
        return Graph(edge_index, edge_weight, self.num_users + self.num_items, validate=False)

    def matrix(self) -> sp.csr_array:
        """The unique pairs as ones in a float32 CSR matrix [U, I], columns sorted."""
        pairs = self.pairs()
        rowptr = np.zeros(self.num_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(pairs.user.numpy(), minlength=self.num_users), out=rowptr[1:])
        ones = np.ones(pairs.item.numel(), dtype=np.float32)
        return sp.csr_array((ones, pairs.item.numpy(), rowptr), shape=(self.num_users, self.num_items))


def _day(time: Tensor) -> str:
    """The day of a time in seconds; a number below a year, which counts steps rather than seconds, as it is."""
    seconds = int(time)
    return str(np.datetime64(seconds, "s"))[:10] if 365 * 86400 < seconds < 10**11 else str(seconds)


def _follow(old: np.ndarray, new: np.ndarray, codes: Tensor, what: str) -> tuple[Tensor, np.ndarray]:
    """Number `codes` of `new` ids among the `old` ones, unknown ids behind them."""
    text = [ids.dtype.kind == "U" for ids in (old, new)]
    if text[0] != text[1]:
        raise GesmError(f"{what} ids are {old.dtype} in this table but {new.dtype} in the other; use one type")
    if not len(old) or not len(new):
        return codes + len(old), np.concatenate([old, new])
    place = _columns.position(old, new)
    unknown = place < 0
    place[unknown] = len(old) + np.arange(unknown.sum())
    return torch.from_numpy(place)[codes], np.concatenate([old, new[unknown]])
