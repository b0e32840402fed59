"""spmm and its weight gradient on the CPU, multi-head by expanded blocks."""

import torch
from torch import Tensor

from gesm.ops._sparse import blocks, csr_matmul, csr_sddmm, place

__all__ = ["sddmm", "spmm"]


def spmm(rowptr: Tensor, col: Tensor, value: Tensor, x: Tensor) -> Tensor:
    """[N_src, width] to [N_dst, width]; value [E], or [E, heads] with width = heads * d."""
    x = x.contiguous()
    if value.dim() == 1:
        return csr_matmul(rowptr, col, value, x)
    heads, (num_src, width) = value.size(1), x.shape
    x = x.view(num_src * heads, width // heads)
    out, num_rows = x.new_empty(0, x.size(1)), (rowptr.numel() - 1) * heads
    for block in blocks(rowptr, col, heads):
        part = csr_matmul(block.heads_rowptr, block.heads_col, block.to_heads(value[block.entries]), x)
        out = place(out, block.head_rows(heads), part, num_rows)
    return out.view(rowptr.numel() - 1, width)


def sddmm(rowptr: Tensor, col: Tensor, a: Tensor, b: Tensor, heads: int) -> Tensor:
    """a_i . b_j for every entry (i, j), head by head; a [N_dst, heads * d], b [N_src, heads * d], result [E, heads]."""
    d = a.size(1) // heads
    a, b = a.contiguous().view(a.size(0) * heads, d), b.contiguous().view(b.size(0) * heads, d)
    out = a.new_zeros(col.numel(), heads)
    for block in blocks(rowptr, col, heads):
        part = csr_sddmm(block.heads_rowptr, block.heads_col, a[block.head_rows(heads)], b)
        out[block.entries] = block.from_heads(part, heads)
    return out


torch.library.impl("gesm::spmm", "CPU", spmm)
torch.library.impl("gesm::sddmm", "CPU", sddmm)
