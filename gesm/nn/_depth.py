"""How each kind of module is run at another depth than its own."""

import contextlib
import inspect
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import LightGCN, SGConv, SSGConv, TAGConv
from torch_geometric.nn.models.basic_gnn import BasicGNN

from gesm.errors import GesmError
from gesm.ops._checks import is_whole

__all__ = ["Reader", "reader"]


class Reader:
    """Runs a callable f(k, ...) at the depths `lowest` ... K; a subclass knows one kind of module."""

    lowest = 0
    shares_steps = False
    """Whether one pass yields several weighted sums of steps, by `step_weight`."""
    is_linear = False
    """Whether the output is linear in the weights of the steps."""

    def __init__(self, K: int):
        self.K = K

    def run(self, module: Any, k: int, *args: Any, **kwargs: Any) -> Any:
        """The module's output at depth k."""
        return module(k, *args, **kwargs)


_LOCK = threading.RLock()


class _Held(Reader):
    """A module that holds its depth: some of its attributes have other values while it runs at depth k < K.

    Threads take turns: each would see what another has changed.
    """

    depth = "K"
    """The attribute that is its depth."""

    def __init__(self, module: nn.Module, K: int):
        super().__init__(K)
        self.lowest = min(getattr(module, "lowest", 0), K)
        try:
            _set(module, {self.depth: K})
        except AttributeError:
            raise GesmError(
                f"{_name(module)}.{self.depth} cannot be set, so that it runs at no other depth; give it a plain attribute "
                f"{self.depth} that forward reads, or wrap a callable f(k, *args) with K=..."
            ) from None

    def changes(self, module: Any, k: int) -> dict[str, Any]:
        """These attributes."""
        return {"K": k}

    def run(self, module: Any, k: int, *args: Any, **kwargs: Any) -> Any:
        with contextlib.nullcontext() if torch.compiler.is_compiling() else _LOCK:
            _check_unchanged(module, self.depth, self.K)
            if k == self.K:
                return module(*args, **kwargs)
            changes = self.changes(module, k)
            before = {name: getattr(module, name) for name in changes}
            try:
                _set(module, changes)
                return module(*args, **kwargs)
            finally:
                _set(module, before)


def _check_unchanged(module: nn.Module, name: str, K: int) -> None:
    if (now := getattr(module, name)) != K:
        raise GesmError(f"{_name(module)} was wrapped with {name}={K}, but its {name} was set to {now}; wrap it again")


