"""An MLP on mixed features: propagation first, then the classifier."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.graph import Graph, check_normalization
from gesm.nn import SparseLinear
from gesm.nn.linear import check_width, multiply
from gesm.nn.step_mixture import check_step_weight
from gesm.ops import dropout_linear, spmm
from gesm.ops._checks import accumulation_dtype

__all__ = ["MixedMLP"]


class MixedMLP(nn.Module):
    r"""A two-layer MLP on the mean of the steps 0 ... K of the features.

    .. math::
        \mathbf{Y} = \mathrm{relu}\Big( \frac{1}{K + 1} \sum_{k=0}^{K} \mathbf{P}^k \mathbf{X} \mathbf{W}_1 \Big) \mathbf{W}_2
        + \mathbf{b}

    The model of the `GRAND paper <https://arxiv.org/abs/2005.11079>`_ without its dropping of nodes; with
    :class:`gesm.nn.HopSampling` the number of steps is the random augmentation that :class:`gesm.nn.HopConsistency`
    needs. It is computed as a walk of :math:`\mathbf{X} \mathbf{W}_1`, of hidden_channels columns.

    Args:
        in_channels: Size of each input sample, or :obj:`-1`.
        hidden_channels: Width between the two maps.
        out_channels: Number of classes or labels.
        K: Number of steps.
        input_dropout: Dropout probability of X.
        dropout: Dropout probability of the hidden representation.
        normalization: Of P, "col", "row" or "sym".

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, dense or torch.sparse CSR, the adjacency, and
          `step_weight` as in :class:`gesm.nn.StepMixture` *(optional)*
        - **output:** logits :math:`(|\mathcal{V}|, F_{out})`; with :obj:`return_embedding=True` also
          :math:`\mathbf{Z} = \mathbf{X} \mathbf{W}_1`, what :class:`gesm.nn.StructureLoss` takes
    """

    linear_mixture = False

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        K: int = 8,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        normalization: str = "sym",
    ):
        super().__init__()
        for name, p in (("input_dropout", input_dropout), ("dropout", dropout)):
            if not 0 <= p < 1:
                raise GesmError(f"{name} must be in [0, 1), got {p}")
        if K < 0:
            raise GesmError(f"K must be at least 0, got {K}")
        check_normalization(normalization)
        self.K, self.input_dropout, self.dropout, self.normalization = K, input_dropout, dropout, normalization
        self.lin1 = SparseLinear(in_channels, hidden_channels, bias=False, weight_initializer="glorot")
        self.lin2 = Linear(hidden_channels, out_channels, weight_initializer="glorot")

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        self.lin1.reset_parameters()
        self.lin2.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        *,
        return_embedding: bool = False,
        step_weight: Tensor | None = None,
    ) -> Any:
        """Logits; see the class for shapes."""
        check_width(self.lin1, x)
        z = multiply(x, self.lin1.weight, self.input_dropout if self.training else 0.0)
        w = z.new_ones(self.K + 1) if step_weight is None else step_weight
        check_step_weight(w, self.K, x.size(0))
        dtype = accumulation_dtype(z.dtype)
        walk = as_graph(edge_index, edge_weight, x.size(0)).transition(self.normalization, dtype=dtype)
        h = F.relu(_weighted_steps(walk, z, w.to(z) / (self.K + 1)))
        flat = dropout_linear(h.flatten(0, -2), self.lin2.weight, self.dropout, self.training)
        out = flat.unflatten(0, h.shape[:-1]) + self.lin2.bias
        return (out, z) if return_embedding else out


def _weighted_steps(walk: Graph, z: Tensor, w: Tensor) -> Tensor:
    """sum over k of w_k P^k z, w [..., J + 1] as `step_weight`; several sums share the walk."""
    steps = [z]
    for _ in range(w.size(-1) - 1):
        steps.append(spmm(walk, steps[-1]))
    if w.dim() > 1 and w.size(-2) > 1:
        return torch.einsum("...nk,knc->...nc", w, torch.stack(steps))
    out = (w.view(-1, w.size(-1)) @ torch.stack(steps).flatten(1)).unflatten(1, z.shape)
    return out if w.dim() == 3 else out[0]
