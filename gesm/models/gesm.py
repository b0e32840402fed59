"""GESM: attention and step mixture, one layer or a stack."""

import itertools
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from gesm.errors import GesmError
from gesm.nn import GESMConv
from gesm.ops._checks import check_whole

__all__ = ["GESM"]


class GESM(nn.Module):
    r"""The model of the `"Graphs, Entities, and Step Mixture" <https://arxiv.org/abs/2005.08485>`_ paper.

    One :class:`gesm.nn.GESMConv` (as published), or a stack of `num_layers` with
    :math:`\mathbf{X}^{(l+1)} = \mathrm{elu}(\mathrm{GESMConv}(\mathbf{X}^{(l)}))` of width heads * hidden_channels between,
    with layer_norm :math:`\mathrm{elu}(\mathrm{LayerNorm}(\mathrm{GESMConv}(\mathbf{X}^{(l)})))`, each node over its channels.

    Args:
        in_channels: Size of each input sample, or :obj:`-1`.
        hidden_channels: Width of the attention, per head.
        out_channels: Number of classes or labels.
        K: Number of steps.
        heads: Number of attention heads.
        dropout: Dropout probability of the hidden representation.
        attention_dropout: Dropout probability of the attention weights.
        score: "product" or "additive".
        residual: Whether attention adds its own input.
        normalization: Of P, "col", "row" or "sym".
        num_layers: Number of layers.
        input_dropout: Dropout probability of the input of every layer.
        layer_norm: Whether to normalise the hidden layers of a stack.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, dense or torch.sparse CSR, the adjacency, and
          `step_weight` as in :class:`gesm.nn.StepMixture`, for the mixture of every layer *(optional)*
        - **output:** logits :math:`(|\mathcal{V}|, F_{out})`; with :obj:`return_embedding=True` also
          :math:`\mathbf{Z} = \mathbf{X} \mathbf{W}` of the first layer, what :class:`gesm.nn.StructureLoss` takes
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        K: int = 14,
        heads: int = 8,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        score: str = "product",
        residual: bool = True,
        normalization: str = "col",
        num_layers: int = 1,
        input_dropout: float = 0.0,
        layer_norm: bool = False,
    ):
        super().__init__()
        num_layers = check_whole("num_layers", num_layers, 1)
        widths = [in_channels, *[heads * hidden_channels] * (num_layers - 1), out_channels]
        shared = (K, heads, dropout, attention_dropout, score, residual, normalization)
        self.convs = nn.ModuleList(
            GESMConv(inputs, hidden_channels, outputs, *shared, input_dropout=input_dropout)
            for inputs, outputs in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) if layer_norm else nn.Identity() for width in widths[1:-1])

    @property
    def K(self) -> int:
        """Number of steps."""
        return self.convs[0].K

    @property
    def single_mixture(self) -> bool:
        """Whether the output is linear in `step_weight`: one layer, not a stack."""
        return len(self.convs) == 1

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        for module in (*self.convs, *self.norms):
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
        if getattr(step_weight, "ndim", 0) == 3 and not self.single_mixture:
            raise GesmError(
                f"a stack of {len(self.convs)} layers takes one mixture at a time, got step_weight {step_weight.shape}"
            )
        first, *rest = self.convs
        x, z = first(x, edge_index, edge_weight, return_embedding=True, step_weight=step_weight)
        for norm, conv in zip(self.norms, rest, strict=True):
            x = conv(F.elu(norm(x)), edge_index, edge_weight, step_weight=step_weight)
        return (x, z) if return_embedding else x
