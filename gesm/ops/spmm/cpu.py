"""spmm and its weight gradient on the CPU, multi-head by expanded blocks."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gesm.ops._sparse import blocks, csr_matmul, csr_sddmm, place

__all__ = ["sddmm", "spmm"]

NEAR_BYTES = 2**22  # what two cores keep near
STRIP_ROWS = 1024  # of a far operand, multiplied together: 2 MB at width 512


def spmm(rowptr: Tensor, col: Tensor, value: Tensor, x: Tensor) -> Tensor:
    """[N_src, width] to [N_dst, width]; value [E], or [E, heads] with width = heads * d."""
    x = x.contiguous()
    if value.dim() == 1:
        width = x.size(1) * x.element_size()
        many_far_rows = x.size(0) * width > 4 * NEAR_BYTES and (rowptr.numel() - 1) * width < NEAR_BYTES
        return _spmm_by_strips(rowptr, col, value, x) if many_far_rows else csr_matmul(rowptr, col, value, x)
    heads, (num_src, width) = value.size(1), x.shape
    x = x.view(num_src * heads, width // heads)
    out, num_rows = x.new_empty(0, x.size(1)), (rowptr.numel() - 1) * heads
    for block in blocks(rowptr, col, heads):
        part = csr_matmul(block.heads_rowptr, block.heads_col, block.to_heads(value[block.entries].contiguous()), x)
        out = place(out, block.head_rows(heads), part, num_rows)
    return out.view(rowptr.numel() - 1, width)


def _spmm_by_strips(rowptr: Tensor, col: Tensor, value: Tensor, x: Tensor) -> Tensor:
    """The product for a long x and a short result: strips of x one after the other, each read while it is near.

    The gradient of W in X W is such a product, X^T dZ: on PubMed 2.3 times faster than row by row of X^T, where each row
    gathers from all of dZ.
    """
    if col not in _strips:
        _strips[col] = list(_make_strips(rowptr, col, x.size(0)))
    out = x.new_zeros(rowptr.numel() - 1, x.size(1))
    for start, strip_rowptr, strip_col, order in _strips[col]:
        out += csr_matmul(strip_rowptr, strip_col, value.index_select(0, order), x[start : start + STRIP_ROWS])
    return out


_strips: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _make_strips(rowptr: Tensor, col: Tensor, num_cols: int) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Strips of STRIP_ROWS columns: the first of them, a CSR numbered from it, and where its values are."""
    num_rows, col = rowptr.numel() - 1, col[: int(rowptr[-1])]
    row = torch.arange(num_rows).repeat_interleave(rowptr.diff())
    strip = col.long() // STRIP_ROWS
    order = (strip * num_rows + row).argsort(stable=True)
    num_strips = -(-num_cols // STRIP_ROWS)
    counts = torch.bincount(strip * num_rows + row, minlength=num_strips * num_rows).view(num_strips, num_rows)
    for i, (count, part) in enumerate(zip(counts, order.split(counts.sum(1).tolist()), strict=True)):
        if part.numel():
            strip_rowptr = torch.nn.functional.pad(count.cumsum(0), (1, 0)).to(col.dtype)
            yield i * STRIP_ROWS, strip_rowptr, col[part] - i * STRIP_ROWS, part.to(col.dtype)


def sddmm(rowptr: Tensor, col: Tensor, a: Tensor, b: Tensor, heads: int) -> Tensor:
    """a_i . b_j for every entry (i, j), head by head; a [N_dst, heads * d], b [N_src, heads * d], result [E, heads]."""
    d = a.size(1) // heads
    a, b = a.contiguous().view(a.size(0) * heads, d), b.contiguous().view(b.size(0) * heads, d)
    out = a.new_zeros(col.numel(), heads)
    for block in blocks(rowptr, col, heads):
        part = csr_sddmm(block.heads_rowptr, block.heads_col, a[block.head_rows(heads)], b)
        out[block.entries] = block.from_heads(part, heads)
    return out


torch.library.impl("gesm::spmm", "CPU", torch.no_grad()(spmm))
torch.library.impl("gesm::sddmm", "CPU", torch.no_grad()(sddmm))
