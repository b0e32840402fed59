"""The alternatives that NOTES.md compares, measured side by side: `python -m benchmarks.experiments [--dataset pubmed]`.

Each compares ways to one result (checked equal where they are): expanded heads against a loop over heads, segment reductions,
narrow products, sparse X, dropout masks, memory of results, scores from z against scores from x.
"""

import argparse
import warnings
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe, seconds
from benchmarks.workloads import HEADS, HIDDEN, load
from gesm import Graph, as_graph
from gesm.ops import spmm
from gesm.ops._memory import empty
from gesm.ops._random import TABLE_BLOCK, keep_mask, table_mask
from gesm.ops._sparse import Block, _bag, _make_block, csr, csr_matmul, csr_sddmm, segment_max, segment_sum
from gesm.ops.spmm.cpu import _spmm_by_strips

Ways = dict[str, Callable[[], torch.Tensor]]


def _whole(graph: Graph) -> Block:
    """All rows as one block, however large, since the alternatives know no blocks."""
    return _make_block(graph.rowptr, graph.col, HEADS, 0, graph.num_nodes)


def heads(graph: Graph, alpha: torch.Tensor, x: torch.Tensor) -> dict[str, Ways]:
    """Sum over edges and their dot products for all heads: one expanded CSR, or one CSR and copies for each head."""
    block = _whole(graph)
    flat, num_nodes = x.view(-1, HIDDEN), graph.num_nodes
    matrix = block.matrix(alpha, num_nodes)
    expanded = block.heads_rowptr, block.heads_col, matrix.values()

    def loop_sum() -> torch.Tensor:
        out, by_head = torch.empty_like(x), alpha.t().contiguous()
        for h in range(HEADS):
            csr_matmul(csr(graph.rowptr, graph.col, by_head[h], num_nodes), x[:, h], out=out[:, h])
        return out

    def loop_products() -> torch.Tensor:
        by_head = [csr_sddmm(graph.rowptr, graph.col, x[:, h].contiguous(), x[:, h].contiguous()) for h in range(HEADS)]
        return torch.stack(by_head, 1)

    return {
        "weighted sum (SpMM)": {
            "expanded CSR": lambda: csr_matmul(matrix, flat).view(x.shape),
            "... into fresh memory": lambda: csr_matmul(matrix, flat, out=torch.empty(flat.shape)).view(x.shape),
            "... embedding_bag": lambda: _bag(*expanded, flat).view(x.shape),
            '... torch.sparse.mm(csr, x, "sum")': lambda: torch.sparse.mm(matrix, flat, "sum").view(x.shape),
            "a loop over heads, strided": loop_sum,
        },
        "dot products of edges (SDDMM)": {
            "expanded CSR": lambda: block.from_heads(csr_sddmm(*expanded[:2], flat, flat), HEADS),
            "a loop over heads": loop_products,
        },
    }


def segments(graph: Graph, s: torch.Tensor) -> dict[str, Ways]:
    """Reductions of [E, heads] over the rows of the CSR."""
    block = _whole(graph)
    offsets = graph.rowptr.long()
    by_segment = lambda reduce: torch.segment_reduce(s, reduce, offsets=offsets, axis=0, unsafe=True)  # noqa: E731
    return {
        "segment maximum": {
            'torch.sparse.mm(csr, x, "amax")': lambda: segment_max(block, s),
            "torch.segment_reduce": lambda: by_segment("max"),
        },
        "segment sum": {
            "embedding_bag": lambda: segment_sum(block, s),
            "torch.segment_reduce": lambda: by_segment("sum"),
        },
    }


def narrow(graph: Graph, width: int) -> dict[str, Ways]:
    """One step of the mixture: as wide as there are classes."""
    x = torch.randn(graph.num_nodes, width, generator=torch.Generator().manual_seed(0))
    matrix = csr(graph.rowptr, graph.col, graph.weight, graph.num_nodes)
    return {
        f"one step, {width} columns": {
            "what spmm does": lambda: csr_matmul(matrix, x),
            "embedding_bag": lambda: _bag(graph.rowptr, graph.col, graph.weight, x),
            'torch.sparse.mm(csr, x, "sum")': lambda: torch.sparse.mm(matrix, x, "sum"),
            "csr @ x": lambda: matrix @ x,
        }
    }


