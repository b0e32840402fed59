"""Recommenders: LightGCN, its step-mixture form, matrix factorisation, popularity."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.nn import HopSampling
from gesm.recommend.interactions import Interactions
from gesm.recommend.propagation import EmbeddingPropagation

__all__ = ["LightGCN", "MatrixFactorization", "Popularity", "StepMixtureRecommender", "scorer"]


class LightGCN(nn.Module):
    r"""`LightGCN <https://arxiv.org/abs/2002.02126>`_: learned embeddings of users and items, propagated over their graph.

    A user's score for an item is the product of their rows in
    :math:`\sum_{j=0}^{K} \frac{1}{K + 1} \mathbf{P}^j \mathbf{E}` (:class:`EmbeddingPropagation`).

    Args:
        num_users: U.
        num_items: I.
        embedding_dim: d.
        K: number of steps, >= 0; 0 is matrix factorisation.
        hops: None trains at depth K; a distribution that :class:`gesm.nn.HopSampling` takes, such as "uniform", or a dict of
            its options (`distribution`, `per`) draws the depth at random in training.
        inference: how evaluation reads the model: "full", "expected" (over `hops`, or uniform over 1 ... K) or a depth; it may
            be set at any time, also for a model trained at depth K.
        edge_dropout: as in :class:`EmbeddingPropagation`.

    Attributes:
        embedding: parameter [U + I, d], the users first, drawn from a normal distribution of deviation 0.1.

    Raises:
        GesmError: for an argument out of range.
    """

    alpha = "uniform"

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        K: int = 3,
        *,
        hops: Any = None,
        inference: str | int = "full",
        edge_dropout: float = 0.0,
    ):
        super().__init__()
        for name, value, low in (("num_users", num_users, 0), ("num_items", num_items, 0), ("embedding_dim", embedding_dim, 1)):
            if not isinstance(value, int) or value < low:
                raise GesmError(f"{name} must be an int of at least {low}, got {value!r}")
        if K == 0 and hops is not None:
            raise GesmError(f"hops={hops!r} needs steps to choose from, but K is 0; use K >= 1 or hops=None")
        if K == 0 and edge_dropout:
            raise GesmError(f"edge_dropout={edge_dropout!r} needs steps over edges, but K is 0; use K >= 1 or edge_dropout=0")
        self.num_users, self.num_items, self.embedding_dim, self.K = num_users, num_items, embedding_dim, K
        self.hops = hops
        self.embedding = nn.Parameter(torch.empty(num_users + num_items, embedding_dim))
        propagation = EmbeddingPropagation(K, self.alpha, edge_dropout)
        options = dict(hops) if isinstance(hops, Mapping) else {"distribution": "uniform" if hops is None else hops}
        self.propagation = HopSampling(propagation, **options) if K else propagation
        self.inference = inference
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the embeddings anew; weights of the steps become uniform."""
        nn.init.normal_(self.embedding, std=0.1)
        self.propagation.reset_parameters()

    @property
    def inference(self) -> str | int:
        """How evaluation reads the model."""
        return self.propagation.inference if self.K else "full"

    @inference.setter
    def inference(self, reading: str | int) -> None:
        if self.K:
            self.propagation.inference = reading
        elif reading not in ("full", "expected", 0):
            raise GesmError(f"a model with K = 0 is read at 'full', got {reading!r}")

    @property
    def generator(self) -> torch.Generator | None:
        """Generator of the draws in training (depths, edges left out), None for PyTorch's own."""
        return self.propagation.generator

    @generator.setter
    def generator(self, generator: torch.Generator | None) -> None:
        self.propagation.generator = generator
        if self.K:
            self.propagation.module.generator = generator

    def forward(self, graph: Graph | None) -> tuple[Tensor, Tensor]:
        """The same as :meth:`embed`."""
        return self.embed(graph)

    def embed(self, graph: Graph | None) -> tuple[Tensor, Tensor]:
        """Embeddings of the users [U, d] and items [I, d].

        Args:
            graph: `Interactions.graph()` of the training pairs; not used if K = 0.

        Raises:
            GesmError: if the graph has another number of nodes, or is not symmetric.
        """
        x = self.embedding
        if self.K:
            if not isinstance(graph, Graph) or graph.num_nodes != x.size(0):
                raise GesmError(
                    f"{self!r} needs the graph of its {self.num_users} users and {self.num_items} items, "
                    f"Interactions.graph(), got {graph}; grow(num_users, num_items) makes room for new ones"
                )
            fixed = self.training and self.hops is None
            x = (self.propagation.module if fixed else self.propagation)(x, graph)
        users, items = x.split([self.num_users, self.num_items])  # unlike slices, one pass backward
        return users, items

    def grow(self, num_users: int, num_items: int, generator: torch.Generator | None = None) -> None:
        """Makes room for new users and items behind the old ones, which keep their embeddings; new ones are drawn afresh.

        The parameter is another one afterwards: make the optimiser after it.

        Raises:
            GesmError: if one of the numbers is smaller than before.
        """
        for name, now, wanted in (("users", self.num_users, num_users), ("items", self.num_items, num_items)):
            if wanted < now:
                raise GesmError(f"the model has {now} {name} and cannot shrink to {wanted}; select rows of the table instead")
        old_users, old_items = self.embedding.detach().split([self.num_users, self.num_items])
        fresh = torch.empty(num_users + num_items - len(old_users) - len(old_items), self.embedding_dim)
        fresh = fresh.normal_(std=0.1, generator=generator).to(self.embedding)
        users, items = fresh.split([num_users - len(old_users), num_items - len(old_items)])
        self.embedding = nn.Parameter(torch.cat([old_users, users, old_items, items]))
        self.num_users, self.num_items = num_users, num_items

    def __repr__(self) -> str:
        hops = "" if self.hops is None else f", hops={self.hops!r}"
        return f"{type(self).__name__}({self.num_users}, {self.num_items}, {self.embedding_dim}, K={self.K}{hops})"


