"""Training of recommenders: a fixed number of passes over the pairs, full-batch or in mini-batches."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.recommend.interactions import Interactions
from gesm.recommend.losses import bpr_loss, log_partition, pair_scores, softmax_against
from gesm.recommend.models import LightGCN, Popularity
from gesm.recommend.sampling import NegativeSampler
from gesm.recommend.settings import Settings

__all__ = ["fit", "refit"]


def fit(
    model: LightGCN | Popularity,
    train: Interactions,
    settings: Settings,
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Trains a model on the unique pairs of a table, each once an epoch.

    Args:
        model: With the users and items of the table; `settings.build_model(train.num_users, train.num_items)`, or one that
            goes on from where it is.
        train: The pairs, and the graph that they are propagated over.
        settings: Loss, optimiser, epochs and seed; what it says about the model is not read.
        on_epoch: Called after each epoch with its number, from 1, and its loss.

    Returns:
        The mean loss of each epoch; none for popularity.

    Raises:
        GesmError: If the model has other users and items than the table, the table no rows, or the loss is not finite.

    Batches and negatives come from one generator, depths and edges left out from another, both seeded by `settings.seed`:
    equal calls give equal bits, and models of different depths see the same batches.
    """
    if (model.num_users, model.num_items) != (train.num_users, train.num_items):
        raise GesmError(
            f"{model!r} was made for other users and items than {train} has; build one for it, or let the model grow "
            "(model.grow, refit)"
        )
    if not len(train):
        raise GesmError(f"there is nothing to train on: {train}")
    if isinstance(model, Popularity):
        model.fit(train, settings.recent)
        return []
    step = _Step(model, train, settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True)
    draws = torch.Generator().manual_seed(settings.seed)
    before, model.generator = model.generator, torch.Generator().manual_seed(settings.seed)
    losses = []
    model.train()
    try:
        for epoch in range(1, settings.epochs + 1):
            total = 0.0
            for batch in _batches(step.num_pairs, settings.batch_size, draws):
                optimizer.zero_grad()
                loss = step.loss(batch, draws)
                loss.backward()
                optimizer.step()
                total += loss.item() * (step.num_pairs if batch is None else batch.numel())
            losses.append(total / step.num_pairs)
            if not math.isfinite(losses[-1]):
                raise GesmError(f"the loss of epoch {epoch} is {losses[-1]}; use a lower lr than {settings.lr:g}")
            if on_epoch is not None:
                on_epoch(epoch, losses[-1])
    finally:
        model.generator = before
        model.eval()
    return losses


def refit(
    model: LightGCN | Popularity,
    old: Interactions,
    new: Interactions,
    settings: Settings,
    on_epoch: Callable[[int, float], None] | None = None,
) -> tuple[Interactions, list[float]]:
    """Goes on training with a new window: known users and items keep their rows, new ones get theirs.

    New rows are drawn by `settings.seed` and the new numbers of users and items: none repeats a row drawn before.

    Args:
        model: Trained on `old`.
        old: What the model was trained on.
        new: The rows that came since, with ids of the same kind.
        settings: As in :func:`fit`; a fraction of the first training's epochs is usually enough.
        on_epoch: As in :func:`fit`.

    Returns:
        The rows of both (`old.extended(new)`), on all of which the model was trained, and the losses.

    Raises:
        GesmError: As :func:`fit` and `Interactions.extended`.
    """
    both = old.extended(new)
    # The seed alone would draw again what build_model drew, for other users and items.
    (seed,) = np.random.SeedSequence([settings.seed, both.num_users, both.num_items]).generate_state(1, np.uint64)
    model.grow(both.num_users, both.num_items, torch.Generator().manual_seed(int(seed)))
    return both, fit(model, both, settings, on_epoch)


def _batches(num_pairs: int, size: int | None, generator: torch.Generator) -> Iterator[Tensor | None]:
    """Ascending indices of pairs, and so of users; None for all."""
    if size is None or size >= num_pairs:
        yield None
        return
    for batch in torch.randperm(num_pairs, generator=generator).split(size):
        yield batch.sort().values


class _Step:
    """The loss of one step, and what does not change between steps."""

    def __init__(self, model: LightGCN, train: Interactions, settings: Settings):
        self.model, self.settings, device = model, settings, model.embedding.device
        pairs = train.pairs()
        self.user, self.item = pairs.user.to(device), pairs.item.to(device)
        self.graph: Graph | None = train.graph().to(device) if model.K else None
        self.sampler = NegativeSampler(pairs.user, pairs.item, train.num_items, reject=settings.loss == "bpr")

    @property
    def num_pairs(self) -> int:
        return self.user.numel()

    def loss(self, batch: Tensor | None, generator: torch.Generator) -> Tensor:
        user, item = (self.user, self.item) if batch is None else (self.user[batch], self.item[batch])
        users, items = self.model.embed(self.graph)
        rank = self._bpr if self.settings.loss == "bpr" else self._softmax
        loss, item = rank(users, items, user, item, generator)
        if not self.settings.weight_decay:
            return loss
        # The norms of all rows, each as often as the step has it: no rows are gathered.
        size = self.model.num_users, self.model.num_items
        times = torch.cat([torch.bincount(index, minlength=n) for index, n in zip((user, item), size, strict=True)])
        embedding = self.model.embedding
        norm = torch.dot(times.to(embedding), embedding.square().sum(1))
        return loss + 0.5 * self.settings.weight_decay / user.numel() * norm

    def _bpr(self, users: Tensor, items: Tensor, user: Tensor, item: Tensor, generator: torch.Generator):
        negative = self.sampler.draw(user, self.settings.negatives or 1, generator).to(item.device)
        both = torch.cat([item.unsqueeze(1), negative], dim=1)
        scores = pair_scores(users, items, user, both)
        return bpr_loss(scores[:, 0], scores[:, 1:]), both.flatten()

    def _softmax(self, users: Tensor, items: Tensor, user: Tensor, item: Tensor, generator: torch.Generator):
        negative = self.sampler.shared(self.settings.negatives or 256, generator).to(item.device)
        temperature, shared = self.settings.temperature, items.index_select(0, negative)
        if user.numel() > users.size(0):  # more pairs than users, who have one sum each
            log_sum = log_partition(users, shared, temperature).index_select(0, user)
        else:
            log_sum = log_partition(users.index_select(0, user), shared, temperature)
        return softmax_against(pair_scores(users, items, user, item), log_sum, temperature), item
