"""as_graph: the Graph of any adjacency that a layer is called with, remembered between calls."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from gesm._edges import check_weight
from gesm.errors import GesmError
from gesm.graph import Graph, is_constant, version

__all__ = ["as_graph"]

_graphs: dict[Any, tuple[list[weakref.ref], tuple, Graph]] = {}


def as_graph(adj: Any, edge_weight: Tensor | None = None, num_nodes: int | tuple[int, int] | None = None) -> Graph:
    """The Graph of any adjacency a layer takes, remembered for as long as the tensors live unchanged.

    Args:
        adj: `edge_index` [2, E], PyG's `EdgeIndex`, torch.sparse CSR/CSC/COO or `SparseTensor` (the transposed adjacency),
            or a `Graph`.
        edge_weight: [E], only with an `edge_index`.
        num_nodes: N, or (N_src, N_dst).

    A second call with the same tensors returns the same Graph; an in-place change of them (PyTorch's version counter) or
    `data` from another place in memory make a new one. Changes behind PyTorch's back, through shared NumPy memory or of
    `tensor.data` in place, are not seen. Of a learned edge_weight only the sorted edges are remembered.
    """
    if isinstance(adj, Graph):
        _check_size(adj, num_nodes)
        if edge_weight is not None:
            raise GesmError("a Graph carries its own weights; pass edge_weight to Graph.from_edge_index instead")
        return adj
    if not (isinstance(adj, Tensor) and adj.layout is torch.strided):
        if not (isinstance(adj, Tensor) or (hasattr(adj, "coo") and hasattr(adj, "sizes"))):
            raise GesmError(
                f"the adjacency must be an edge_index tensor, EdgeIndex, torch.sparse tensor, SparseTensor or gesm.Graph, "
                f"got {type(adj).__name__}"
            )
        if edge_weight is not None:
            raise GesmError("a sparse adjacency carries its own weights; edge_weight goes with an edge_index only")
        if isinstance(adj, Tensor):
            return _outside(adj, num_nodes)
    return _remembered(adj, edge_weight, num_nodes)


@torch.compiler.disable
def _outside(adj: Any, num_nodes: int | tuple[int, int] | None) -> Graph:
    """Dynamo fails at what is made of a sparse tensor, in frames of its own too."""
    return _remembered(adj, None, num_nodes)


def _remembered(adj: Any, edge_weight: Tensor | None, num_nodes: int | tuple[int, int] | None) -> Graph:
    given, sizes = ((adj, edge_weight), None) if isinstance(adj, Tensor) else (adj.coo(), tuple(adj.sizes()))
    tensors = [t for t in given if t is not None]
    # A traced graph would be guarded by the identity of its tensors, and compiled anew for each.
    if torch.compiler.is_compiling() or not all(map(is_constant, tensors)):
        return _make_graph(adj, edge_weight, num_nodes)
    key, versions = (*map(id, tensors), _pair(num_nodes), sizes), [*map(version, tensors)]
    if key in _graphs:
        refs, seen, graph = _graphs[key]
        if seen == versions and all(ref() is t for ref, t in zip(refs, tensors, strict=True)):
            return graph
    with torch.inference_mode(False):  # a Graph made in evaluation serves the training step after it
        graph = _make_graph(adj, edge_weight, num_nodes)
    refs = [weakref.ref(t, lambda _: _graphs.pop(key, None)) for t in tensors]
    _graphs[key] = (refs, versions, graph)
    return graph


def _make_graph(adj: Any, edge_weight: Tensor | None, num_nodes: int | tuple[int, int] | None) -> Graph:
    if isinstance(adj, Tensor) and adj.layout is torch.strided:
        if hasattr(adj, "sparse_size") and not torch.compiler.is_compiling():
            _check_known_size(adj.sparse_size(), num_nodes)
        if edge_weight is None or torch.compiler.is_compiling():
            return Graph(adj, edge_weight, num_nodes)
        graph = as_graph(adj, None, num_nodes)  # sorted once, whatever the weights
        weight = check_weight(edge_weight, graph.num_edges, graph.device)
        return graph.with_weight(weight.index_select(0, graph.perm))
    graph = Graph.from_sparse(adj)
    _check_size(graph, num_nodes)
    return graph


def _check_known_size(known: tuple[int | None, int | None], num_nodes: int | tuple[int, int] | None) -> None:
    """What an EdgeIndex knows of its size."""
    expected = _pair(num_nodes)
    if any(None not in pair and pair[0] != pair[1] for pair in zip(known, expected, strict=True)):
        raise GesmError(
            f"the EdgeIndex has the sparse_size {tuple(known)}, but x has {expected[0]} and {expected[1]} rows; they must agree"
        )


def _check_size(graph: Graph, num_nodes: int | tuple[int, int] | None) -> None:
    if num_nodes is None or torch.compiler.is_compiling():
        return
    expected = _pair(num_nodes)
    if (graph.num_src, graph.num_dst) != expected:
        raise GesmError(
            f"the adjacency has {graph.num_src} sources and {graph.num_dst} targets, but x has {expected[0]} and {expected[1]} "
            "rows; they must agree"
        )


def _pair(num_nodes: int | tuple[int, int] | None) -> tuple[int | None, int | None]:
    """(N_src, N_dst)."""
    return tuple(num_nodes) if isinstance(num_nodes, (tuple, list)) else (num_nodes, num_nodes)
