"""What the GPU benchmark measures: for each graph the operators with their peers, bytes and checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GATConv
from torch_geometric.utils import scatter

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


def cases(name: str, graph: Graph) -> Iterator[tuple[str, Callable[[], Case]]]:
    """The names and the makers of a graph's cases; each is made when its turn has come, so that memory holds one."""
    graph = graph.transition()
    for heads, d, dtype in ATTENTION.get(name, ATTENTION_ELSE):
        for backward in (False, True):
            operator = f"attend {heads} x {d} {_short(dtype)} {_mode_name(backward)}"
            yield operator, partial(_attention, operator, graph, heads, d, dtype, backward)
    width, classes = 128 if name != "tiny" else 8, SIZES[name].classes
    for backward in (False, True):
        operator = f"spmm {width} fp32 {_mode_name(backward)}"
        yield operator, partial(_product, operator, graph, width, backward)
    for backward in (False, True):
        operator = f"mix K = {K}, {classes} columns, {_mode_name(backward)}"
        yield operator, partial(_mixture, operator, graph, classes, backward)


def _rows_of(graph: Graph, count: int = 256) -> tuple[Tensor, Graph]:
    """Some rows, and the bipartite graph of their edges."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(graph.num_dst, (count,), generator=generator).unique().to(graph.device)
    count = rows.numel()
    degree = (graph.rowptr[rows + 1] - graph.rowptr[rows]).long()
    target = torch.arange(count, device=graph.device).repeat_interleave(degree)
    nth = torch.arange(target.numel(), device=graph.device) - (degree.cumsum(0) - degree)[target]
    edge = graph.rowptr[rows].long()[target] + nth
    edges = torch.stack([graph.col[edge].long(), target])
    return rows, Graph(edges, None if graph.weight is None else graph.weight[edge], (graph.num_src, count))


def _attention(operator: str, graph: Graph, heads: int, d: int, dtype: torch.dtype, backward: bool) -> Case:
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
    if find_spec("turbo_gnn"):
        calls["turbo-gnn GATv2"] = _mode(backward, grad, x)(_turbo(graph, x))  # it takes no a and no c
    if n <= DENSE_NODES and not backward:
        q = x.detach().transpose(0, 1).unsqueeze(0)
        calls["dense SDPA, no mask"] = torch.no_grad()(lambda: F.scaled_dot_product_attention(q, q, q))

    def check() -> None:
        rows, part = _rows_of(graph)
        inputs, of_rows = (x, a, c), (x.detach().float(), a.detach()[rows], c.detach())
        some = torch.zeros_like(grad).index_copy_(0, rows, grad[rows])  # gradients of these rows alone
        with use_backend("reference"):
            expected = _results(partial(attend, part), of_rows, grad[rows].float(), backward)
        actual = _results(partial(attend, graph), inputs, some, backward)
        picked = [t[rows] if i in (0, 2) else t for i, t in enumerate(actual)]  # the result and the gradient of a
        for one, other in zip(picked, expected, strict=True):
            close(one, other, dtype if dtype is torch.float32 or not backward else torch.bfloat16)

    wide, narrow, edge = n * heads * d * x.element_size(), 4 * n * heads, 8 * graph.num_edges
    gather = graph.num_edges * heads * d * x.element_size()
    floor = 2 * wide + 3 * narrow + edge
    traffic = gather + wide + 3 * narrow + edge + 4 * graph.num_edges * heads
    if backward:
        floor += 3 * wide + 5 * narrow + 2 * edge + 4 * graph.num_edges
        # grad gathered, x and grad_x; t written, read, rewritten and read; scores of the other end in three passes
        traffic += gather + 2 * wide + 5 * narrow + 4 * edge + 4 * graph.num_edges * heads * 10
    return Case(operator, calls, floor, traffic, check, notes)


def _turbo(graph: Graph, x: Tensor) -> Callable[[], Tensor]:
    """turbo-gnn's attention of the same shape; its scores are GATv2's, so that results are others."""

    def call() -> Tensor:
        from turbo_gnn import AdjacencyForwardBackwardWithNodeBuckets, gatv2_aggr

        if not made:
            adjacency = AdjacencyForwardBackwardWithNodeBuckets.from_edge_list(graph.edge_index, num_nodes=graph.num_nodes)
            made.append((adjacency.to(graph.device), torch.randn(x.shape[1:], device=graph.device, dtype=x.dtype)))
        adjacency, weights = made[0]
        return gatv2_aggr(adjacency, x, x_neighbors=x, attention_weights=weights, negative_slope=0.2)

    made: list[tuple] = []
    return call


def _product(operator: str, graph: Graph, width: int, backward: bool) -> Case:
    x = torch.randn(graph.num_nodes, width, device=graph.device).requires_grad_(backward)
    weight = graph.weight.clone().requires_grad_(backward)
    grad = torch.randn(graph.num_nodes, width, device=graph.device)
    run, notes = _mode(backward, grad, x, weight), {}
    calls = {"gesm": run(lambda: spmm(graph, x, weight))}
    size = 4 * graph.num_edges * width
    if size <= PYG_BYTES:
        col, target = graph.col, graph.target
        calls["PyG gather-scatter"] = run(lambda: scatter(weight[:, None] * x[col], target, 0, graph.num_dst))
    else:
        notes["PyG gather-scatter"] = f"messages of {size / 1e9:.0f} GB"
    if not backward:  # its gradient would be that of sparse values
        matrix = _csr(graph)
        calls["torch.sparse (cuSPARSE)"] = lambda: matrix @ x

    def check() -> None:
        rows, part = _rows_of(graph)
        some = torch.zeros_like(grad).index_copy_(0, rows, grad[rows])
        with use_backend("reference"):
            expected = _results(partial(spmm, part), (x.detach().double(),), grad[rows].double(), backward)
        actual = _results(partial(spmm, graph), (x,), some, backward)
        for one, other in zip([actual[0][rows], *actual[1:]], expected, strict=True):
            close(one, other, torch.float32)
        if backward:
            edge = torch.randint(graph.num_edges, (1000,), device=graph.device)
            (actual_weight,) = torch.autograd.grad(spmm(graph, x, weight), weight, grad)
            close(actual_weight[edge], (grad[graph.target[edge]] * x.detach()[graph.col[edge]]).sum(1), torch.float32)

    wide, edge, gather = 4 * x.numel(), 8 * graph.num_edges, graph.num_edges * width * 4
    floor, traffic = 2 * wide + edge, gather + wide + edge
    if backward:  # grad gathered for x; grad and gathered x for the weights
        floor, traffic = floor + 3 * wide + 2 * edge, traffic + 2 * gather + 2 * wide + 2 * edge
    return Case(operator, calls, floor, traffic, check, notes)


def _mixture(operator: str, graph: Graph, classes: int, backward: bool) -> Case:
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
        if backward:
            (actual,) = torch.autograd.grad(mix(graph, x, K), x, grad)
            size, step = (graph.num_src, graph.num_dst), grad
            transpose = torch.sparse_csr_tensor(graph.colptr, graph.row, graph.csc_weight, size, check_invariants=False)
            for block in actual.split(classes, 1):
                close(block, step, torch.float32)
                step = transpose @ step

    narrow, edge = 4 * graph.num_nodes * classes, 8 * graph.num_edges
    times = 2 if backward else 1
    floor = times * ((K + 2) * narrow + edge)
    traffic = times * K * (4 * graph.num_edges * classes + 2 * narrow + edge)
    calls = {"gesm": run(lambda: mix(graph, x, K))}
    if not backward:  # its gradient would be that of sparse values
        calls["torch.sparse chain"] = run(chain)
    return Case(operator, calls, floor, traffic, check)


def _results(f: Callable[..., Tensor], inputs: tuple[Tensor, ...], grad: Tensor, backward: bool) -> list[Tensor]:
    """The result and, for `backward`, the gradients of the inputs."""
    if not backward:
        with torch.no_grad():
            return [f(*inputs)]
    inputs = tuple(t.detach().requires_grad_() for t in inputs)
    out = f(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


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


def _mode_name(backward: bool) -> str:
    return "forward + backward" if backward else "forward"


def _csr(graph: Graph) -> Tensor:
    return torch.sparse_csr_tensor(
        graph.rowptr, graph.col, graph.weight, (graph.num_dst, graph.num_src), check_invariants=False
    )


def _short(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
