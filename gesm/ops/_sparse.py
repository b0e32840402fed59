"""CPU building blocks: PyTorch's native kernels as plain functions of CSR matrices.

A weighted sum of rows is MKL's sparse product where PyTorch is built with MKL (its x86 wheels are), for it alone writes into
memory that is already there and adds as it goes. Elsewhere, and for wide rows on AMD's processors, it is what `embedding_bag`
computes, with generated code that fetches ahead. Sampled products are `torch.sparse.sampled_addmm`. None needs a compiler, and
each thread owns its rows, so results repeat bit by bit. They are called below autograd only: PyTorch's own gradient through
sparse values is a hundred times slower than the products.
"""

import itertools
import math
import platform
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gesm.ops._memory import empty

__all__ = ["Block", "blocks", "csr", "csr_matmul", "csr_sddmm", "segment_max", "segment_sum"]

BLOCK_ENTRIES = 2**19  # (edge, head) pairs at a time: 2 MB in float32 an array, which a second-level cache holds
CACHED_ENTRIES = 2**23  # a graph of up to this many pairs keeps its expanded indices, 12 bytes a pair and direction


def _widest_for_mkl() -> int:
    """Up to which width of a float32 x MKL's product is the fastest: on AMD's processors wider ones take it up to 2.7 times."""
    if not torch.backends.mkl.is_available():
        return -1
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            processor = file.read(200)
    except OSError:
        processor = platform.processor()  # on Windows with its vendor
    return 8 if "AuthenticAMD" in processor else 2**31


_MKL_WIDTH = _widest_for_mkl()
_SUM = 0  # mode of embedding_bag

with warnings.catch_warnings():  # the first CSR of a process announces the beta state of the layout
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int32), torch.empty(0, dtype=torch.int32), torch.empty(0), (0, 0))


# The first exp of a process, if several threads made it, was now and then off by up to 7e-5 in one thread's share (20 of 200
# forked processes with two threads); with one made by a single thread before it, never (0 of 240).
torch.ones(1, dtype=torch.float32).exp()
torch.ones(1, dtype=torch.float64).exp()


def csr(rowptr: Tensor, col: Tensor, value: Tensor, num_cols: int) -> Tensor:
    """The matrix as a torch.sparse CSR tensor; entries behind rowptr[-1] do not count."""
    size = (rowptr.numel() - 1, num_cols)
    return torch.sparse_csr_tensor(rowptr, col, value, size, check_invariants=False)


