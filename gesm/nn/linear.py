"""A linear layer whose input may be sparse."""

import torch
from torch import Tensor
from torch_geometric.nn.dense.linear import Linear

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.ops import spmm
from gesm.ops.transpose import transpose

__all__ = ["SparseLinear", "multiply"]


class SparseLinear(Linear):
    r"""PyG's `Linear`, :math:`x W^{\top} + b`, that also takes x as a torch.sparse CSR tensor.

    The features of citation graphs are about 1 % full; the product and its gradient then cost what the non-zeros cost.
    The transpose of x is built at the first call and remembered for as long as x lives unchanged.

    Shapes:
        - **input:** :math:`(N, F_{in})`, dense or CSR
        - **output:** :math:`(N, F_{out})`
    """

    def forward(self, x: Tensor) -> Tensor:
        """x W^T + b."""
        self.check(x)
        out = multiply(x, self.maps(x))
        return out if self.bias is None else out + self.bias

    def check(self, x: Tensor) -> None:
        """The width of x is that of the layer, which a lazy one takes from x."""
        if self.in_channels < 0:
            self.initialize_parameters(None, (x,))
        if x.size(-1) != self.in_channels:
            raise GesmError(f"x has {x.size(-1)} features, but the layer was made for in_channels={self.in_channels}")
        if x.dtype != self.weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise GesmError(f"x is {x.dtype} but the layer {self.weight.dtype}; convert x, or the layer with .to({x.dtype})")

    def maps(self, x: Tensor) -> Tensor:
        """W^T, as the product with x wants it: by rows for CSR x."""
        return self.weight.t() if x.layout is torch.strided else transpose(self.weight)


def multiply(x: Tensor, maps: Tensor) -> Tensor:
    """x maps for dense or CSR x."""
    return x @ maps if x.layout is torch.strided else spmm(as_graph(x), maps)
