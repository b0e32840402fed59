"""What the GPU benchmark measures: for each graph the operators with their peers, bytes and checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GATConv

from benchmarks.gpu_graphs import SIZES
from benchmarks.peers import PyGAttend
from gesm import Graph
from gesm.models import GESM
from gesm.ops import attend, mix, spmm, use_backend

__all__ = ["Case", "cases", "close", "training_step"]

K = 14
ATTENTION = {  # graph -> (heads, width, type) that are measured
    "reddit": [(1, 128, torch.float16), (1, 128, torch.float32)],
    "products": [(4, 64, torch.float32), (4, 64, torch.bfloat16)],
    "tiny": [(2, 4, torch.float32)],
}
ATTENTION_ELSE = [(8, 64, torch.float32), (8, 64, torch.bfloat16)]
PUBLISHED = {("reddit", 1, 128, torch.float16, False): "9.16 ms"}  # its repository's kernel_only_comp_results
PYG_BYTES = 2e10  # a gather-scatter peer may form [E, heads, d] up to this size
DENSE_NODES = 20_000  # a dense N x N attention is measured up to here


@dataclass
class Case:
    """One operator on one graph: calls by name (gesm's first), the bytes it cannot avoid, those that it gathers, its check."""

    operator: str
    calls: dict[str, Callable[[], object]]
    floor_bytes: int
    traffic_bytes: int
    check: Callable[[], None]
    notes: dict[str, str] = field(default_factory=dict)


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Relative RMS error within what the type allows; NaN never is."""
    limit = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    error = (actual.double() - expected.double()).norm() / expected.double().norm()
    assert error < limit, f"relative RMS error {error:.1e} beyond {limit:.0e}"


def cases(name: str, graph: Graph) -> Iterator[Case]:
    """The cases of a graph, one after the other, so that their tensors are not in memory together."""
    graph = graph.transition()
    for heads, d, dtype in ATTENTION.get(name, ATTENTION_ELSE):
        for backward in (False, True):
            case = _attention(graph, heads, d, dtype, backward)
            if (name, heads, d, dtype, backward) in PUBLISHED:
                case.notes["Fused3S as published, on a GH200"] = PUBLISHED[name, heads, d, dtype, backward]
            yield case
    yield _product(graph, 128 if name != "tiny" else 8)
    yield from (_mixture(graph, SIZES[name].classes, backward) for backward in (False, True))


def _rows_of(graph: Graph, count: int = 256) -> tuple[Tensor, Graph]:
    """Some rows, and the bipartite graph of their edges."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(graph.num_dst, (count,), generator=generator).to(graph.device)
    degree = (graph.rowptr[rows + 1] - graph.rowptr[rows]).long()
    target = torch.arange(count, device=graph.device).repeat_interleave(degree)
    nth = torch.arange(target.numel(), device=graph.device) - (degree.cumsum(0) - degree)[target]
    edge = graph.rowptr[rows].long()[target] + nth
    edges = torch.stack([graph.col[edge].long(), target])
    return rows, Graph(edges, None if graph.weight is None else graph.weight[edge], (graph.num_src, count))


def _attention(graph: Graph, heads: int, d: int, dtype: torch.dtype, backward: bool) -> Case:
    n, device = graph.num_nodes, graph.device
    x = torch.randn(n, heads, d, device=device).to(dtype).requires_grad_(backward)
    a, c = (torch.randn(n, heads, device=device).requires_grad_(backward) for _ in range(2))
    grad = torch.randn(n, heads, d, device=device).to(dtype)
    run = _mode(backward, grad, x, a, c)
    calls = {"gesm": run(lambda: attend(graph, x, a, c))}
    notes = {}
    size = graph.num_edges * heads * d * x.element_size()
    if size <= PYG_BYTES:
        peer, edges, weight = PyGAttend(), graph.edge_index, graph.weight.to(dtype)
        calls["PyG gather-scatter"] = run(lambda: peer(x, edges, weight, a.to(dtype), c.to(dtype)))
        if dtype is torch.float32:
            gat = GATConv(d, d, heads, add_self_loops=False).to(device)
            thin = torch.randn(n, d, device=device).requires_grad_(backward)
            run_gat = _mode(backward, grad, thin, *gat.parameters())  # a gradient that nobody asks for would not be computed
            calls["PyG GATConv, its map included"] = run_gat(lambda: gat(thin, edges).view(n, heads, d))
    else:
        notes["PyG gather-scatter"] = f"messages of {size / 1e9:.0f} GB"
    if n <= DENSE_NODES and not backward:
        q = x.detach().transpose(0, 1).unsqueeze(0)
        calls["dense SDPA, no mask"] = torch.no_grad()(lambda: F.scaled_dot_product_attention(q, q, q))

    def check() -> None:
        rows, part = _rows_of(graph)
        with torch.no_grad():
            out = attend(graph, x, a, c)[rows]
            with use_backend("reference"):
                close(out, attend(part, x.float(), a[rows], c), dtype)
        if backward and graph.num_edges * heads * d <= 2e9:
            ours = torch.autograd.grad(attend(graph, x, a, c), (x, a, c), grad)
            with use_backend("reference"):
                wide = x.detach().float().requires_grad_()
                theirs = torch.autograd.grad(attend(graph, wide, a, c), (wide, a, c), grad.float())
            for actual, expected in zip(ours, theirs, strict=True):
                close(actual, expected, torch.bfloat16 if dtype is not torch.float32 else torch.float32)

    wide, narrow, edge = n * heads * d * x.element_size(), 4 * n * heads, 8 * graph.num_edges
    gather = graph.num_edges * heads * d * x.element_size()
    floor = 2 * wide + 3 * narrow + edge
    traffic = gather + wide + 3 * narrow + edge + 4 * graph.num_edges * heads
    if backward:
        floor += 3 * wide + 5 * narrow + 2 * edge + 4 * graph.num_edges
        # grad gathered, x and grad_x; t written, read, rewritten and read; scores of the other end in three passes
        traffic += gather + 2 * wide + 5 * narrow + 4 * edge + 4 * graph.num_edges * heads * 10
    mode = "forward + backward" if backward else "forward"
    return Case(f"attend {heads} x {d} {_short(dtype)} {mode}", calls, floor, traffic, check, notes)


def _product(graph: Graph, width: int) -> Case:
    x = torch.randn(graph.num_nodes, width, device=graph.device)
    matrix = _csr(graph)

    def check() -> None:
        rows, part = _rows_of(graph)
        with use_backend("reference"):
            expected = spmm(part, x.double())
        close(spmm(graph, x)[rows], expected, torch.float32)

    wide, edge = 4 * x.numel(), 8 * graph.num_edges
    calls = {"gesm": lambda: spmm(graph, x), "torch.sparse (cuSPARSE)": lambda: matrix @ x}
    return Case(f"spmm {width} fp32 forward", calls, 2 * wide + edge, graph.num_edges * width * 4 + wide + edge, check)


def _mixture(graph: Graph, classes: int, backward: bool) -> Case:
    x = torch.randn(graph.num_nodes, (K + 1) * classes, device=graph.device).requires_grad_(backward)
    grad = torch.randn(graph.num_nodes, classes, device=graph.device)
    run, matrix = _mode(backward, grad, x), _csr(graph)

    def chain() -> Tensor:
        blocks = x.unflatten(1, (K + 1, classes))
        out = blocks[:, K]
        for k in reversed(range(K)):
            out = blocks[:, k] + matrix @ out
        return out

    def check() -> None:
        with torch.no_grad():
            close(mix(graph, x, K), chain(), torch.float32)

    narrow, edge = 4 * graph.num_nodes * classes, 8 * graph.num_edges
    times = 2 if backward else 1
    floor = times * ((K + 2) * narrow + edge)
    traffic = times * K * (4 * graph.num_edges * classes + 2 * narrow + edge)
    calls = {"gesm": run(lambda: mix(graph, x, K))}
    if not backward:  # its gradient would be that of sparse values
        calls["torch.sparse chain"] = run(chain)
    mode = "forward + backward" if backward else "forward"
    return Case(f"mix K = {K}, {classes} columns, {mode}", calls, floor, traffic, check)


def training_step(
    graph: Graph, features: int, classes: int, heads: int, hidden: int
) -> tuple[Callable[[], Tensor], torch.optim.Optimizer]:
    """One full-batch step of GESM with dropout on dense features: cross-entropy, backward, Adam."""
    device, n = graph.device, graph.num_nodes
    torch.manual_seed(0)
    model = GESM(features, hidden, classes, K=K, heads=heads, dropout=0.3, attention_dropout=0.3).to(device)
    optimizer = torch.optim.Adam(model.parameters(), 0.003, fused=True, capturable=device.type == "cuda")
    x = torch.randn(n, features, device=device)
    y = torch.randint(classes, (n,), device=device)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, graph), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, optimizer


def _mode(backward: bool, grad: Tensor, *inputs: Tensor) -> Callable[[Callable[[], Tensor]], Callable[[], object]]:
    if not backward:
        return torch.no_grad()
    return lambda call: lambda: torch.autograd.grad(call(), inputs, grad)


def _csr(graph: Graph) -> Tensor:
    return torch.sparse_csr_tensor(
        graph.rowptr, graph.col, graph.weight, (graph.num_dst, graph.num_src), check_invariants=False
    )


def _short(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
