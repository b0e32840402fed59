"""The structure regulariser: neighbours should embed alike, random nodes should not."""

from typing import Any

import torch
from torch import Tensor, nn

from gesm.adjacency import as_graph
from gesm.errors import GesmError

__all__ = ["StructureLoss"]


class StructureLoss(nn.Module):
    r"""The structure regulariser of the `GESM paper <https://arxiv.org/abs/2005.08485>`_, as in its published code.

    .. math::
        \mathrm{mean}_{(i,j), n} \max\big(0,\ \beta (1 - \sigma(\mathbf{z}_i \cdot \mathbf{z}_j))
        - (1 - \beta)(1 - \sigma(\mathbf{z}_i \cdot \mathbf{z}_n))\big)

    over sampled edges (i, j) of A + I and as many random nodes n.

    Args:
        beta: weight of the edges against the random pairs, in [0, 1]; at 1, the published value, no random pair counts.
        ratio: share of the edges of A + I that is sampled, in (0, 1].
        resample: draw the pairs afresh at each call (the published code draws them once, which `False` reproduces).

    Shapes:
        - **input:** embeddings :math:`(|\mathcal{V}|, F)`, all heads side by side, and the adjacency in any form that
          :func:`gesm.as_graph` takes
        - **output:** a scalar
    """

    def __init__(self, beta: float = 1.0, ratio: float = 0.05, resample: bool = True):
        super().__init__()
        if not 0 <= beta <= 1:
            raise GesmError(f"beta must be in [0, 1], got {beta}")
        if not 0 < ratio <= 1:
            raise GesmError(f"ratio must be in (0, 1], got {ratio}")
        self.beta, self.ratio, self.resample = beta, ratio, resample

    def forward(self, z: Tensor, edge_index: Any, generator: torch.Generator | None = None) -> Tensor:
        """The loss; pairs come from `generator` (default: PyTorch's own), with replacement."""
        if z.dim() != 2:
            raise GesmError(f"z must have shape [num_nodes, channels], got {list(z.shape)}; flatten the heads")
        graph = as_graph(edge_index, None, z.size(0)).transition()
        if graph.num_edges == 0:
            return z.sum() * 0
        if not self.resample:
            generator = torch.Generator(z.device).manual_seed(0)
        count = max(round(self.ratio * graph.num_edges), 1)
        source = {} if generator is None else {"generator": generator}  # the keyword takes no traced size
        draw = torch.rand(count, device=z.device, dtype=torch.float64, **source)
        edge = (draw * graph.rowptr[-1]).long()  # not num_edges, which in a traced graph counts displaced edges too
        nodes = [graph.target.index_select(0, edge), graph.col.index_select(0, edge)]
        if self.beta < 1:
            nodes.append(torch.randint(graph.num_dst, (count,), device=z.device, dtype=edge.dtype, **source))
        # One gather for all ends: its backward fills one [N, F] gradient instead of one for each end.
        ends = z.index_select(0, torch.cat([n.long() for n in nodes])).split(count)
        loss = self.beta * torch.sigmoid(-(ends[0] * ends[1]).sum(-1))
        if self.beta < 1:
            loss = loss - (1 - self.beta) * torch.sigmoid(-(ends[0] * ends[2]).sum(-1))
        return loss.relu().mean()

    def extra_repr(self) -> str:
        """The settings, for repr."""
        return f"beta={self.beta}, ratio={self.ratio}, resample={self.resample}"
