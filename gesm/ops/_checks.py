"""Checks that every operator makes before a kernel runs."""

import torch
from torch import Tensor

from gesm.errors import GesmError
from gesm.graph import Graph

__all__ = ["accumulation_dtype", "check_graph", "check_operand"]


def check_graph(graph: Graph, op: str) -> None:
    """`graph` is a Graph."""
    if not isinstance(graph, Graph):
        raise GesmError(f"{op} takes a gesm.Graph first, got {type(graph).__name__}; build one with Graph.from_edge_index")


def check_operand(name: str, x: Tensor, shape: tuple[int | None, ...], graph: Graph) -> None:
    """`x` is a floating-point tensor of `shape` (None: any size) on the graph's device."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise GesmError(f"{name} must be a floating-point tensor, got {getattr(x, 'dtype', type(x).__name__)}; use .float()")
    if x.dim() != len(shape) or any(want is not None and have != want for have, want in zip(x.shape, shape, strict=True)):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise GesmError(f"{name} must have shape [{wanted}] for {graph}, got {list(x.shape)}")
    if x.device != graph.device:
        raise GesmError(f"{name} is on {x.device} but the graph on {graph.device}; move one with .to(device)")


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Half precisions are accumulated in float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
