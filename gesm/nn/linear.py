"""A linear layer whose input may be sparse."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.dense.linear import Linear, is_uninitialized_parameter

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.ops import dropout_linear, spmm
from gesm.ops._checks import check_real, check_whole
from gesm.ops.dropout_linear import dropout

__all__ = ["SparseLinear", "before_reading", "check_width", "multiply"]


class SparseLinear(Linear):
    r"""PyG's `Linear` as :math:`x W + b`, which also takes x as a torch.sparse CSR tensor.

    The features of citation graphs are about 1 % full; the product and its gradient then cost what the non-zeros cost.
    The transpose of x is built at the first call and remembered for as long as x lives unchanged. The weight is
    :math:`(F_{in}, F_{out})`, the transpose of PyG's: a sparse product gathers its rows.

    Shapes:
        - **input:** :math:`(N, F_{in})`, dense or CSR
        - **output:** :math:`(N, F_{out})`
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        weight_initializer: str | None = None,
        bias_initializer: str | None = None,
    ):
        in_channels = check_whole("in_channels", in_channels, -1)
        super().__init__(-1, check_whole("out_channels", out_channels, 1), bias, weight_initializer, bias_initializer)
        if in_channels > 0:
            self._materialize(in_channels)
            self.reset_parameters()

    def _materialize(self, in_channels: int) -> None:
        self.in_channels = in_channels
        self.weight.materialize((in_channels, self.out_channels))
        self._hook.remove()
        del self._hook

    @torch.no_grad()
    def initialize_parameters(self, module: Any, input: tuple[Tensor, ...]) -> None:
        """Draws the parameters of a lazy layer for the width of the first input."""
        self._materialize(input[0].size(-1))
        self.reset_parameters()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        if weight is not None and not is_uninitialized_parameter(weight) and is_uninitialized_parameter(self.weight):
            self._materialize(weight.size(0))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """x W + b."""
        _check_fit(self, x)
        out = multiply(x, self.weight)
        return out if self.bias is None else out + self.bias


def before_reading(lin: torch.nn.Module, x: Tensor) -> None:
    """Runs the hooks with which pruning and weight_norm set the weight of a map that is read, not called."""
    for key, hook in tuple(lin._forward_pre_hooks.items()):
        hook(lin, (x,), *[{}] * (key in lin._forward_pre_hooks_with_kwargs))


def check_width(lin: Linear, x: Tensor) -> None:
    """Before a map is read: its hooks, and that x has its width, which a lazy one takes from x, and its type."""
    before_reading(lin, x)
    _check_fit(lin, x)


def _check_fit(lin: Linear, x: Tensor) -> None:
    check_real("x", x)
    if lin.in_channels < 0:
        lin.initialize_parameters(lin, (x,))
    if x.size(-1) != lin.in_channels:
        raise GesmError(f"x has {x.size(-1)} features, but the layer was made for in_channels={lin.in_channels}")
    if x.dtype != lin.weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise GesmError(f"x is {x.dtype} but the layer {lin.weight.dtype}; convert x, or the layer with .to({x.dtype})")


def multiply(x: Tensor, weight: Tensor, p: float = 0.0) -> Tensor:
    """dropout_p(x) weight for dense or CSR x."""
    if x.layout is torch.strided:
        return dropout_linear(x, weight.t(), p) if p > 0 else x @ weight
    graph = as_graph(x)
    return spmm(graph, weight, dropout(graph.weight, p)) if p > 0 else spmm(graph, weight)