def csr_matmul(matrix: Tensor, x: Tensor, add: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """A x, [rows, width], plus `add`, written into `out` if given; A is a `csr`."""
    filled = matrix.size(0) and matrix.values().numel() and x.numel()
    if filled and not _is_for_mkl(matrix, x):
        part = _bag(matrix.crow_indices(), matrix.col_indices(), matrix.values(), x)
        part = part if add is None else part.add_(add)
        return part if out is None else out.copy_(part)
    if out is None:
        out = empty(matrix.size(0), x.size(1), like=x)
    if not filled:
        return out.zero_() if add is None else out.copy_(add)
    return torch.addmm(out if add is None else add, matrix, x, beta=0 if add is None else 1, out=out)


def _is_for_mkl(matrix: Tensor, x: Tensor) -> bool:
    wide = x.size(1) > _MKL_WIDTH and (x.dtype == torch.float32 or _MKL_WIDTH < 0)  # embedding_bag's float64 is slow
    return not wide and matrix.col_indices().dtype == torch.int32 and matrix.size(1) < 2**31


def _bag(rowptr: Tensor, col: Tensor, value: Tensor | None, x: Tensor) -> Tensor:
    """The same by embedding_bag; `value` None stands for ones."""
    entries = int(rowptr[-1])
    if entries == 0 or x.size(1) == 0:
        return x.new_zeros(rowptr.numel() - 1, x.size(1))
    value = None if value is None else value[:entries]
    return torch._embedding_bag_forward_only(x.contiguous(), col[:entries], rowptr, False, _SUM, False, value, True)[0]


def csr_sddmm(rowptr: Tensor, col: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The products a_i . b_j for the entries (i, j) of the CSR, [entries]."""
    zeros = a.new_zeros(col.numel())
    if col.numel() == 0 or a.size(1) == 0:
        return zeros
    # sampled_addmm refuses more entries than positions, all multi-edges, and more columns than MKL counts.
    if col.numel() > a.size(0) * b.size(0) or b.size(0) >= 2**31:
        row = torch.arange(a.size(0)).repeat_interleave(rowptr.diff())
        return (a.index_select(0, row) * b.index_select(0, col[: row.numel()])).sum(1)
    matrix = csr(rowptr, col, zeros, b.size(0))
    torch.sparse.sampled_addmm(matrix, a, b.t(), out=matrix)  # in place: else it copies the indices as well
    return zeros


@dataclass(eq=False)
class Block:
    """A run of rows of a CSR, and the same run with every node split into its heads.

    The expanded CSR has the node numbers `node * heads + head`, so that [N, heads, d] seen as [N * heads, d] is its dense
    operand with no copy. Edge values are [entries, heads]; `order` takes them to the order of the expanded CSR.
    """

    rows: slice
    entries: slice
    row: Tensor  # [entries], row of each entry within the block
    rowptr: Tensor
    position: Tensor  # [entries], of each entry within the block
    heads_rowptr: Tensor
    heads_col: Tensor
    order: Tensor

    @cached_property
    def inverse(self) -> Tensor:
        """What takes the order of the expanded CSR back."""
        inverse = torch.empty_like(self.order)
        inverse[self.order] = torch.arange(inverse.numel(), dtype=inverse.dtype)
        return inverse

    @cached_property
    def loops(self) -> Tensor | None:
        """[rows * heads], place of a self-loop of each row of the expanded CSR, if each has one."""
        num_rows = self.heads_rowptr.numel() - 1
        first = self.rows.start * (num_rows // max(self.rows.stop - self.rows.start, 1))
        row = torch.arange(num_rows).repeat_interleave(self.heads_rowptr.diff())
        place = (row + first == self.heads_col).nonzero().view(-1)
        found = torch.full((num_rows,), -1).index_put_((row[place],), place)
        return None if (found < 0).any() else found

    def head_rows(self, heads: int) -> slice:
        """The rows of the block in the expanded CSR."""
        return slice(self.rows.start * heads, self.rows.stop * heads)

    def matrix(self, value: Tensor, num_cols: int) -> Tensor:
        """The expanded CSR, with edge values [entries, heads]."""
        wide = value.view(-1).index_select(0, self.order)
        return csr(self.heads_rowptr, self.heads_col, wide, num_cols * value.size(1))

    def from_heads(self, value: Tensor, heads: int) -> Tensor:
        """The order of the expanded CSR to [entries, heads]."""
        return value.index_select(0, self.inverse).view(-1, heads)


def segment_sum(block: Block, value: Tensor) -> Tensor:
    """Sums of edge values [entries, width] over the rows of the block."""
    return _bag(block.rowptr, block.position, None, value)


def segment_max(block: Block, value: Tensor) -> Tensor:
    """Maxima of edge values [entries, width] over the rows of the block; 0 where a row is empty."""
    if value.numel() == 0:
        return value.new_zeros(block.rowptr.numel() - 1, value.size(1))
    ones = value.new_ones(block.position.numel())
    return torch.sparse.mm(csr(block.rowptr, block.position, ones, value.size(0)), value, "amax")


_expanded: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def blocks(rowptr: Tensor, col: Tensor, heads: int) -> Iterable[Block]:
    """The CSR in blocks of about `BLOCK_ENTRIES` (entry, head) pairs; remembered for as long as `col` lives if small."""
    if col.numel() * heads > CACHED_ENTRIES:
        return _make_blocks(rowptr, col, heads)
    cached = _expanded.setdefault(col, {})
    made_from, made = cached.get(heads, (None, None))
    if made_from is not rowptr:
        made = list(_make_blocks(rowptr, col, heads))
        cached[heads] = (rowptr, made)
    return made


def _make_blocks(rowptr: Tensor, col: Tensor, heads: int) -> Iterator[Block]:
    num_rows = rowptr.numel() - 1
    step = max(BLOCK_ENTRIES // heads, 1)
    num_blocks = max(math.ceil(int(rowptr[-1]) / step), 1)
    marks = torch.arange(1, num_blocks, dtype=rowptr.dtype) * step
    bounds = sorted({0, num_rows, *torch.searchsorted(rowptr, marks).tolist()})
    for start, stop in itertools.pairwise(bounds):
        yield _make_block(rowptr, col, heads, start, stop)


def _make_block(rowptr: Tensor, col: Tensor, heads: int, start: int, stop: int) -> Block:
    first, last = int(rowptr[start]), int(rowptr[stop])
    rowptr, col = rowptr[start : stop + 1] - first, col[first:last]
    degree = rowptr.diff()
    row = torch.arange(stop - start, dtype=col.dtype).repeat_interleave(degree, output_size=last - first)
    position, head = torch.arange(last - first, dtype=col.dtype), torch.arange(heads, dtype=col.dtype)
    # Entry e of row i, the t-th of it, and head h stand at rowptr[i] * heads + h * degree[i] + t of the expanded CSR.
    begin = rowptr.index_select(0, row) * (heads - 1)
    inverse = (begin + position).unsqueeze(1) + degree.index_select(0, row).unsqueeze(1) * head
    order = torch.empty(inverse.numel(), dtype=col.dtype)
    order[inverse.view(-1)] = torch.arange(inverse.numel(), dtype=col.dtype)
    if col.numel() and (int(col.max()) + 1) * heads >= 2**31:  # a graph with int32 indices has fewer nodes, not node-heads
        col = col.long()
    heads_col = (col.unsqueeze(1) * heads + head).view(-1).index_select(0, order)
    heads_rowptr = torch.zeros(degree.numel() * heads + 1, dtype=col.dtype)
    heads_rowptr[1:] = degree.repeat_interleave(heads).cumsum(0)
    rows, entries = slice(start, stop), slice(first, last)
    return Block(rows, entries, row, rowptr, position, heads_rowptr, heads_col, order)
