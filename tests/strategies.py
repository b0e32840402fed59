"""Hypothesis graphs, dense oracles and the comparison that the operator and layer tests share."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from gesm import Graph


@st.composite
def graphs(draw, weighted=None, max_nodes=12, max_edges=40, bipartite=False, dtype=torch.float64):
    """Any legal graph: empty, isolated nodes, multi-edges, self-loops, directed, weighted, int32 or int64."""
    num_dst = draw(st.integers(0, max_nodes))
    num_src = draw(st.integers(0, max_nodes)) if bipartite else num_dst
    count = draw(st.integers(0, max_edges)) if num_src and num_dst else 0
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    index_dtype = draw(st.sampled_from([torch.int32, torch.int64]))
    edges = torch.stack(
        [torch.randint(max(n, 1), (count,), generator=generator, dtype=index_dtype) for n in (num_src, num_dst)]
    )
    weighted = draw(st.booleans()) if weighted is None else weighted
    weight = torch.rand(count, generator=generator, dtype=dtype) + 0.1 if weighted else None
    return Graph(edges, weight, (num_src, num_dst))


def dense(graph: Graph, dtype=torch.float64) -> Tensor:
    """The adjacency [N_dst, N_src] as a dense matrix, multi-edges summed."""
    out = torch.zeros(graph.num_dst, graph.num_src, dtype=dtype)
    weight = torch.ones(graph.num_edges, dtype=dtype) if graph.weight is None else graph.weight.to(dtype)
    return out.index_put_((graph.target.long(), graph.col.long()), weight, accumulate=True)


def dense_transition(graph: Graph, normalization="col") -> Tensor:
    """(A + I) D^-1 and its variants, from the dense adjacency with its diagonal replaced by ones."""
    a = dense(graph)
    a.fill_diagonal_(1.0)
    if normalization == "col":
        return a / a.sum(0, keepdim=True)
    if normalization == "row":
        return a / a.sum(1, keepdim=True)
    scale = a.sum(1).rsqrt()
    return scale[:, None] * a * scale[None, :]


def assert_matches(actual: Tensor, expected: Tensor, rtol=1e-10, atol=1e-12):
    """Close point by point and in relative root mean square."""
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)
    assert (actual - expected).norm() <= rtol * expected.norm() + atol


STEP_WEIGHTS = st.sampled_from(["one", "node", "draws", "draws-node"])


def step_weight(kind, nodes):
    """Factors of the steps 0, 1, 2 in one of the forms of `step_weight`."""
    shape = {"one": (), "node": (nodes,), "draws": (2, 1), "draws-node": (2, nodes)}[kind]
    return torch.rand(*shape, 3, dtype=torch.float64)


def star(nodes):
    """Edges [2, 2 (nodes - 1)] between node 0 and all others, both ways."""
    leaves = torch.arange(1, nodes)
    return torch.cat([torch.stack([leaves, leaves * 0]), torch.stack([leaves * 0, leaves])], 1)
