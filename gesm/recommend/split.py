"""Splits by time: rolling origins, train / validation / test, and what is to be predicted in a window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gesm.errors import GesmError
from gesm.recommend.interactions import Interactions

__all__ = ["Targets", "Window", "rolling_origins", "targets", "temporal_split"]

KINDS = ("new", "repeat", "all")


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of time to be predicted from everything before it.

    Attributes:
        train: Rows before the window.
        test: Rows of the window, users and items with the numbers of `train`.
        start: First time of the window; None if it was not cut by time.
        end: Time at which it ends, not part of it.
        q: Share of all rows that lie before it.
    """

    train: Interactions
    test: Interactions
    start: int | None = None
    end: int | None = None
    q: float | None = None

    def __post_init__(self):
        for key in ("num_users", "num_items"):
            before, after = getattr(self.train, key), getattr(self.test, key)
            if before != after:
                raise GesmError(f"train has {key} {before}, test {after}; take both from one table with select")
        for key in ("train", "test"):
            if not len(getattr(self, key)):
                raise GesmError(f"{key} has no rows; choose another q or width")


@dataclass(frozen=True, eq=False)
class Targets:
    """The unique (user, item) pairs of a window that a ranking shall find, and what no ranking can.

    Warm is a user or an item with a row in training, cold one without.

    Attributes:
        kind: "new", "repeat" or "all".
        user: int64 [P], warm, sorted.
        item: int64 [P], warm.
        users: int64 [M], the users with a target, sorted: the users a ranking is made for.
        window_users: Users with a row in the window.
        warm_users: Those of them that are warm.
        cold_users: Those that are cold.
        cold_items: Cold items with a row in the window.
        warm_user_share: Share of the window's rows with a warm user.
        warm_item_share: With a warm item.
        warm_share: With both.
    """

    kind: str
    user: Tensor
    item: Tensor
    users: Tensor
    window_users: int
    warm_users: int
    cold_users: int
    cold_items: int
    warm_user_share: float
    warm_item_share: float
    warm_share: float


def rolling_origins(
    interactions: Interactions, qs: Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), width: float = 0.1
) -> list[Window]:
    """Windows that begin at the quantiles `qs` of time and hold a share `width` of the rows; training is all before.

    Rows of equal time are all on one side of a border, so a window may hold a little more or less.

    Raises:
        GesmError: no times; q or q + width outside (0, 1]; a window or its training part without rows.
    """
    if not 0 < width < 1:
        raise GesmError(f"width must be in (0, 1), got {width}")
    wrong = [q for q in qs if not 0 < q <= 1 - width + 1e-9]
    if wrong or not len(qs):
        raise GesmError(f"qs must be in (0, {1 - width:g}] for windows of width {width:g}, got {list(qs)}")
    time = _times(interactions)
    windows = []
    for q in qs:
        start, end = _border(time, q), _border(time, q + width)
        train, test = (interactions.time < start), (interactions.time >= start) & (interactions.time < end)
        if not (train.any() and test.any()):
            raise GesmError(
                f"no rows before or in the window at q = {q:g}: too many rows share a time; use fewer, wider windows"
            )
        windows.append(Window(interactions.select(train), interactions.select(test), start, end, q))
    return windows


def temporal_split(
    interactions: Interactions, val: float = 0.1, test: float = 0.1
) -> tuple[Interactions, Interactions, Interactions]:
    """Training, validation and test rows: the last share `test` of time, the share `val` before it, and the rest.

    Rows of equal time are all in one part. A share of 0 leaves a part empty.

    Raises:
        GesmError: no times, shares below 0 or without a rest, a part without rows although it has a share.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise GesmError(f"val and test must be shares >= 0 with a sum below 1, got {val} and {test}")
    time = _times(interactions)
    first, second = _border(time, 1 - val - test), _border(time, 1 - test)
    before = interactions.time < first
    last = interactions.time >= second
    parts = tuple(interactions.select(mask) for mask in (before, ~before & ~last, last))
    for name, part, share in zip(("train", "val", "test"), parts, (1, val, test), strict=True):
        if share and not len(part):
            raise GesmError(f"{name} has no rows: too many rows share a time; choose other shares than {val} and {test}")
    return parts


def targets(window: Window, kind: str = "new") -> Targets:
    """What is to be found in a window, cold users and items counted apart.

    Args:
        window: Training and test rows.
        kind: "new" for pairs that are not in training (rank with the training items excluded), "repeat" for pairs that
            are (exclude nothing), "all" for both (exclude nothing).

    Raises:
        GesmError: another kind.
    """
    if kind not in KINDS:
        raise GesmError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    train, test = window.train, window.test
    warm_user = torch.bincount(train.user, minlength=train.num_users) > 0
    warm_item = torch.bincount(train.item, minlength=train.num_items) > 0
    user_is_warm, item_is_warm = warm_user[test.user], warm_item[test.item]
    pairs = test.pairs()
    keep = warm_user[pairs.user] & warm_item[pairs.item]
    if kind != "all":
        seen = _seen(pairs.user * train.num_items + pairs.item, train.user * train.num_items + train.item)
        keep &= seen if kind == "repeat" else ~seen
    users = test.user.unique()
    warm_users = int(warm_user[users].sum())
    return Targets(
        kind=kind,
        user=pairs.user[keep],
        item=pairs.item[keep],
        users=pairs.user[keep].unique(),
        window_users=len(users),
        warm_users=warm_users,
        cold_users=len(users) - warm_users,
        cold_items=len(test.item[~item_is_warm].unique()),
        warm_user_share=float(user_is_warm.double().mean()),
        warm_item_share=float(item_is_warm.double().mean()),
        warm_share=float((user_is_warm & item_is_warm).double().mean()),
    )


def _seen(keys: Tensor, among: Tensor) -> Tensor:
    """Which of the sorted keys occur among many others; `torch.isin` would sort these too."""
    seen = torch.zeros(len(keys), dtype=torch.bool)
    place = torch.searchsorted(keys, among).clamp_(max=len(keys) - 1)
    seen[place[keys[place] == among]] = True
    return seen


def _times(interactions: Interactions) -> Tensor:
    if interactions.time is None:
        raise GesmError(f"{interactions!r} has no times; a split by time needs them, read the table with its time column")
    if not len(interactions):
        raise GesmError(f"{interactions!r} has no rows to split")
    return interactions.time.sort().values


def _border(time: Tensor, q: float) -> int:
    """The first time at or after the quantile q of the sorted times; beyond the last row at q = 1."""
    row = math.ceil(q * (len(time) - 1) - 1e-6)
    return int(time[row]) if q < 1 - 1e-9 else int(time[-1]) + 1