class StepMixtureRecommender(LightGCN):
    """LightGCN with learned weights of the steps, positive and of sum one; arguments and attributes are LightGCN's.

    The sum is one at depth K. At a depth k < K, drawn by `hops` or read by `inference`, the first k + 1 weights are multiplied
    with (K + 1) / (k + 1) whatever they are, and their sum is another one unless they are uniform.
    """

    alpha = "softmax"


class MatrixFactorization(LightGCN):
    """LightGCN of no steps: a user's score for an item is the product of their embeddings.

    Args:
        num_users: U.
        num_items: I.
        embedding_dim: d.
    """

    def __init__(self, num_users: int, num_items: int, embedding_dim: int = 64):
        super().__init__(num_users, num_items, embedding_dim, K=0)


class Popularity(nn.Module):
    """Scores every item by the number of users that took it, alike for all; nothing is learned but these counts.

    Args:
        num_users: U.
        num_items: I.

    Attributes:
        count: buffer [I].
    """

    def __init__(self, num_users: int, num_items: int):
        super().__init__()
        self.num_users, self.num_items = num_users, num_items
        self.register_buffer("count", torch.zeros(num_items))

    def fit(self, train: Interactions, recent: int | None = None) -> None:
        """Counts the unique pairs; `recent` counts those alone that occur in so much time before the last row.

        Args:
            train: with the users and items of the model.
            recent: in the units of `train.time` (seconds), >= 0; None for all.

        Raises:
            GesmError: if `recent` is negative, or the table has no times for it.
        """
        if recent is not None:
            if recent < 0 or train.time is None:
                raise GesmError(f"recent={recent} must be >= 0 and needs a table with times, got {train}")
            train = train.select(train.time >= train.time.max() - recent) if len(train) else train
        self.grow(train.num_users, train.num_items)
        self.count = torch.bincount(train.pairs().item, minlength=self.num_items).to(self.count)

    def embed(self, graph: Graph | None = None) -> tuple[Tensor, Tensor]:
        """Ones [U, 1] and the counts [I, 1], whose product is the score; the graph is not used."""
        return self.count.new_ones(self.num_users, 1), self.count.unsqueeze(1)

    def grow(self, num_users: int, num_items: int, generator: torch.Generator | None = None) -> None:
        """Makes room for new users, and items of count zero.

        Raises:
            GesmError: if one of the numbers is smaller than before.
        """
        if num_users < self.num_users or num_items < self.num_items:
            raise GesmError(f"{self!r} cannot shrink to {num_users} users and {num_items} items")
        self.count = torch.cat([self.count, self.count.new_zeros(num_items - self.num_items)])
        self.num_users, self.num_items = num_users, num_items

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_users}, {self.num_items})"


def scorer(model: LightGCN | Popularity, graph: Graph | None) -> Callable[[Tensor], Tensor]:
    """The model in evaluation as a function from users [B] to their scores for all items [B, I].

    It embeds once: what becomes of the model later, in training say, does not change the scores.
    """
    training = model.training
    try:
        with torch.no_grad():
            users, items = (rows.clone() for rows in model.eval().embed(graph))  # which may be views of the parameter
    finally:
        model.train(training)
    return lambda index: users[torch.as_tensor(index, device=users.device)] @ items.t()
