"""A recipe: everything about a training run but the data and the seed, read from a checked YAML file."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gesm.errors import GesmError

__all__ = ["MODELS", "RECIPES", "Recipe"]

RECIPES = Path(__file__).parent / "recipes"
_SHARED = ("hidden_channels", "K", "input_dropout", "dropout", "normalization", "num_layers")
_STACK = ("hidden_channels", "num_layers", "dropout")
MODELS = {
    "gesm": ("GESM", (*_SHARED, "heads", "attention_dropout", "score", "residual", "layer_norm")),
    "gsm": ("GSM", (*_SHARED, "classifier", "layer_norm")),
    "mixed_mlp": ("MixedMLP", (*_SHARED[:-1], "batch_norm")),
    "sgc": ("SGC", ("K", "dropout")),
    "appnp": ("APPNP", ("hidden_channels", "K", "alpha", "dropout")),
    "gcn": ("GCN", (*_STACK, "batch_norm")),
    "gat": ("GAT", (*_STACK, "heads", "skip_connections")),
    "gcnii": ("GCNII", (*_STACK, "alpha", "theta")),
    "mixhop": ("MixHop", _STACK),
    "mlp": ("MLP", _STACK),
}
"""Name -> class in :mod:`gesm.models`, or a peer in :mod:`gesm.models.peers`, and the recipe fields its constructor takes."""

_EMBEDDING = ("gesm", "gsm", "mixed_mlp")  # models that return Z, which the structure loss takes


def _number(default: float | None, low: float, high: float = math.inf, closed: str = "[)") -> Any:
    return field(default=default, metadata={"low": low, "high": high, "closed": closed})


def _choice(default: Any, *allowed: Any) -> Any:
    return field(default=default, metadata={"allowed": allowed})


@dataclass(frozen=True)
class Recipe:
    """Model and optimisation settings of one training run; every value is checked, whatever the source.

    K, num_layers and normalization are by default those of the model's constructor.

    Args:
        model: Name of the model, a key of :data:`MODELS`.
        hidden_channels: Width of one head.
        heads: Attention heads.
        K: Random-walk steps of the mixture.
        input_dropout: Rate on x, with ``batch_norm: both`` on the mixed features.
        dropout: Rate on the input of the mixture and of the maps behind it.
        attention_dropout: Rate on the attention weights.
        score: Attention score.
        normalization: Of the transition matrix.
        alpha: Weight of the first layer's output in every step (APPNP, GCNII).
        theta: Strength of GCNII's maps.
        batch_norm: Normalise ``hidden`` layers in batches (GCN, MixedMLP), with ``both`` the mixed features too (MixedMLP).
        classifier: What gives the logits of GSM, its mixture or a linear map behind it.
        layer_norm: Normalise each node's hidden channels, between the layers of a stack (GESM), before every elu (GSM).
        residual: Add each node's own projection to what its attention gathers.
        num_layers: Stacked layers.
        skip_connections: Each layer adds a linear map of its input (GAT; ``residual`` is GESM's).
        feature_normalization: ``row`` divides each row of x by its L1 norm.
        sparse_features: Hold x as torch.sparse CSR; ``auto`` does so below 15 % non-zeros.
        lr: Adam's learning rate.
        lr_schedule: ``cosine`` lowers it to 0 over ``epochs``: lr (1 + cos(pi e / epochs)) / 2 in epoch e = 0, 1, ...
        weight_decay: L2 on the weights (not the biases), coupled as in Adam.
        input_weight_decay: That of the map which reads x, in GCNII also of the last map; by default ``weight_decay``.
        epochs: Upper limit.
        patience: Epochs without improvement after which training stops.
        selection: ``accuracy_and_loss`` keeps the last epoch whose validation metric and loss are both at least as
            good as any before, and is patient while either improves (GAT's rule); ``accuracy`` keeps the best
            validation metric, ties by the lower loss.
        structure_weight: Weight of :class:`gesm.nn.StructureLoss`; 0 switches it off.
        structure_beta: Its balance between linked and random pairs.
        structure_ratio: Share of the edges it samples each step.
        hop_sampling: Distribution of the depth drawn in training by :class:`gesm.nn.HopSampling`; ``none`` takes all K steps.
        hop_per: One depth for all nodes, or one for each.
        hop_inference: How evaluation reads such a model.
        consistency_draws: Draws of depth behind one step, whose loss then is :class:`gesm.nn.HopConsistency`; 1: no such loss.
        consistency_weight: Weight of their agreement.
        consistency_temperature: Its sharpening.
        consistency_alignment: How much it holds classes to equal size, from 0 to 1, against agreement on one class.
        consistency_warmup: Epochs over which that weight grows from 0.
        graphs_per_step: Training graphs behind one optimiser step.
        eval_every: Epochs between evaluations.
        accelerate: ``cuda_graph`` captures the training step and launches it as one, ``compile`` sends model and loss
            through ``torch.compile``; both for one training graph of fixed depth.

    Raises:
        GesmError: On an unknown model, a wrong type or a value out of range.
    """

    model: str = _choice("gesm", *MODELS)
    hidden_channels: int = _number(64, 1)
    heads: int = _number(8, 1)
    K: int | None = _number(None, 0)
    input_dropout: float = _number(0.0, 0, 1)
    dropout: float = _number(0.0, 0, 1)
    attention_dropout: float = _number(0.0, 0, 1)
    score: str = _choice("product", "product", "additive")
    normalization: str | None = _choice(None, "col", "row", "sym")
    batch_norm: str = _choice("none", "none", "hidden", "both")
    classifier: str = _choice("mixture", "mixture", "linear")
    layer_norm: bool = _choice(False, True, False)
    residual: bool = _choice(True, True, False)
    alpha: float = _number(0.1, 0, 1, closed="[]")
    theta: float = _number(0.5, 0, closed="()")
    num_layers: int | None = _number(None, 1)
    skip_connections: bool = _choice(False, True, False)
    feature_normalization: str = _choice("none", "none", "row")
    sparse_features: str | bool = _choice("auto", "auto", True, False)
    lr: float = _number(0.003, 0, closed="()")
    lr_schedule: str = _choice("constant", "constant", "cosine")
    weight_decay: float = _number(0.0, 0)
    input_weight_decay: float | None = _number(None, 0)
    epochs: int = _number(300, 1)
    patience: int = _number(100, 1)
    selection: str = _choice("accuracy_and_loss", "accuracy_and_loss", "accuracy")
    structure_weight: float = _number(0.0, 0)
    structure_beta: float = _number(1.0, 0, 1, closed="[]")
    structure_ratio: float = _number(0.05, 0, 1, closed="(]")
    hop_sampling: str = _choice("none", "none", "uniform", "geometric")
    hop_per: str = _choice("forward", "forward", "node")
    hop_inference: str = _choice("full", "full", "expected")
    consistency_draws: int = _number(1, 1)
    consistency_weight: float = _number(1.0, 0)
    consistency_temperature: float = _number(0.5, 0, 1, closed="(]")
    consistency_alignment: float = _number(0.0, 0, 1, closed="[]")
    consistency_warmup: int = _number(0, 0)
    graphs_per_step: int = _number(1, 1)
    eval_every: int = _number(1, 1)
    accelerate: str = _choice("none", "none", "cuda_graph", "compile")

    def __post_init__(self):
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _checked(f, getattr(self, f.name)))
        parameters = inspect.signature(model_class(MODELS[self.model][0])).parameters
        for key in ("K", "num_layers", "normalization"):
            if getattr(self, key) is None and key in parameters:
                object.__setattr__(self, key, parameters[key].default)
        if self.eval_every > self.patience:
            raise GesmError(f"eval_every ({self.eval_every}) must not exceed patience ({self.patience})")
        if self.structure_weight and self.model not in _EMBEDDING:
            raise GesmError(
                f"structure_weight={self.structure_weight:g} needs a model with an embedding, one of {', '.join(_EMBEDDING)}; "
                f"{self.model} has none"
            )
        if self.batch_norm == "both" and self.model != "mixed_mlp":
            raise GesmError(
                f"batch_norm=both needs mixed_mlp, whose features are mixed; for {self.model} set it to hidden or none"
            )
        if self.consistency_draws > 1 and self.hop_sampling == "none":
            raise GesmError(
                f"consistency_draws={self.consistency_draws} needs random depths; set hop_sampling to uniform or geometric"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """Checks ``values`` and names ``source`` in every complaint."""
        if not isinstance(values, Mapping):
            raise GesmError(f"{source}: expected `key: value` lines, got {type(values).__name__}")
        model = values.get("model", cls.model)
        allowed = [f.name for f in dataclasses.fields(cls)]
        if model in list(MODELS):
            allowed = [name for name in allowed if name not in _foreign(model)]
        for key in values:
            if key not in allowed:
                close = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.55)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise GesmError(f"{source}: {model} has no key {key!r}{hint}; allowed keys: {', '.join(allowed)}")
        try:
            return cls(**values)
        except GesmError as error:
            raise GesmError(f"{source}: {error}") from None

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Reads a YAML file."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise GesmError(f"cannot read recipe {str(path)!r}: {error.strerror}; pass an existing YAML file") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise GesmError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None
        return cls.from_dict({} if values is None else values, str(path))

    @classmethod
    def for_dataset(cls, dataset: str, model: str = "gesm", name: str | None = None, protocol: str | None = None) -> Recipe:
        """Reads the shipped recipe ``recipes/<dataset>/<name or model>.yaml``.

        If one was made for the protocol, a slash in its name written as a hyphen, that is
        ``recipes/<dataset>/<protocol>/<name or model>.yaml``.
        """
        folder, slug, name = RECIPES / dataset.lower(), (protocol or "").replace("/", "-"), name or model
        for path in (folder / slug / f"{name}.yaml", folder / f"{name}.yaml"):
            if path.is_file():
                return cls.load(path)
        shipped = sorted({p.stem for place in (folder, folder / slug) for p in place.glob("*.yaml")})
        if not shipped:
            raise GesmError(f"no recipe is shipped for {dataset!r}; pass the path of a YAML file")
        raise GesmError(
            f"no recipe {name!r}; recipes of {dataset}: {', '.join(shipped)}. Pass one of these or a YAML file's path"
        )

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed, checked as a file is."""
        kept = self.to_dict()
        if changes.get("model", self.model) != self.model and changes["model"] in list(MODELS):
            kept = {key: value for key, value in kept.items() if key not in _foreign(changes["model"])}
        return self.from_dict({**kept, **changes})

    def to_dict(self) -> dict[str, Any]:
        """The fields that mean something to this model."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in _foreign(self.model)}

    def to_yaml(self) -> str:
        """YAML that :meth:`load` reads back to an equal recipe."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def build_model(self, in_channels: int, out_channels: int):
        """A freshly initialised model, drawn from torch's default generator."""
        from gesm.nn import HopSampling

        options = {key: getattr(self, key) for key in MODELS[self.model][1]}
        model = model_class(MODELS[self.model][0])(in_channels=in_channels, out_channels=out_channels, **options)
        if self.hop_sampling == "none":
            return model
        return HopSampling(model, distribution=self.hop_sampling, per=self.hop_per, inference=self.hop_inference)


def model_class(name: str) -> Any:
    """gesm's model, or the peer, of that name."""
    import gesm.models
    from gesm.models import peers

    return getattr(peers, name, None) or getattr(gesm.models, name)


def _foreign(model: str) -> set[str]:
    """The keys of other models that this one does not take."""
    return {key for _, keys in MODELS.values() for key in keys} - set(MODELS[model][1])


def _checked(f: dataclasses.Field, value: Any) -> Any:
    if value is None and f.default is None:
        return None
    if "allowed" in f.metadata:
        allowed = f.metadata["allowed"]
        if not any(type(value) is type(a) and value == a for a in allowed):
            raise GesmError(f"{f.name} must be one of {', '.join(map(str, allowed))}, got {value!r}")
        return value
    low, high, closed = (f.metadata[key] for key in ("low", "high", "closed"))
    kind = int if f.type.startswith("int") else float
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and type(value) is int:
        value = float(value)
    above = type(value) is kind and (value >= low if closed[0] == "[" else value > low)
    below = type(value) is kind and (value <= high if closed[1] == "]" else value < high)
    if not (above and below):
        noun = "an integer" if kind is int else "a number"
        raise GesmError(f"{f.name} must be {noun} in {closed[0]}{low:g}, {high:g}{closed[1]}, got {value!r}")
    return value
