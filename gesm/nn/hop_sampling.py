"""Hop sampling: the number of propagation steps is drawn at random in training."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from gesm.errors import GesmError
from gesm.nn._depth import reader
from gesm.ops._checks import check_whole, is_whole

__all__ = ["Distribution", "HopSampling", "hop_probabilities"]

Distribution = str | tuple[str, float] | Sequence[float] | Tensor | Callable[[int], Sequence[float] | Tensor]


class HopSampling(nn.Module):
    r"""Draws the number of propagation steps at random in training, after the idea of the `"Hop Sampling: A Simple
    Regularized Graph Learning for Non-Stationary Environments" <https://arxiv.org/abs/2006.14897>`_ paper.

    .. math::
        \mathbf{Y} = f_k(\mathbf{X}), \quad k \sim q \text{ in training}, \qquad
        \mathbf{Y} = f_K(\mathbf{X}) \;\text{ or }\; \sum_k q_k f_k(\mathbf{X}) \;\text{ in evaluation}

    with :math:`f_k` the module run with k steps. The paper's distribution and its inference are not public: the uniform
    :math:`q` and full depth are choices of this library. What depth k means:

    - `StepMixture`, `GESMConv`, `GESM`, `GSM`, `MixedMLP` and PyG's `TAGConv`: the terms of the steps 0 ... k, times
      (K + 1) / (k + 1), so that the sum keeps its scale; the bias is not scaled. A module of your own is treated so if its
      forward takes `step_weight` as `StepMixture` does and it has an attribute `K`; it says `linear_mixture = False` if its
      output is not linear in `step_weight`, `single_mixture = False` if it takes one mixture at a time.
    - `APPNP`, `SGConv`, `SSGConv`, and any module that has an integer attribute `K` and reads it in forward: K = k.
    - `BasicGNN` stacks (GCN, GAT, GraphSAGE, GIN, ...): the first k - 1 layers and the last, hence at least 2; with jumping
      knowledge the first k, a concatenation being padded with zeros and scaled by K / k. Under `DistributedDataParallel` layers
      that were not drawn (and the maps of a `TAGConv`) have no gradient: pass `find_unused_parameters=True`.
    - `LightGCN`: the first k layers, with weights alpha that keep their sum.
    - a callable f(k, ...): what it does with k, given the largest, K.

    Keys of the state dict are those of the wrapped module, which `module` gives back unchanged (parameters are named
    `module.*`: for `torch.func`, take the module's own). Other attributes are its own, to be set on `module`, and its methods
    run at full depth: only calls of the wrapper are sampled or read as `inference` says. Threads take turns in modules that
    hold their depth, which are all but mixtures and callables. A generator does not go together with activation
    checkpointing, which runs forward twice.

    Args:
        module (torch.nn.Module or callable): What is run; see above.
        K (int, optional): Largest depth of a callable f(k, ...). (default: that of the module)
        distribution (optional): :obj:`"uniform"` over 1 ... K; :obj:`"geometric"` or :obj:`("geometric", p)`,
            :math:`q_k \propto (1 - p)^k`, p = 0.5 by default; K + 1 weights of the depths 0 ... K; or a function from K to such
            weights. Where depth 1 does not exist the first two begin at the lowest that does. (default: :obj:`"uniform"`)
        per (str, optional): :obj:`"forward"` draws one depth for all, :obj:`"node"` one for each row of the output. What is
            not one mixture runs once for each depth drawn. In a stack of mixtures the depth of a node is its depth in every
            layer. (default: :obj:`"forward"`)
        inference (str or int, optional): In evaluation :obj:`"full"` is depth K, :obj:`"expected"` the expectation of the
            output over the depths (one pass in a linear mixture, else one pass a depth), an integer that depth.
            (default: :obj:`"full"`)
        generator (torch.Generator, optional): CPU generator of the draws. By default PyTorch's own; in a distributed run one
            that all ranks seed alike at the first draw, so that they draw alike from then on.

    Shapes:
        - **input** and **output:** those of the module

    Attributes:
        last_depth: What the last forward in training drew: an integer, or one a node; None before.

    Raises:
        GesmError: For a module without a depth, a distribution, a reading or a depth that does not fit it.

    The draw is a number of Python: `torch.compile` breaks the graph there. A module that loops over its steps is compiled once
    for each depth (set `torch._dynamo.config.recompile_limit` above K, or depths beyond it run uncompiled); a mixture is
    compiled once, and then takes all its steps, some with weight 0. Evaluation at a fixed depth compiles whole.
    """

    def __init__(
        self,
        module: Callable[..., Any],
        K: int | None = None,
        *,
        distribution: Distribution = "uniform",
        per: str = "forward",
        inference: str | int = "full",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if isinstance(module, HopSampling):
            raise GesmError("this module draws its depth already; wrap what it wraps, its attribute `module`")
        self._reader = reader(module, K)
        self.module = module
        self.K = self._reader.K
        self._probabilities = hop_probabilities(distribution, self.K, self._reader.lowest)
        self._cumulative = list(accumulate(self.probabilities.tolist()))
        depths = self.probabilities.nonzero().view(-1)
        self._depths = list(zip(depths.tolist(), self.probabilities[depths].tolist(), strict=True))
        if self._reader.is_linear:
            self._expected_weight = self.probabilities[depths] @ self._reader.truncations(depths)
        if per not in ("forward", "node"):
            raise GesmError(f"per must be 'forward' or 'node', got {per!r}")
        self.per = per
        self.inference = inference
        self.generator = generator
        self.last_depth: int | Tensor | None = None
        self._reading: str | int | None = None
        self.register_load_state_dict_pre_hook(_add_prefix)

    @property
    def probabilities(self) -> Tensor:
        """q over the depths 0 ... K, float64; another one wants another wrapper."""
        return self._probabilities

    @property
    def inference(self) -> str | int:
        """How evaluation reads the module, "full", "expected" or a depth."""
        return self._inference

    @inference.setter
    def inference(self, reading: str | int) -> None:
        self._inference = self._checked(reading)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module at a drawn depth in training, as `inference` says in evaluation."""
        if self._reading is None and self.training:
            if self.per == "node":
                return self._by_node(self._draw(_num_nodes(args, kwargs)), *args, **kwargs)
            return self._run(self._draw(), *args, **kwargs)
        reading = self.inference if self._reading is None else self._reading
        if reading == "expected":
            return self._expected(*args, **kwargs)
        return self._run(self.K if reading == "full" else reading, *args, **kwargs)

    @contextmanager
    def at(self, reading: str | int) -> Iterator["HopSampling"]:
        """Within it every call reads "full", "expected" or a depth, in training too."""
        before, self._reading = self._reading, self._checked(reading)
        try:
            yield self
        finally:
            self._reading = before

    def sample(self, draws: int, *args: Any, **kwargs: Any) -> Any:
        """Outputs at several drawn depths, stacked, [draws, ...].

        In a single mixture they share all that comes before the mixture, dropout masks included; what does not depend on the
        depth, such as an embedding, is returned once.
        """
        draws = check_whole("draws", draws, 1)
        rows = _num_nodes(args, kwargs) if self.per == "node" else None
        depths = [self._draw(rows) for _ in range(draws)]
        self.last_depth = torch.stack(depths) if rows is not None else torch.tensor(depths, device="cpu")
        if self._reader.shares_steps:
            each = self.last_depth if rows is not None else self.last_depth.view(-1, 1)
            return self._reader.mixed(self.module, self._reader.truncations(each), *args, **kwargs)
        run = self._run if rows is None else self._by_node
        return _combine(torch.stack, [run(k, *args, **kwargs) for k in depths])

    def remove(self) -> Any:
        """The wrapped module, unchanged."""
        return self.module

    def _run(self, k: int, *args: Any, **kwargs: Any) -> Any:
        return self._reader.run(self.module, k, *args, **kwargs)

    def _draw(self, rows: int | None = None) -> int | Tensor:
        """One depth, or one for each of `rows` nodes, on the CPU."""
        if torch.compiler.is_compiling():
            return _draw_outside(self, rows)
        return _draw(self, rows)

    def _by_node(self, depths: Tensor, *args: Any, **kwargs: Any) -> Any:
        if hasattr(self._reader, "truncations"):
            return self._reader.mixed(self.module, self._reader.truncations(depths), *args, **kwargs)
        out = None
        for k in depths.unique().tolist() or [self.K]:
            now = self._run(k, *args, **kwargs)
            if not isinstance(now, Tensor) or now.dim() < 1 or now.size(0) != len(depths):
                found = list(now.shape) if isinstance(now, Tensor) else type(now).__name__
                raise GesmError(f"per='node' needs an output of one row a node, [{len(depths)}, ...], got {found}")
            mine = (depths == k).to(now.device).view(-1, *[1] * (now.dim() - 1))
            out = now if out is None else torch.where(mine, now, out)
        return out

    def _expected(self, *args: Any, **kwargs: Any) -> Any:
        if self._reader.is_linear:
            return self._reader.mixed(self.module, self._expected_weight, *args, **kwargs)
        outs = [self._run(k, *args, **kwargs) for k, _ in self._depths]
        return _combine(lambda parts: sum(q * part for (_, q), part in zip(self._depths, parts, strict=True)), outs)

    def _checked(self, reading: str | int) -> str | int:
        if isinstance(reading, str) and reading in ("full", "expected"):
            return reading
        if is_whole(reading) and self._reader.lowest <= reading <= self.K:
            return int(reading)
        raise GesmError(f"read at 'full', 'expected' or a depth from {self._reader.lowest} to {self.K}, got {reading!r}")

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The state of the wrapped module, with its own keys."""
        own = self.module.state_dict if isinstance(self.module, nn.Module) else super().state_dict
        return own(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":
                raise
            return getattr(self.module, name)

    def extra_repr(self) -> str:
        """The settings, for repr."""
        return f"K={self.K}, per={self.per!r}, inference={self.inference!r}"


def _draw(hop: HopSampling, rows: int | None) -> int | Tensor:
    if hop.generator is None and _world_size() > 1:
        hop.generator = torch.Generator("cpu").manual_seed(_shared_seed())
    if rows is None:
        number = torch.rand((), dtype=torch.float64, device="cpu", generator=hop.generator).item()
        hop.last_depth = min(bisect_right(hop._cumulative, number), hop.K)
    else:
        hop.last_depth = (
            torch.empty(0, dtype=torch.long, device="cpu")
            if rows == 0
            else torch.multinomial(hop.probabilities, rows, replacement=True, generator=hop.generator)
        )
    return hop.last_depth


_draw_outside = torch.compiler.disable(_draw)  # a graph break; the decorator itself costs as much as a draw


def hop_probabilities(distribution: Distribution, K: int, lowest: int = 0) -> Tensor:
    """The probabilities of the depths 0 ... K, float64 [K + 1], that :class:`gesm.nn.HopSampling` makes of its `distribution`.

    Raises:
        GesmError: For an unknown name, weights of another number, negative or not finite, or weight below `lowest`.
    """
    name, p = distribution, 0.5
    if isinstance(name, tuple) and len(name) == 2 and name[0] == "geometric":
        name, p = name
    if isinstance(name, str) and name in ("uniform", "geometric"):
        if not isinstance(p, float) or not 0 < p < 1:
            raise GesmError(f"p of the geometric distribution must be in (0, 1), got {p!r}")
        depths = torch.arange(K + 1, dtype=torch.float64, device="cpu")
        weights = torch.ones_like(depths) if name == "uniform" else (1 - p) ** depths
        weights[: min(max(lowest, 1), K)] = 0
    else:
        weights = name(K) if callable(name) else name
        try:
            weights = torch.as_tensor(weights, dtype=torch.float64, device="cpu").clone()
        except (TypeError, ValueError, RuntimeError):
            raise GesmError(
                "distribution must be 'uniform', 'geometric', ('geometric', p), K + 1 weights of the depths 0 ... K, or a "
                f"function from K to these; got {name!r}"
            ) from None
    good = weights.shape == (K + 1,) and bool((weights.isfinite() & (weights >= 0)).all()) and weights.sum() > 0
    if not good:
        raise GesmError(f"a distribution over the depths 0 ... {K} has {K + 1} weights >= 0, not all 0; got {weights.tolist()}")
    if weights[:lowest].any():
        raise GesmError(
            f"this module has no depth below {lowest}, but the distribution gives {weights[:lowest].tolist()} to them"
        )
    return weights / weights.sum()


def _num_nodes(args: tuple, kwargs: dict[str, Any]) -> int:
    x = args[0] if args else kwargs.get("x")
    if not isinstance(x, Tensor) or x.dim() != 2 or not x.is_floating_point():
        found = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise GesmError(f"per='node' needs the node features [N, F] as first argument, got {found}; use per='forward'")
    return x.size(0)


def _combine(together: Callable[[list[Tensor]], Tensor], outs: list[Any]) -> Any:
    """Joins equal outputs, tensors or tuples of them."""
    if isinstance(outs[0], Tensor):
        return together(outs) if outs[0].is_floating_point() else outs[0]
    if isinstance(outs[0], (tuple, list)):
        return tuple(_combine(together, list(parts)) for parts in zip(*outs, strict=True))
    raise GesmError(
        f"only tensors and tuples of them can be joined over depths, but the module returned {type(outs[0]).__name__}"
    )


def _add_prefix(hop: HopSampling, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    if isinstance(hop.module, nn.Module):
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}module.{key[len(prefix) :]}"] = state_dict.pop(key)


def _world_size() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _shared_seed() -> int:
    seed = [int(torch.randint(2**62, (1,), device="cpu"))]
    torch.distributed.broadcast_object_list(seed, src=0)
    return seed[0]
