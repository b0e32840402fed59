"""Checks that operators and layers make before a kernel runs."""

from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from gesm.errors import GesmError
from gesm.graph import Graph

__all__ = [
    "accumulation_dtype",
    "check_features",
    "check_graph",
    "check_operand",
    "check_probability",
    "check_real",
    "check_whole",
    "is_whole",
]


def check_graph(graph: Graph, op: str) -> None:
    """`graph` is a Graph."""
    if not isinstance(graph, Graph):
        raise GesmError(f"{op} takes a gesm.Graph first, got {type(graph).__name__}; build one with Graph.from_edge_index")


def check_operand(name: str, x: Tensor, shape: tuple[int | None, ...], graph: Graph) -> None:
    """`x` is a dense floating-point tensor of `shape` (None: any size) on the graph's device."""
    check_real(name, x)
    if x.layout is not torch.strided:
        raise GesmError(f"{name} must be dense, got {x.layout}; pass {name}.to_dense()")
    if x.dim() != len(shape) or any(want is not None and have != want for have, want in zip(x.shape, shape, strict=True)):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise GesmError(f"{name} must have shape [{wanted}] for {graph}, got {list(x.shape)}")
    if x.device != graph.device:
        raise GesmError(f"{name} is on {x.device} but the graph on {graph.device}; move one with .to(device)")


def check_features(x: Any, name: str = "x") -> None:
    """x is a floating-point [N, F], dense or torch.sparse CSR."""
    check_real(name, x)
    if x.dim() != 2:
        raise GesmError(
            f"{name} must have shape [num_nodes, in_channels], got {list(x.shape)}; static graphs are not supported"
        )
    if x.layout not in (torch.strided, torch.sparse_csr):
        raise GesmError(f"{name} must be dense or torch.sparse CSR, got {x.layout}; convert it with .to_sparse_csr()")


def check_probability(name: str, p: float) -> None:
    """0 <= p < 1."""
    if not isinstance(p, Real) or not 0 <= p < 1:
        raise GesmError(f"{name} must be in [0, 1), got {p!r}")


def is_whole(value: Any) -> bool:
    """Whether it is an integer, of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_whole(name: str, value: Any, least: int = 0) -> int:
    """A whole number >= least, as one of Python."""
    if not is_whole(value) or value < least:
        raise GesmError(f"{name} must be at least {least}, a whole number, got {value!r}")
    return int(value)


def check_real(name: str, x: Any) -> None:
    """x is a floating-point tensor."""
    if not isinstance(x, Tensor):
        raise GesmError(f"{name} must be a tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise GesmError(f"{name} must be a floating-point tensor, got {x.dtype}; use .float()")


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Half precisions are accumulated in float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