def _set(module: nn.Module, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        setattr(module, name, value)


class _TAG(_Held):
    """TAGConv, a sum over steps with a map each: truncated, it is scaled by (K + 1) / (k + 1) but for its bias."""

    def changes(self, module: TAGConv, k: int) -> dict[str, Any]:
        return {"K": k, "lins": module.lins[: k + 1]}

    def run(self, module: TAGConv, k: int, *args: Any, **kwargs: Any) -> Any:
        out, scale, bias = super().run(module, k, *args, **kwargs), (self.K + 1) / (k + 1), module.bias
        if k == self.K:
            return out
        return out * scale if bias is None else torch.lerp(bias.expand_as(out), out, scale)


class _LightGCN(_Held):
    """PyG's LightGCN: the first k layers, with weights alpha that keep their sum."""

    depth = "num_layers"

    def __init__(self, module: LightGCN):
        super().__init__(module, module.num_layers)
        sums = module.alpha.cumsum(0) > 0
        self.lowest = min(0 if sums[0] else 1, self.K)
        if not sums[self.lowest :].all():
            raise GesmError(
                f"LightGCN's alpha, {module.alpha.tolist()}, gives the first layers no weight, so that a smaller depth "
                "would be empty; hop sampling needs an alpha whose sums are positive from layer 0 or 1 on"
            )

    def changes(self, module: LightGCN, k: int) -> dict[str, Any]:
        alpha = module.alpha
        return {"num_layers": k, "alpha": alpha[: k + 1] * (alpha.sum() / alpha[: k + 1].sum())}


class _Stack(_Held):
    """A BasicGNN: its first k layers, or, where the last one makes the output, its first k - 1 and the last."""

    depth = "num_layers"

    def __init__(self, module: BasicGNN):
        super().__init__(module, module.num_layers)
        self.ends_in_layer = not hasattr(module, "lin")
        self.lowest = min(2 if self.ends_in_layer else 1, self.K)

    def changes(self, module: BasicGNN, k: int) -> dict[str, Any]:
        kept = [*range(k - 1), self.K - 1] if self.ends_in_layer else range(k)
        parts = {name: nn.ModuleList([getattr(module, name)[i] for i in kept]) for name in ("convs", "norms")}
        if getattr(module, "jk_mode", None) == "cat":
            parts["jk"] = _Padded(module.jk, self.K)
        return {"num_layers": k, **parts}


class _Padded(nn.Module):
    """Concatenated layers, zeros for those not taken, scaled by K / k."""

    def __init__(self, jk: nn.Module, K: int):
        super().__init__()
        self.jk, self.K = jk, K

    def forward(self, xs: list[Tensor]) -> Tensor:
        out = self.jk(xs) * (self.K / len(xs))
        return nn.functional.pad(out, (0, (self.K - len(xs)) * xs[0].size(-1)))


class _Mixture(Reader):
    """A module that takes `step_weight`: a sum over steps, which truncated after k is scaled by (K + 1) / (k + 1)."""

    def __init__(self, module: nn.Module):
        super().__init__(int(module.K))
        self.shares_steps = getattr(module, "single_mixture", True)
        self.is_linear = self.shares_steps and getattr(module, "linear_mixture", True)
        self.table = self.truncations(torch.arange(self.K + 1, device="cpu"))

    def mixed(self, module: Any, weight: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The module's output with these weights of its steps."""
        _check_unchanged(module, "K", self.K)
        return module(*args, step_weight=weight, **kwargs)

    def run(self, module: Any, k: int, *args: Any, **kwargs: Any) -> Any:
        _check_unchanged(module, "K", self.K)
        if torch.compiler.is_compiling():  # all K steps, so that one graph serves every depth
            return module(*args, step_weight=self.table[k], **kwargs)
        if k == self.K:
            return module(*args, **kwargs)
        return module(*args, step_weight=self.table[k, : k + 1], **kwargs)

    def truncations(self, depths: Tensor) -> Tensor:
        """Depths of any shape to the weights of their steps, [..., max depth + 1]."""
        depths = depths.unsqueeze(-1)
        steps = torch.arange(int(depths.max()) + 1 if depths.numel() else 1, device="cpu")
        return (steps <= depths) * ((self.K + 1) / (depths + 1).double())


def reader(module: Any, K: int | None) -> Reader:
    """The reader for a module, or for a callable f(k, ...) where K is given."""
    if isinstance(module, nn.Module):
        with _LOCK:  # another wrapper may run the module at another depth just now
            depth = getattr(module, "K", None)
            own = _own_reader(module, int(depth) if is_whole(depth) else None)
        if own is not None:
            if K not in (None, own.K):
                raise GesmError(f"{_name(module)} has a depth of its own, {own.K}; leave out K={K}")
            return own
    if K is not None and callable(module):
        if not is_whole(K) or K < 0:
            raise GesmError(f"K must be a whole number >= 0, the largest depth of the callable, got {K!r}")
        return Reader(int(K))
    raise GesmError(
        f"{_name(module)} has no depth that HopSampling knows. It wraps gesm's StepMixture, GESMConv, GESM and GSM; modules "
        "with an integer attribute K that forward reads (PyG's APPNP, SGConv, SSGConv, TAGConv); PyG's BasicGNN stacks (GCN, "
        "GAT, GraphSAGE, GIN, ...) and LightGCN; and, with K=..., any callable f(k, *args), such as "
        "HopSampling(lambda k, x, edge_index: model(x, edge_index, depth=k), K=8)"
    )


def _own_reader(module: nn.Module, K: int | None) -> Reader | None:
    if isinstance(module, (SGConv, SSGConv)) and module.cached:
        raise GesmError(f"{_name(module)} was made with cached=True, which keeps the features of one depth; use cached=False")
    kinds: tuple[tuple[bool, Callable[[], Reader]], ...] = (
        (isinstance(module, TAGConv), lambda: _TAG(module, K)),
        (isinstance(module, LightGCN), lambda: _LightGCN(module)),
        (isinstance(module, BasicGNN), lambda: _Stack(module)),
        (K is not None and "step_weight" in inspect.signature(module.forward).parameters, lambda: _Mixture(module)),
        (K is not None, lambda: _Held(module, K)),
    )
    return next((make() for fits, make in kinds if fits), None)


def _name(module: Any) -> str:
    return getattr(module, "__name__", None) or type(module).__name__
