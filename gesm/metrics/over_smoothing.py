"""How far a representation has been smoothed along the edges of a graph, and to one point."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.graph import Graph

__all__ = ["dirichlet_energy", "mean_average_distance"]

_ELEMENTS = 2**20  # of edge differences at a time: 8 MB


@torch.no_grad()
def dirichlet_energy(x: Tensor, graph: Any, relative: bool = False) -> Tensor:
    r"""Dirichlet energy on A + I, `Cai and Wang <https://arxiv.org/abs/2006.13318>`_.

    .. math::
        E(\mathbf{X}) = \tfrac{1}{2} \sum_{j \to i} w_{ij}
        \left\| \frac{\mathbf{x}_i}{\sqrt{d_i}} - \frac{\mathbf{x}_j}{\sqrt{d_j}} \right\|^2

    with :math:`d_i = \sum_j w_{ij}`, self-loop included; for undirected graphs it is
    :math:`\mathrm{tr}(\mathbf{X}^{\top} (\mathbf{I} - \mathbf{P}) \mathbf{X})`, P the "sym" transition. Each edge's difference
    is squared, so that nothing cancels where the energy is small; float64 inside.

    Args:
        x: [N, F].
        graph: Adjacency in any form that :func:`gesm.as_graph` takes, without the self-loops, which are added; weights must
            not be negative.
        relative: Divide by :math:`\|\mathbf{X}\|^2`, which takes the scale out: in [0, 2] for undirected graphs, 0 for x = 0.

    Returns:
        A float64 scalar.

    Raises:
        GesmError: On an x that is not [N, F], a bipartite graph, or negative weights.
    """
    graph = _graph_of(x, graph)
    if graph.weight is not None and (graph.weight < 0).any():
        raise GesmError("the energy needs weights that are not negative; pass their absolute values, or no weights")
    graph, x = graph.with_self_loops(), x.double()
    weight = x.new_ones(graph.num_edges) if graph.weight is None else graph.weight.double()
    degree = weight.new_zeros(graph.num_nodes).index_add(0, graph.target, weight)
    scaled = x * degree.rsqrt().unsqueeze(-1)
    energy = x.new_zeros(())
    step = max(_ELEMENTS // max(x.size(1), 1), 1)
    for w, i, j in zip(weight.split(step), graph.target.split(step), graph.col.split(step), strict=True):
        energy += w @ (scaled.index_select(0, i) - scaled.index_select(0, j)).square().sum(-1) / 2
    return energy / x.square().sum().clamp(min=torch.finfo(x.dtype).tiny) if relative else energy


@torch.no_grad()
def mean_average_distance(x: Tensor, graph: Any = None) -> Tensor:
    r"""Mean average (cosine) distance, `Chen et al. <https://arxiv.org/abs/1909.03211>`_.

    .. math::
        \mathrm{mean}_i \, \mathrm{mean}_{j \in \mathcal{T}(i)} (1 - \cos(\mathbf{x}_i, \mathbf{x}_j))

    The targets :math:`\mathcal{T}(i)` are the neighbours of i where a graph is given (self-loops and weights do not count,
    nodes without neighbours are left out): smoothing along edges. Without one they are all other nodes: a collapse to one
    direction; no pair is sampled, for :math:`\sum_j \cos(\mathbf{x}_i, \mathbf{x}_j)` is one product with the sum of the unit
    vectors. Pairs at distance 0 count, which the source leaves out. A zero row is at distance 0 from another zero row and 1
    from the rest.

    Args:
        x: [N, F].
        graph: Adjacency in any form that :func:`gesm.as_graph` takes, or `None` for all pairs.

    Returns:
        A float64 scalar in [0, 2]; 0 where there is no pair.

    Raises:
        GesmError: On an x that is not [N, F], or a bipartite graph.
    """
    graph = _graph_of(x, graph)
    x = x.double()
    x = (
        x / x.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny) if x.size(1) else x
    )  # tiny rows keep a direction
    unit = F.normalize(torch.cat([x, (x == 0).all(-1, keepdim=True).double()], dim=-1), eps=0)
    if graph is None:
        n = x.size(0)
        return (n * n - unit.sum(0).square().sum()) / (n * (n - 1)) if n > 1 else x.new_zeros(())
    other = graph.target != graph.col
    target, col = graph.target[other].long(), graph.col[other].long()
    distance = torch.cat(
        [
            1 - (unit.index_select(0, i) * unit.index_select(0, j)).sum(-1)
            for i, j in zip(*(ends.split(max(_ELEMENTS // unit.size(1), 1)) for ends in (target, col)), strict=True)
        ]
    )
    count = torch.bincount(target, minlength=x.size(0))
    mean = x.new_zeros(x.size(0)).index_add(0, target, distance) / count.clamp(min=1)
    return mean.sum() / (count > 0).sum().clamp(min=1)


def _graph_of(x: Tensor, adj: Any) -> Graph | None:
    """The checked graph of an adjacency that is not None."""
    if x.dim() != 2:
        raise GesmError(f"x must have one row a node, [N, F]; got {list(x.shape)}")
    if isinstance(adj, Graph) and adj.is_bipartite:
        raise GesmError(f"smoothness is measured on one set of nodes, got {adj}")
    return None if adj is None else as_graph(adj, None, x.size(0))
