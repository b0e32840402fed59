"""GSM: the step mixture without attention."""

import itertools
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from gesm.errors import GesmError
from gesm.nn import SparseLinear, StepMixture
from gesm.nn.linear import check_width, multiply
from gesm.ops import dropout_linear

__all__ = ["GSM"]


class GSM(nn.Module):
    r"""The base model of the `"Graphs, Entities, and Step Mixture" <https://arxiv.org/abs/2005.08485>`_ paper.

    .. math::
        \mathbf{Y} = \sum_{k=0}^{K} \mathbf{P}^k \mathbf{H} \mathbf{B}_k + \mathbf{b},
        \quad \mathbf{H} = \mathrm{elu}(\mathbf{X} \mathbf{W})

    Args:
        in_channels: Size of each input sample, or :obj:`-1`.
        hidden_channels: Width of H.
        out_channels: Number of classes or labels.
        K: Number of steps.
        dropout: Dropout probability of H.
        normalization: Of P, "col", "row" or "sym".
        num_layers: Number of maps :math:`\mathrm{elu}(\cdot\, \mathbf{W})` before the mixture (the published PPI run has two).
        input_dropout: Dropout probability of X.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, dense or torch.sparse CSR, the adjacency, and
          `step_weight` as in :class:`gesm.nn.StepMixture` *(optional)*
        - **output:** logits :math:`(|\mathcal{V}|, F_{out})`; with :obj:`return_embedding=True` also
          :math:`\mathbf{Z} = \mathbf{X} \mathbf{W}`, what :class:`gesm.nn.StructureLoss` takes
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        K: int = 14,
        dropout: float = 0.0,
        normalization: str = "col",
        num_layers: int = 1,
        input_dropout: float = 0.0,
    ):
        super().__init__()
        if num_layers < 1:
            raise GesmError(f"num_layers must be at least 1, got {num_layers}")
        if not 0 <= input_dropout < 1:
            raise GesmError(f"input_dropout must be in [0, 1), got {input_dropout}")
        self.dropout, self.input_dropout = dropout, input_dropout
        widths = [in_channels, *[hidden_channels] * num_layers]
        self.lins = nn.ModuleList(
            SparseLinear(inputs, outputs, bias=False, weight_initializer="glorot")
            for inputs, outputs in itertools.pairwise(widths)
        )
        self.mixture = StepMixture(hidden_channels, out_channels, K, dropout=dropout, normalization=normalization)

    @property
    def K(self) -> int:
        """Number of steps."""
        return self.mixture.K

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        for lin in self.lins:
            lin.reset_parameters()
        self.mixture.reset_parameters()

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
        first, *rest = self.lins
        check_width(first, x)
        z = multiply(x, first.weight, self.input_dropout if self.training else 0.0)
        h = F.elu(z)
        for lin in rest:
            h = F.elu(dropout_linear(h, lin.weight.t(), self.dropout, self.training))
        out = self.mixture(h, edge_index, edge_weight, step_weight=step_weight)
        return (out, z) if return_embedding else out
