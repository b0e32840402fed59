"""An MLP on mixed features: propagation first, then the classifier."""

import weakref
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric.nn import BatchNorm
from torch_geometric.nn.dense.linear import Linear

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.graph import Graph, check_normalization, is_constant, version
from gesm.nn import SparseLinear
from gesm.nn.linear import before_reading, check_width, multiply
from gesm.nn.step_mixture import check_step_weight
from gesm.ops import dropout_linear, spmm
from gesm.ops._checks import accumulation_dtype, check_features, check_probability, check_whole

__all__ = ["MixedMLP"]

_remembered = WeakTensorKeyDictionary()


class MixedMLP(nn.Module):
    r"""A two-layer MLP on the mean of the steps 0 ... K of the features.

    .. math::
        \mathbf{Y} = \mathrm{relu}\Big( \frac{1}{K + 1} \sum_{k=0}^{K} \mathbf{P}^k \mathbf{X} \mathbf{W}_1 \Big) \mathbf{W}_2
        + \mathbf{b}

    The model of the `GRAND paper <https://arxiv.org/abs/2005.11079>`_ without its dropping of nodes; with
    :class:`gesm.nn.HopSampling` the number of steps is the random augmentation that :class:`gesm.nn.HopConsistency`
    needs. It is computed as a walk of :math:`\mathbf{X} \mathbf{W}_1`, of hidden_channels columns.

    With batch_norm "hidden" the hidden representation is normalised in batches after its relu, with "both" the mixed features
    too, as that paper has it for PubMed. With "both" the steps of X itself are walked; they are remembered,
    :math:`(K + 1) |\mathcal{V}| F_{in}` numbers, for as long as x lives unchanged and without a gradient (under torch.compile
    they are not).

    Args:
        in_channels: Size of each input sample, or, but for batch_norm "both", :obj:`-1`.
        hidden_channels: Width between the two maps.
        out_channels: Number of classes or labels.
        K: Number of steps.
        input_dropout: Dropout probability of X, with batch_norm "both" of the mixed features.
        dropout: Dropout probability of the hidden representation.
        normalization: Of P, "col", "row" or "sym".
        batch_norm: "none", "hidden" or "both"; the statistics of a training step are those of all rows of all draws, of a
            single row the running ones.

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
        batch_norm: str = "none",
    ):
        super().__init__()
        for name, p in (("input_dropout", input_dropout), ("dropout", dropout)):
            check_probability(name, p)
        K = check_whole("K", K)
        check_normalization(normalization)
        if batch_norm not in ("none", "hidden", "both"):
            raise GesmError(f"batch_norm must be one of 'none', 'hidden', 'both', got {batch_norm!r}")
        if batch_norm == "both" and in_channels < 1:
            raise GesmError(f"batch_norm='both' needs in_channels, the number of features, got {in_channels}")
        self.K, self.input_dropout, self.dropout, self.normalization = K, input_dropout, dropout, normalization
        self.lin1 = SparseLinear(in_channels, hidden_channels, bias=False, weight_initializer="glorot")
        self.lin2 = Linear(hidden_channels, out_channels, weight_initializer="glorot")
        self.input_norm = BatchNorm(in_channels, allow_single_element=True) if batch_norm == "both" else None
        self.norm = BatchNorm(hidden_channels, allow_single_element=True) if batch_norm != "none" else None

    def reset_parameters(self) -> None:
        """Draws all parameters anew."""
        self.lin1.reset_parameters()
        self.lin2.reset_parameters()
        for norm in filter(None, (self.input_norm, self.norm)):
            norm.reset_parameters()

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
        check_features(x)
        check_width(self.lin1, x)
        w = self.lin1.weight.new_ones(self.K + 1) if step_weight is None else step_weight
        check_step_weight(w, self.K, x.size(0))
        walk = as_graph(edge_index, edge_weight, x.size(0)).transition(self.normalization, dtype=accumulation_dtype(x.dtype))
        w, p = w.to(self.lin1.weight) / (self.K + 1), self.input_dropout if self.training else 0.0
        if self.input_norm is None:
            z = multiply(x, self.lin1.weight, p)
            h = _weighted_steps(walk, z, w.to(z))
        else:
            z = multiply(x, self.lin1.weight) if return_embedding else None
            h = self._normalized(x, walk, w, p)
        flat = F.relu(h).flatten(0, -2)
        flat = flat if self.norm is None else self.norm(flat)
        before_reading(self.lin2, flat)
        flat = dropout_linear(flat, self.lin2.weight, self.dropout, self.training)
        out = flat.unflatten(0, h.shape[:-1]) + self.lin2.bias
        return (out, z) if return_embedding else out

    def _normalized(self, x: Tensor, walk: Graph, w: Tensor, p: float) -> Tensor:
        """The mixed features normalised, dropped out and mapped, [..., N, hidden_channels]."""
        steps = _steps(x, walk, self.K)[:, : w.size(-1)]
        draws = w if w.dim() == 3 else w.reshape(1, -1, w.size(-1))
        mixed = draws.to(steps).transpose(0, 1) @ steps  # [N, draws, F]
        h = multiply(self.input_norm(mixed.flatten(0, 1)), self.lin1.weight, p)
        h = h.unflatten(0, mixed.shape[:2]).transpose(0, 1)
        return h if w.dim() == 3 else h[0]


def _steps(x: Tensor, walk: Graph, K: int) -> Tensor:
    """P^k x of k = 0 ... K, [N, K + 1, F]; of each x the last are remembered unless a gradient flows through them."""
    keep = not torch.compiler.is_compiling() and is_constant(x) and is_constant(walk.weight)
    if keep and x in _remembered:
        seen, over, steps = _remembered[x]
        if seen == version(x) and over() is walk and steps.size(1) > K:
            return steps
    with torch.inference_mode(False) if keep else nullcontext():  # what evaluation made serves the training step after it
        steps = torch.stack(_walk(walk, x.to_dense(), K), 1)
    if keep:
        _remembered[x] = (version(x), weakref.ref(walk), steps)
    return steps


def _walk(walk: Graph, z: Tensor, K: int) -> list[Tensor]:
    """z, P z, ..., P^K z."""
    steps = [z]
    for _ in range(K):
        steps.append(spmm(walk, steps[-1]))
    return steps


def _weighted_steps(walk: Graph, z: Tensor, w: Tensor) -> Tensor:
    """sum over k of w_k P^k z, w [..., J + 1] as `step_weight`; several sums share the walk."""
    steps = _walk(walk, z, w.size(-1) - 1)
    if w.dim() > 1 and w.size(-2) != 1:
        return torch.einsum("...nk,knc->...nc", w, torch.stack(steps))
    out = (w.reshape(-1, w.size(-1)) @ torch.stack(steps).flatten(1)).unflatten(1, z.shape)
    return out if w.dim() == 3 else out[0]
