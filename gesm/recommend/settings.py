"""Settings of a recommender: the model, its loss and its optimisation, checked whatever their source."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from gesm.errors import GesmError
from gesm.nn.functional import hop_probabilities
from gesm.recommend.models import LightGCN, MatrixFactorization, Popularity, StepMixtureRecommender

__all__ = ["MODELS", "Settings"]

MODELS = {
    "lightgcn": LightGCN,
    "mixture": StepMixtureRecommender,
    "mf": MatrixFactorization,
    "popularity": Popularity,
}
LOSSES = ("bpr", "softmax")
_NUMBERS = {  # field: (type, least, its limit, whether the least is allowed)
    "embedding_dim": (int, 1, math.inf, True),
    "K": (int, 0, math.inf, True),
    "lr": (float, 0, math.inf, False),
    "weight_decay": (float, 0, math.inf, True),
    "batch_size": (int, 1, math.inf, True),
    "epochs": (int, 1, math.inf, True),
    "negatives": (int, 1, math.inf, True),
    "temperature": (float, 0, math.inf, False),
    "edge_dropout": (float, 0, 1, True),
    "recent": (int, 0, math.inf, True),
    "seed": (int, 0, 2**63, True),
}
_OPTIONAL = ("batch_size", "negatives", "recent")


@dataclass(frozen=True)
class Settings:
    """Everything about the training of a recommender but the data.

    Args:
        model: A key of :data:`MODELS`: lightgcn, mixture, mf (matrix factorisation) or popularity.
        embedding_dim: Width of the embeddings.
        K: Steps; mf has none, whatever is said here.
        hops: None, or a distribution of depths in training, as :class:`LightGCN` takes it.
        inference: How evaluation reads the model: "full", "expected" or a depth.
        loss: "bpr", or "softmax", sampled.
        lr: Adam's learning rate.
        weight_decay: Times half the squared norm of the embeddings in :math:`E` of each pair's user and item (and in "bpr"
            its negatives), mean over the pairs of the step.
        batch_size: Pairs a step; None for all in one.
        epochs: Passes over the pairs, a fixed budget.
        negatives: Items drawn for each pair ("bpr"; by default 1), or shared by all pairs of a step ("softmax"; by
            default 256).
        temperature: Of "softmax".
        edge_dropout: Probability of an edge to be left out in training.
        recent: Of popularity: count the last so much time alone, in units of the table.
        seed: Of everything that is random.

    Raises:
        GesmError: On a wrong type, an unknown word or a value out of range.
    """

    model: str = "lightgcn"
    embedding_dim: int = 64
    K: int = 3
    hops: Any = None
    inference: str | int = "full"
    loss: str = "bpr"
    lr: float = 0.01
    weight_decay: float = 1e-4
    batch_size: int | None = None
    epochs: int = 200
    negatives: int | None = None
    temperature: float = 1.0
    edge_dropout: float = 0.0
    recent: int | None = None
    seed: int = 0

    def __post_init__(self):
        for name, allowed in (("model", tuple(MODELS)), ("loss", LOSSES)):
            if getattr(self, name) not in allowed:
                raise GesmError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in _NUMBERS:
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        has_steps = self.model in ("lightgcn", "mixture") and self.K > 0
        if not has_steps and (self.hops is not None or self.inference != "full" or self.edge_dropout):
            raise GesmError(
                f"hops, inference and edge_dropout are for models of K >= 1 steps, but model is {self.model} with K = {self.K}"
            )
        if self.recent is not None and self.model != "popularity":
            raise GesmError(f"recent is for model popularity, but model is {self.model}")
        if has_steps:
            object.__setattr__(self, "hops", _plain(self.hops))
            given = {} if self.hops is None else {"distribution": self.hops}
            options = self.hops if isinstance(self.hops, Mapping) else given
            if unknown := set(options) - {"distribution", "per"}:
                raise GesmError(f"hops takes distribution and per, got {', '.join(sorted(map(str, unknown)))}")
            hop_probabilities(options.get("distribution", "uniform"), self.K)
            reads = self.inference in ("full", "expected") if isinstance(self.inference, str) else type(self.inference) is int
            if not reads or (type(self.inference) is int and not 0 <= self.inference <= self.K):
                raise GesmError(f"inference must be 'full', 'expected' or a depth from 0 to {self.K}, got {self.inference!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "settings") -> Settings:
        """Checks `values` and names `source` in every complaint."""
        if not isinstance(values, Mapping):
            raise GesmError(f"{source}: expected `key: value` lines, got {type(values).__name__}")
        allowed = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in allowed:
                close = difflib.get_close_matches(str(key), allowed, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise GesmError(f"{source}: no key {key!r}{hint}; allowed keys: {', '.join(allowed)}")
        try:
            return cls(**values)
        except GesmError as error:
            raise GesmError(f"{source}: {error}") from None

    @classmethod
    def load(cls, path: str | Path) -> Settings:
        """Reads what :meth:`to_yaml` wrote."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise GesmError(f"cannot read settings {str(path)!r}: {error.strerror}; pass an existing YAML file") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise GesmError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None
        return cls.from_dict({} if values is None else values, str(path))

    def replace(self, **changes: Any) -> Settings:
        """A copy with some fields changed, checked like a file."""
        return self.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """YAML that :meth:`load` reads back to equal settings.

        Raises:
            GesmError: If `hops` is a function or tensor, which has no such form.
        """
        try:
            return yaml.safe_dump(self.to_dict(), sort_keys=False)
        except yaml.YAMLError:
            raise GesmError(f"hops={self.hops!r} cannot be written to a file; give a name or a list of numbers") from None

    def build_model(self, num_users: int, num_items: int) -> LightGCN | Popularity:
        """A fresh model, drawn by `seed` alone; PyTorch's own generator is left as it was."""
        kind = MODELS[self.model]
        if kind is Popularity:
            return Popularity(num_users, num_items)
        options = {"K": self.K, "hops": self.hops, "inference": self.inference, "edge_dropout": self.edge_dropout}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            own = {} if kind is MatrixFactorization else options
            return kind(num_users, num_items, self.embedding_dim, **own)


def _plain(hops: Any) -> Any:
    """The same in the types that a YAML file can give back."""
    if isinstance(hops, Mapping):
        return {key: _plain(value) for key, value in hops.items()}
    hops = hops.tolist() if isinstance(hops, (torch.Tensor, np.ndarray, np.generic)) else hops
    if isinstance(hops, (list, tuple)):
        hops = [_plain(value) for value in hops]
        return tuple(hops) if hops and isinstance(hops[0], str) else list(hops)  # ("geometric", p), or weights
    return hops


def _number(name: str, value: Any) -> Any:
    kind, low, high, closed = _NUMBERS[name]
    if value is None and name in _OPTIONAL:
        return None
    if kind is float and type(value) in (int, str):  # YAML 1.1 reads 1e-3 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if type(value) is not kind or not ((value >= low if closed else value > low) and value < high):
        noun = "an integer" if kind is int else "a number"
        least = f"at least {low}" if closed else f"above {low}"
        most = "" if high == math.inf else f" and below {high}"
        optional = " (or None)" if name in _OPTIONAL else ""
        raise GesmError(f"{name} must be {noun} {least}{most}{optional}, got {value!r}")
    return value
