"""Consistency of predictions over random depths, as a training loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gesm.errors import GesmError

__all__ = ["HopConsistency"]


class HopConsistency(nn.Module):
    r"""Cross-entropy of several draws of depth on labelled nodes, and the agreement of these draws on all nodes.

    .. math::
        \frac{1}{S} \sum_s \Big( \mathrm{CE}(\mathbf{P}_s, \mathbf{y})
        + \frac{\lambda}{N} \sum_i \lVert \mathbf{p}_{s,i} - \mathbf{\hat{p}}_i \rVert^2 \Big), \quad
        \hat{p}_{ic} \propto \left( \frac{\bar{p}_{ic}}{m_c^a} \right)^{1/T}, \quad
        \mathbf{\bar{p}}_i = \frac{1}{S} \sum_s \mathbf{p}_{s,i}, \quad
        \mathbf{m} = \frac{1}{N} \sum_i \mathbf{\bar{p}}_i

    with S predictions :math:`\mathbf{P}_s` from :meth:`gesm.nn.HopSampling.sample`; no gradient flows into
    :math:`\mathbf{\hat{p}}`, which sums to one over the classes. With a = 0 the loss is that of the `"Graph Random Neural
    Network for Semi-Supervised Learning on Graphs" <https://arxiv.org/abs/2005.11079>`_ paper, whose draws are of dropped nodes
    instead of depths. With few labels nodes can come to agree on one class; a > 0 makes a class that many nodes are taken for
    less likely, distribution alignment as in the `"ReMixMatch" <https://arxiv.org/abs/1911.09785>`_ paper, but towards classes
    of equal size. For several labels a node each label is a distribution over yes and no, and labels are averaged; alignment
    then holds each label to half of the nodes.

    Args:
        weight (float, optional): :math:`\lambda`. (default: :obj:`1.0`)
        temperature (float, optional): T, in (0, 1]; the lower, the sharper. (default: :obj:`0.5`)
        alignment (float, optional): a, in [0, 1]. (default: :obj:`0.0`)

    Shapes:
        - **input:** logits :math:`(S, |\mathcal{V}|, C)`; labels of the nodes in **index**, classes :math:`(n)` of integers or
          0/1 :math:`(n, C)` of floating point; **index**, a boolean mask :math:`(|\mathcal{V}|)` or :math:`(n)` node indices
        - **output:** a scalar
    """

    def __init__(self, weight: float = 1.0, temperature: float = 0.5, alignment: float = 0.0):
        super().__init__()
        if not weight >= 0:
            raise GesmError(f"weight must be at least 0, got {weight}")
        if not 0 < temperature <= 1:
            raise GesmError(f"temperature must be in (0, 1], got {temperature}")
        if not 0 <= alignment <= 1:
            raise GesmError(f"alignment must be in [0, 1], got {alignment}")
        self.weight, self.temperature, self.alignment = weight, temperature, alignment

    def forward(self, logits: Tensor, y: Tensor, index: Tensor) -> Tensor:
        """The loss; see the class for shapes."""
        if logits.dim() != 3:
            raise GesmError(
                f"logits must have shape [draws, nodes, classes], got {list(logits.shape)}; HopSampling.sample makes them"
            )
        if index.dtype == torch.bool and index.shape != logits.shape[1:2]:
            raise GesmError(f"a mask must have shape [{logits.size(1)}], one entry a node, got {list(index.shape)}")
        labelled = logits.index_select(1, index.nonzero().view(-1) if index.dtype == torch.bool else index)
        several = y.dim() == 2
        if not several and (y.is_floating_point() or y.is_complex()):
            raise GesmError(f"y must hold classes as integers, or 0/1 in [n, C]; got {y.dtype} {list(y.shape)}")
        if y.size(0) != labelled.size(1) or (several and y.size(1) != logits.size(2)):
            raise GesmError(
                f"y must hold the labels of the {labelled.size(1)} nodes in index, [{labelled.size(1)}] or "
                f"[{labelled.size(1)}, {logits.size(2)}]; got {list(y.shape)}"
            )
        if several:
            loss = F.binary_cross_entropy_with_logits(labelled, y.to(labelled.dtype).expand_as(labelled))
        else:
            loss = F.cross_entropy(labelled.flatten(0, 1), y.long().repeat(len(logits)))
        return loss + self.weight * self._disagreement(logits, several) if self.weight else loss

    def _disagreement(self, logits: Tensor, several: bool) -> Tensor:
        p = torch.stack([logits, -logits], -1).sigmoid() if several else logits.softmax(-1)
        mean = p.detach().mean(0).clamp(min=torch.finfo(p.dtype).tiny)
        target = mean.log() - self.alignment * mean.mean(0).log() if self.alignment else mean.log()
        sharp = (target / self.temperature).softmax(-1)  # the formula, where a power would underflow
        return (p - sharp).square().sum(-1).mean()

    def extra_repr(self) -> str:
        """The settings, for repr."""
        return f"weight={self.weight}, temperature={self.temperature}, alignment={self.alignment}"