def products(x: torch.Tensor) -> dict[str, Ways]:
    """X W and the gradient of W, for sparse and for dense X."""
    features, generator = as_graph(x.to_sparse_csr()), torch.Generator().manual_seed(0)
    matrix = csr(features.rowptr, features.col, features.weight, x.size(1))
    transpose = features.colptr, features.row, features.csc_weight
    w = torch.randn(x.size(1), HEADS * HIDDEN, generator=generator)
    grad = torch.randn(x.size(0), HEADS * HIDDEN, generator=generator)
    return {
        "X W": {
            "sparse": lambda: csr_matmul(matrix, w),
            "dense": lambda: x @ w,
        },
        "gradient of W": {
            "sparse": lambda: csr_matmul(csr(*transpose, x.size(0)), grad),
            "sparse, strips of dZ": lambda: _spmm_by_strips(*transpose, grad),
            "dense": lambda: x.t() @ grad,
        },
    }


def masks(h: torch.Tensor) -> dict[str, Ways]:
    """Dropout masks for the features, p = 0.3; draws differ, so nothing is compared."""
    seed, threshold, n = 1, round(0.3 * 2**16), h.numel()

    def from_table() -> torch.Tensor:
        starts = range(0, n, TABLE_BLOCK)
        return [table_mask(i, min(TABLE_BLOCK, n - start), seed, threshold, h.dtype) for i, start in enumerate(starts)]

    return {
        "mask of [N, 512]": {
            "two runs of a table": from_table,
            "hash of the position": lambda: keep_mask(0, n, seed, threshold, h.dtype),
            "bernoulli": lambda: torch.empty_like(h, dtype=torch.bool).bernoulli_(0.7),
        }
    }


def results(h: torch.Tensor) -> dict[str, Ways]:
    """Writing a result of [N, 512] into memory from several sources."""
    return {
        "result of [N, 512]": {
            "gesm's": lambda: empty(*h.shape, like=h).fill_(1),
            "PyTorch's": lambda: torch.empty_like(h).fill_(1),
            "NumPy's (huge pages)": lambda: torch.from_numpy(np.empty(h.shape, np.float32)).fill_(1),
        }
    }


def scores(x: torch.Tensor, num_nodes: int) -> dict[str, Ways]:
    """Both score vectors of all heads with their gradient, for a given z = x w."""
    features = as_graph(x)
    generator = torch.Generator().manual_seed(0)
    w = (torch.randn(HEADS, HIDDEN, x.size(1), generator=generator) / 8).requires_grad_()
    u = torch.randn(2, HEADS, HIDDEN, generator=generator).requires_grad_()
    gradient = torch.randn(num_nodes, 2, HEADS, generator=generator)

    def from_z() -> torch.Tensor:
        z = spmm(features, w.flatten(0, 1).t()).view(-1, HEADS, HIDDEN)
        s = torch.stack([(z * u[0]).sum(-1), (z * u[1]).sum(-1)], 1)
        return torch.autograd.grad((s * gradient).sum() + z.sum(), w)[0]

    def from_x() -> torch.Tensor:
        z = spmm(features, w.flatten(0, 1).t())
        s = spmm(features, torch.einsum("shd,hdf->fsh", u, w).flatten(1)).view(-1, 2, HEADS)
        return torch.autograd.grad((s * gradient).sum() + z.sum(), w)[0]

    return {"z, scores and gradient of W": {"x (W u)": from_x, "z . u": from_z}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Alternatives side by side.")
    parser.add_argument("--dataset", default="pubmed")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # segment_reduce and CSR announce their beta state
    data, about = load(options.dataset), describe()
    graph = Graph.from_edge_index(data.edge_index, num_nodes=data.num_nodes).transition()
    generator = torch.Generator().manual_seed(0)
    alpha = torch.rand(graph.num_edges, HEADS, generator=generator)
    x = torch.randn(data.num_nodes, HEADS, HIDDEN, generator=generator)
    groups = heads(graph, alpha, x) | segments(graph, alpha) | masks(x.flatten(1)) | results(x)
    groups |= narrow(graph, data.num_classes) | products(data.x)
    groups |= scores(data.x.to_sparse_csr(), data.num_nodes)
    title = f"{options.dataset}, {about['processor']}, {about['threads']} threads, load {about['load'][0]}"
    table = Table("what", "how", title=title, title_justify="left")
    table.add_column("median ms", justify="right")
    table.add_column("least ms", justify="right")
    for group, ways in groups.items():
        outcomes = [way() for way in ways.values()]
        if not group.startswith("mask"):
            for result in outcomes[1:]:
                torch.testing.assert_close(result, outcomes[0], rtol=1e-3, atol=1e-3 * outcomes[0].abs().max().item())
        times = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, call in ways.items():
                times[way].append(seconds(call))
        for way, taken in times.items():
            table.add_row(group, way, f"{median(taken) * 1e3:.2f}", f"{min(taken) * 1e3:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
