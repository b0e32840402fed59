"""GSM: the step mixture without attention."""

import itertools
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear

from gesm.errors import GesmError
from gesm.nn import SparseLinear, StepMixture
from gesm.nn.linear import before_reading, check_width, multiply
from gesm.nn.step_mixture import of_mixture
from gesm.ops import dropout_linear
from gesm.ops._checks import check_features, check_probability, check_whole

__all__ = ["GSM"]


class GSM(nn.Module):
    r"""The base model of the `"Graphs, Entities, and Step Mixture" <https://arxiv.org/abs/2005.08485>`_ paper.

    .. math::
        \mathbf{Y} = \sum_{k=0}^{K} \mathbf{P}^k \mathbf{H} \mathbf{B}_k + \mathbf{b},
        \quad \mathbf{H} = \mathrm{elu}(\mathbf{X} \mathbf{W})

    With classifier "linear" the mixture keeps the width of H and a linear map reads it,
    :math:`\mathrm{elu}(\sum_k \mathbf{P}^k \mathbf{H} \mathbf{B}_k + \mathbf{b}) \mathbf{V} + \mathbf{c}`; with layer_norm
    every :math:`\mathrm{elu}(\cdot)` is :math:`\mathrm{elu}(\mathrm{LayerNorm}(\cdot))`, each node over its channels.

    Args:
        in_channels: Size of each input sample, or :obj:`-1`.
        hidden_channels: Width of H.
        out_channels: Number of classes or labels.
        K: Number of steps.
        dropout: Dropout probability of H, and of what other maps but the first read.
        normalization: Of P, "col", "row" or "sym".
        num_layers: Number of maps :math:`\mathrm{elu}(\cdot\, \mathbf{W})` before the mixture (the published PPI run has two).
        input_dropout: Dropout probability of X.
        classifier: What gives the logits, "mixture" (as published) or "linear".
        layer_norm: Whether to normalise before every elu.

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
        classifier: str = "mixture",
        layer_norm: bool = False,
    ):
        super().__init__()
        num_layers = check_whole("num_layers", num_layers, 1)
        check_probability("input_dropout", input_dropout)
        if classifier not in ("mixture", "linear"):
            raise GesmError(f"classifier must be one of 'mixture', 'linear', got {classifier!r}")
        self.input_dropout = input_dropout
        widths = [in_channels, *[hidden_channels] * num_layers]
        self.lins = nn.ModuleList(
            SparseLinear(inputs, outputs, bias=False, weight_initializer="glorot")
            for inputs, outputs in itertools.pairwise(widths)
        )
        read = classifier == "linear"
        self.linear_mixture = not read
        mixed = hidden_channels if read else out_channels
        self.mixture = StepMixture(hidden_channels, mixed, K, dropout=dropout, normalization=normalization)
        self.classifier = Linear(hidden_channels, out_channels, weight_initializer="glorot") if read else None
        self.norms = nn.ModuleList(
            nn.LayerNorm(hidden_channels) if layer_norm else nn.Identity() for _ in range(num_layers + read)
        )

    K = of_mixture("K", "Number of steps.")
    dropout = of_mixture("dropout", "Dropout probability of H, and of what other maps but the first read.")

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        for module in (*self.lins, self.mixture, self.classifier, *self.norms):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()

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
        check_features(x)
        check_width(first, x)
        z = multiply(x, first.weight, self.input_dropout if self.training else 0.0)
        h = F.elu(self.norms[0](z))
        for lin, norm in zip(rest, self.norms[1:], strict=False):
            before_reading(lin, h)
            h = F.elu(norm(dropout_linear(h, lin.weight.t(), self.dropout, self.training)))
        out = self.mixture(h, edge_index, edge_weight, step_weight=step_weight)
        if self.classifier is not None:
            h = F.elu(self.norms[-1](out))
            before_reading(self.classifier, h)
            flat = dropout_linear(h.flatten(0, -2), self.classifier.weight, self.dropout, self.training)
            out = flat.unflatten(0, h.shape[:-1]) + self.classifier.bias
        return (out, z) if return_embedding else out
