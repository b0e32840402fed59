"""The rows of a CSR as a list of pieces of work, none much longer than another, for programs on a GPU."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gesm.errors import GesmError

__all__ = ["Items", "items"]

SHORTEST, LONGEST = 256, 2048  # bounds of the length from which on a row is split


@dataclass(eq=False)
class Items:
    """Runs of edges `start ... end - 1` of a `row`, the longest first, so that neighbours in the list are of a length.

    A row that was split writes what its pieces yield into `slot` of a buffer, from which the slots
    `split_start[s] ... split_start[s + 1] - 1` are then put together in `split_row[s]`, always in that order. A row in one
    piece has the slot -1.
    """

    row: Tensor
    start: Tensor
    end: Tensor
    slot: Tensor
    split_row: Tensor
    split_start: Tensor
    num_slots: int

    @property
    def num_items(self) -> int:
        """How many runs there are."""
        return self.row.numel()


_made: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def items(rowptr: Tensor) -> Items:
    """The list for a CSR, remembered for as long as `rowptr` lives; making it waits for the device, using it does not."""
    cached = _made.setdefault(rowptr, {})
    bounds = (SHORTEST, LONGEST)
    if bounds not in cached:
        if rowptr.is_cuda and torch.cuda.is_current_stream_capturing():
            raise GesmError("this graph is new to a CUDA graph under capture, which cannot wait for it; run one step before")
        cached[bounds] = _make(rowptr.long(), *bounds)
    return cached[bounds]


def _make(rowptr: Tensor, shortest: int, longest: int) -> Items:
    num_rows, device = rowptr.numel() - 1, rowptr.device
    mean = int(rowptr[-1]) // max(num_rows, 1)
    chunk = min(max(8 * mean, shortest), longest)
    count = ((rowptr.diff() + chunk - 1) // chunk).clamp_(min=1)
    row = torch.arange(num_rows, device=device).repeat_interleave(count)
    nth = torch.arange(row.numel(), device=device) - (count.cumsum(0) - count).index_select(0, row)
    start = rowptr.index_select(0, row) + nth * chunk
    end = torch.minimum(start + chunk, rowptr.index_select(0, row + 1))
    is_split = count > 1
    in_split = is_split.index_select(0, row)
    slot = torch.where(in_split, in_split.cumsum(0) - 1, -1)
    size = torch.frexp((end - start).double()).exponent  # by powers of two, and in the order of the rows within each
    order = size.argsort(stable=True, descending=True)
    split_row = is_split.nonzero().view(-1)
    split_start = F.pad(count.index_select(0, split_row).cumsum(0), (1, 0))
    parts = (row[order], start[order], end[order], slot[order], split_row, split_start)
    largest = max(row.numel(), num_rows, int(rowptr[-1]))
    dtype = torch.int32 if largest < 2**31 - 1 else torch.int64
    return Items(*(part.to(dtype) for part in parts), int(in_split.sum()))
