"""Items that a user did not take, drawn for the losses."""

import torch
from torch import Tensor

from gesm.errors import GesmError

__all__ = ["NegativeSampler"]

ROUNDS = 20  # after which a user is taken to have nearly everything


class NegativeSampler:
    """Draws uniformly among the items that occur in training, and again where the user has them.

    An item without a pair there is never drawn: as a negative it would be pushed away before anybody could have taken it.

    Args:
        user: [P], users of the training pairs.
        item: [P].
        num_items: I, with those that occur in no pair.
        reject: draw again what a user has, up to 20 times; without it a draw is the user's own with the probability of
            their share of these items.

    Raises:
        GesmError: if there are no items, or no pairs.
    """

    def __init__(self, user: Tensor, item: Tensor, num_items: int, reject: bool = True):
        if num_items < 1 or user.numel() != item.numel() or not user.numel():
            raise GesmError(f"negatives need items and training pairs, got {num_items} items and {user.numel()} pairs")
        self.num_items, self.reject = num_items, reject
        self.items = item.unique().cpu()
        self.taken = (user.cpu() * num_items + item.cpu()).sort().values if reject else None

    def draw(self, user: Tensor, count: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """[B, count] items, `count` for each of the users [B]."""
        item = self._any((user.numel(), count), generator)
        if not self.reject:
            return item
        flat = item.view(-1)
        open_ = torch.arange(flat.numel())
        owner = user.cpu().repeat_interleave(count)
        for _ in range(ROUNDS):
            open_ = open_[self._has(owner[open_], flat[open_])]
            if not open_.numel():
                break
            flat[open_] = self._any((open_.numel(),), generator)
        return item

    def shared(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """[count] items for all users, with replacement."""
        return self._any((count,), generator)

    def _any(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        place = torch.randint(self.items.numel(), shape, generator=generator)
        return place if self.items.numel() == self.num_items else self.items[place]

    def _has(self, user: Tensor, item: Tensor) -> Tensor:
        key = user * self.num_items + item
        place = torch.searchsorted(self.taken, key).clamp_(max=self.taken.numel() - 1)
        return self.taken[place] == key
