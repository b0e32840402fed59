"""The gather-scatter form of the layers, for explainers and hooks, which read or mask single messages."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import add_self_loops, remove_self_loops

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.graph import Graph

__all__ = ["looped_edges", "message_passing_options", "needs_messages"]

_HOOKS = (
    "_propagate_forward_pre_hooks",
    "_propagate_forward_hooks",
    "_message_forward_pre_hooks",
    "_message_forward_hooks",
    "_aggregate_forward_pre_hooks",
    "_aggregate_forward_hooks",
)


def message_passing_options(options: dict[str, Any], **fixed: Any) -> dict[str, Any]:
    """Options of `MessagePassing` with those that a layer's mathematics fixes."""
    fixed = {"aggr": "add", "flow": "source_to_target", **fixed}
    for name, value in fixed.items():
        if options.get(name, value) != value:
            raise GesmError(f"{name} must be {value!r}, which the layer is defined with, got {options[name]!r}")
    return {**options, **fixed}


def needs_messages(module: MessagePassing) -> bool:
    """Whether somebody wants to see the messages: an explainer, or a hook on `propagate`, `message` or `aggregate`."""
    return bool(module.explain) or any(getattr(module, name) for name in _HOOKS)


def looped_edges(
    adj: Any,
    edge_weight: Tensor | None,
    size: tuple[int, int],
    normalization: str,
    self_loops: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The edges of A + I, given edges first and loops last as PyG's explainers expect, and their weights in P."""
    if not (isinstance(adj, Tensor) and adj.layout is torch.strided):
        graph = as_graph(adj, edge_weight, size)
        adj, edge_weight = graph.edge_index, graph.weight
    if self_loops:
        adj, edge_weight = remove_self_loops(adj, edge_weight)
        adj, edge_weight = add_self_loops(adj, edge_weight, 1.0, size[0])
    graph = Graph(adj, edge_weight, size).transition(normalization, self_loops=False, dtype=dtype)
    return adj.long(), torch.zeros_like(graph.weight).index_copy(0, graph.perm.long(), graph.weight)
