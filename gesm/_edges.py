"""Edges as they are passed: checked, and sorted into CSR with its transpose."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from gesm.errors import GesmError

__all__ = ["LOOPS", "check_bounds", "check_edges", "check_weight", "expand_pointer", "sort_edges", "sort_edges_op"]

LOOPS = {"none": 0, "replace": 1, "keep": 2, "derived": 3}  # derived: none, for edges of which some are displaced


def sort_edges(edge_index: Tensor, num_src: int, num_dst: int, loops: int) -> list[Tensor]:
    """CSR by target, its transpose and the permutations between them.

    The result has a static size (E, or E + N with self-loops), so that it can be traced: edges that self-loops displace are
    sorted behind `rowptr[-1]` and point to a target N that does not exist.
    """
    src, dst = edge_index
    dropped = None
    if loops == LOOPS["derived"]:
        dropped = dst == num_dst
    elif loops:
        loop = src == dst
        gone = dst == num_dst  # displaced before, in a traced graph
        nodes = torch.arange(num_dst, device=src.device, dtype=src.dtype)
        if loops == LOOPS["replace"]:
            dropped = torch.cat([loop | gone, loop.new_zeros(num_dst)])
        else:
            has_loop = loop.new_zeros(num_dst).index_fill(0, src[loop].long(), True)
            dropped = torch.cat([gone, has_loop])
        src, dst = torch.cat([src, nodes]), torch.cat([dst, nodes])
    dst_key = dst if dropped is None else dst.masked_fill(dropped, num_dst)
    src_key = src if dropped is None else src.masked_fill(dropped, num_src)

    dtype = torch.int32 if max(src.numel(), num_src, num_dst) < 2**31 - 1 else torch.int64
    # Sparse features are such a graph too, of a million edges and more, but in order: they shall not cost 64-bit copies.
    same_row = dst_key[1:] == dst_key[:-1]
    if bool(((dst_key[1:] > dst_key[:-1]) | (same_row & (src_key[1:] >= src_key[:-1]))).all()):
        perm = torch.arange(src.numel(), device=src.device, dtype=dtype)
        col, target, src_key = src.to(dtype, copy=True), dst_key.to(dtype, copy=True), src_key.to(dtype)
    else:
        perm = (dst_key.long() * (num_src + 1)).add_(src_key).argsort(stable=True).to(dtype)
        col, target, src_key = src.to(dtype)[perm], dst_key.to(dtype)[perm], src_key.to(dtype)[perm]
    rows = torch.searchsorted(target, torch.arange(num_dst + 1, device=src.device, dtype=dtype))
    to_csc = src_key.argsort(stable=True).to(dtype)
    cols = torch.searchsorted(src_key[to_csc], torch.arange(num_src + 1, device=src.device, dtype=dtype))
    return [rows.to(dtype), col, target, perm, cols.to(dtype), target[to_csc], to_csc]


@torch.library.custom_op("gesm::sort_edges", mutates_args=())
def sort_edges_op(edge_index: Tensor, num_src: int, num_dst: int, loops: int) -> list[Tensor]:
    """`sort_edges` as one opaque node of a traced graph; the bounds are checked when it runs, but for a Graph's own edges."""
    if not loops:
        check_bounds(edge_index, num_src, num_dst)
    return sort_edges(edge_index, num_src, num_dst, loops)


@sort_edges_op.register_fake
def _(edge_index: Tensor, num_src: int, num_dst: int, loops: int) -> list[Tensor]:
    size = edge_index.size(1) + (num_dst if loops in (LOOPS["replace"], LOOPS["keep"]) else 0)
    # Traced sizes are not compared with 2**31: indices of a traced graph are int32.
    return [edge_index.new_empty(n, dtype=torch.int32) for n in (num_dst + 1, size, size, size, num_src + 1, size, size)]


def check_bounds(edge_index: Tensor, num_src: int, num_dst: int) -> None:
    if not edge_index.numel():
        return
    low, high = edge_index.amin(1).tolist(), edge_index.amax(1).tolist()
    for name, size, lo, hi in zip(("sources", "targets"), (num_src, num_dst), low, high, strict=True):
        if lo < 0 or hi >= size:
            raise GesmError(
                f"edge_index holds {name} from {lo} to {hi}, but with {size} nodes the allowed range is 0 to {size - 1}; "
                "check the indices or pass a larger num_nodes (for layers: more rows in x)"
            )


def check_edges(edge_index: Any, num_nodes: Any) -> tuple[int, int]:
    """Shape and type of an edge_index; returns (num_src, num_dst)."""
    if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or edge_index.size(0) != 2:
        passed = tuple(edge_index.shape) if isinstance(edge_index, Tensor) else type(edge_index).__name__
        raise GesmError(
            f"edge_index must be a tensor of shape [2, num_edges], got {passed}; pass row 0 = sources, row 1 = targets"
        )
    if edge_index.dtype not in (torch.int32, torch.int64):
        raise GesmError(f"edge_index must be int32 or int64, got {edge_index.dtype}; convert it with edge_index.long()")
    if num_nodes is None and hasattr(edge_index, "sparse_size"):  # PyG's EdgeIndex may know its size
        num_nodes = edge_index.sparse_size() if None not in edge_index.sparse_size() else None
    if num_nodes is None:
        num_nodes = max(int(edge_index.max()) + 1, 0) if edge_index.numel() else 0
    size = tuple(num_nodes) if isinstance(num_nodes, (tuple, list)) else (num_nodes, num_nodes)
    if torch.compiler.is_compiling():
        return size
    if len(size) != 2 or not all(isinstance(n, Integral) and not isinstance(n, bool) and n >= 0 for n in size):
        raise GesmError(f"num_nodes must be an int >= 0 or two of them, (num_src, num_dst), got {num_nodes!r}")
    return int(size[0]), int(size[1])


def check_weight(weight: Tensor | None, num_edges: int, device: torch.device) -> Tensor | None:
    if weight is None:
        return None
    if not isinstance(weight, Tensor):
        raise GesmError(f"edge_weight must be a tensor of shape [num_edges], got {type(weight).__name__}")
    weight = weight.squeeze(-1) if weight.dim() == 2 and weight.size(1) == 1 else weight
    if weight.dim() != 1 or weight.size(0) != num_edges:
        raise GesmError(f"edge_weight must have shape [{num_edges}], one weight an edge, got {tuple(weight.shape)}")
    if weight.device != device:
        raise GesmError(f"edge_weight is on {weight.device} but the edges on {device}; move both to one device")
    if weight.is_complex():
        raise GesmError(f"edge_weight must be real, got {weight.dtype}")
    return weight if weight.is_floating_point() else weight.float()


def expand_pointer(pointer: Tensor) -> Tensor:
    return torch.arange(pointer.numel() - 1, device=pointer.device).repeat_interleave(pointer.diff())
