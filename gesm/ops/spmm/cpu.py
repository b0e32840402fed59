"""spmm and its weight gradient on the CPU, multi-head by expanded blocks."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gesm.ops._memory import empty
from gesm.ops._sparse import blocks, csr, csr_matmul, csr_sddmm

__all__ = ["sddmm", "spmm"]

NEAR_BYTES = 2**22  # what two cores keep near
STRIP_ROWS = 512  # of a far operand, multiplied together: 1 MB at width 512


def spmm(rowptr: Tensor, col: Tensor, value: Tensor, x: Tensor) -> Tensor:
    """[N_src, width] to [N_dst, width]; value [E], or [E, heads] with width = heads * d."""
    x = x.contiguous()
    num_rows, (num_src, width) = rowptr.numel() - 1, x.shape
    if value.dim() == 1:
        far = num_src * width * x.element_size() > NEAR_BYTES > num_rows * width * x.element_size()
        full = col.numel() >= num_rows * (num_src / STRIP_ROWS)  # a strip costs its entries and its rows
        by_strips = far and full
        return _spmm_by_strips(rowptr, col, value, x) if by_strips else csr_matmul(csr(rowptr, col, value, num_src), x)
    heads = value.size(1)
    x = x.view(num_src * heads, width // heads)
    out = empty(num_rows * heads, x.size(1), like=x)
    for block in blocks(rowptr, col, heads):
        alpha = block.matrix(value[block.entries].contiguous(), num_src)
        csr_matmul(alpha, x, out=out[block.head_rows(heads)])
    return torch.ops.aten._unsafe_view(out, (num_rows, width))  # no view for autograd, so that it may be written into


def _spmm_by_strips(rowptr: Tensor, col: Tensor, value: Tensor, x: Tensor) -> Tensor:
    """The product for a long x and a short result: strips of x one after the other, each read while it is near.

    The gradient of W in X W is such a product, X^T dZ: on PubMed 3 times faster than row by row of X^T, where each row
    gathers from all of dZ.
    """
    if col not in _strips:
        _strips[col] = list(_make_strips(rowptr, col, x.size(0)))
    out = x.new_zeros(rowptr.numel() - 1, x.size(1))
    for start, strip_rowptr, strip_col, order in _strips[col]:
        strip = x[start : start + STRIP_ROWS]
        csr_matmul(csr(strip_rowptr, strip_col, value.index_select(0, order), strip.size(0)), strip, add=out, out=out)
    return out


_strips: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _make_strips(rowptr: Tensor, col: Tensor, num_cols: int) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Strips of STRIP_ROWS columns: the first of them, a CSR numbered from it, and where its values are."""
    num_rows = rowptr.numel() - 1
    row = torch.arange(num_rows)
    key = row.repeat_interleave(rowptr.diff()).mul_(num_cols).add_(col[: int(rowptr[-1])])  # ascends, as columns in a row do
    begin = rowptr[:-1].long()
    for start in range(0, num_cols, STRIP_ROWS):
        end = torch.searchsorted(key, row * num_cols + min(start + STRIP_ROWS, num_cols))
        strip_rowptr = F.pad((end - begin).cumsum(0), (1, 0))
        if num_entries := int(strip_rowptr[-1]):
            order = torch.arange(num_entries) + (begin - strip_rowptr[:-1]).repeat_interleave(end - begin)
            yield start, strip_rowptr.to(col.dtype), col[order] - start, order.to(col.dtype)
        begin = end


def sddmm(rowptr: Tensor, col: Tensor, a: Tensor, b: Tensor, heads: int) -> Tensor:
    """a_i . b_j for every entry (i, j), head by head; a [N_dst, heads * d], b [N_src, heads * d], result [E, heads]."""
    d = a.size(1) // heads
    a, b = a.contiguous().view(a.size(0) * heads, d), b.contiguous().view(b.size(0) * heads, d)
    out = a.new_zeros(col.numel(), heads)
    for block in blocks(rowptr, col, heads):
        part = csr_sddmm(block.heads_rowptr, block.heads_col, a[block.head_rows(heads)], b)
        out[block.entries] = block.from_heads(part, heads)
    return out
