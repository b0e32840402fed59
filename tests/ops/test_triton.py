"""The Triton kernels against the reference: compiled where there is a GPU, else interpreted (`test_triton_interpreted.py`)."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import assert_matches, graphs

from gesm import GesmError, Graph
from gesm.nn import GESMConv
from gesm.ops import _rows, attend, attend_scores, backend, mix, spmm, use_backend
from gesm.ops._library import INTERPRETED
from gesm.ops._random import dropout_threshold, keep_mask

DEVICES = [pytest.param("cuda", id="compiled")] if torch.cuda.is_available() else []
DEVICES += [pytest.param("cpu", id="interpreted")] if INTERPRETED else []
pytestmark = [
    pytest.mark.skipif(not DEVICES, reason="no GPU, and TRITON_INTERPRET is not set"),
    pytest.mark.parametrize("device", DEVICES),
]
SEED = 2**40 + 12345
TOLERANCE = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-12},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
    torch.float16: {"rtol": 1e-2, "atol": 1e-2},
    torch.bfloat16: {"rtol": 6e-2, "atol": 6e-2},
}
few = settings(max_examples=12)
small = graphs(max_nodes=7, max_edges=20, bipartite=True)


def results(f, graph, *inputs, backend):
    """Output and gradients of all inputs and, if they count, of the weights; float64 for comparison."""
    inputs, count = [t.detach().clone().requires_grad_() for t in inputs], len(inputs)
    if graph.weight is not None:
        inputs.append(graph.weight.detach().clone().requires_grad_())
        graph = graph.with_weight(inputs[-1])
    with use_backend(backend):
        out = f(graph, *inputs[:count])
        grads = torch.autograd.grad((out * out.detach().cos()).sum(), inputs, allow_unused=True)
    grads = [torch.zeros_like(t) if grad is None else grad for grad, t in zip(grads, inputs, strict=True)]
    return [t.detach().double() for t in (out, *grads)]


def assert_same(f, graph, *inputs, device, rtol=1e-10, atol=1e-12):
    """Triton and the reference agree; the reference sees the same numbers in float64."""
    graph, inputs = graph.to(device), [t.to(device) for t in inputs]
    double = graph if graph.weight is None else graph.with_weight(graph.weight.double())
    expected = results(f, double, *(t.double() for t in inputs), backend="reference")
    for actual, want in zip(results(f, graph, *inputs, backend="triton"), expected, strict=True):
        assert_matches(actual, want, rtol, atol)


def seed(device):
    return torch.tensor([SEED], device=device)


def random_graph(nodes=40, edges=250, dtype=torch.float32):
    return Graph(torch.randint(nodes - 5, (2, edges)), torch.rand(edges, dtype=dtype) + 0.1, nodes)


@pytest.fixture
def split(monkeypatch):
    """Rows of more than four edges are split."""
    monkeypatch.setattr(_rows, "SHORTEST", 4)
    monkeypatch.setattr(_rows, "LONGEST", 4)


@few
@given(small, st.integers(0, 4))
def test_spmm(device, graph, width):
    assert_same(spmm, graph, torch.randn(graph.num_src, width).double(), device=device)


@few
@given(graphs(weighted=False, max_nodes=7, max_edges=20, bipartite=True), st.integers(1, 3), st.integers(0, 3))
def test_spmm_with_heads(device, graph, heads, d):
    x, weight = torch.randn(graph.num_src, heads, d).double(), torch.randn(graph.num_edges, heads).double()
    assert_same(spmm, graph, x, weight, device=device)


@few
@given(graphs(max_nodes=7, max_edges=20), st.integers(0, 4), st.integers(1, 3))
def test_mix(device, graph, K, width):
    with_grad, plain = graph.transition(dtype=torch.float64), graph
    x = torch.randn(graph.num_nodes, (K + 1) * width).double()
    assert_same(lambda g, x: mix(g, x, K), plain, x, device=device)
    weight = with_grad.weight.to(device)  # without a gradient of the weights: the chain of its own
    assert_same(lambda g, x: mix(g.with_weight(weight.to(x.dtype)), x, K), with_grad.with_weight(None), x, device=device)


@few
@given(
    small,
    st.sampled_from([1, 3]),
    st.integers(0, 3),
    st.sampled_from(["product", "additive", "given"]),
    st.sampled_from([0.0, 0.6]),
)
def test_attend(device, graph, heads, d, score, dropout):
    options = {"dropout": dropout, "seed": seed(device), "residual": not graph.is_bipartite}
    x = torch.randn(graph.num_src, heads, d).double()
    if score == "given":
        scores = torch.randn(graph.num_edges, heads).double()
        assert_same(lambda g, *t: attend_scores(g, *t, **options), graph.with_weight(None), x, scores, device=device)
        return
    a, c = (torch.randn(n, heads).double() for n in (graph.num_dst, graph.num_src))
    assert_same(lambda g, *t: attend(g, *t, score=score, **options), graph, x, a, c, device=device)


@pytest.mark.parametrize(
    ("heads", "d", "dtype"),
    [
        (8, 3, torch.float32),
        (1, 65, torch.float32),
        (2, 7, torch.float32),
        (1, 1, torch.float64),
        (3, 33, torch.float64),
        (1, 65, torch.float16),
        (1, 1, torch.float16),
        (3, 33, torch.float16),
        (8, 3, torch.bfloat16),
        (2, 7, torch.bfloat16),
    ],
    ids=str,
)
def test_widths_and_types(device, split, heads, d, dtype):
    graph = random_graph(12, 40, torch.float64 if dtype is torch.float64 else torch.float32)
    x, a, c = torch.randn(12, heads, d).to(dtype), torch.randn(12, heads), torch.randn(12, heads)
    a, c = (t.double() if dtype is torch.float64 else t for t in (a, c))
    options = {"dropout": 0.3, "seed": seed(device), "residual": True}
    assert_same(lambda g, *t: attend(g, *t, **options), graph, x, a, c, device=device, **TOLERANCE[dtype])
    assert_same(spmm, graph, x.flatten(1), device=device, **TOLERANCE[dtype])
    p = Graph(graph.edge_index, None, 12).transition()
    p = p.with_weight(p.weight.to(a.dtype))
    assert_same(lambda g, x: mix(p.to(device), x, 2), graph, x.flatten(1).repeat(1, 3), device=device, **TOLERANCE[dtype])
    with use_backend("triton"):
        assert attend(graph.to(device), *(t.to(device) for t in (x, a, c))).dtype is dtype


@pytest.mark.parametrize("score", ["product", "additive"])
def test_split_rows(device, split, score):
    graph = random_graph(14, 80)
    x, a, c = torch.randn(14, 3, 5), torch.randn(14, 3), torch.randn(14, 3)
    for residual in (False, True):
        options = {"score": score, "dropout": 0.4, "seed": seed(device), "residual": residual}
        assert_same(partial(attend, **options), graph, x, a, c, device=device, **TOLERANCE[torch.float32])
    assert _rows.items(graph.rowptr).num_slots > 0
    assert_same(lambda g, x: mix(g, x, 3), graph.transition(), torch.randn(14, 20), device=device, **TOLERANCE[torch.float32])
    options = {"dropout": 0.4, "seed": seed(device)}
    scores = torch.randn(80, 3)
    assert_same(
        lambda g, *t: attend_scores(g, *t, **options), graph.with_weight(None), x, scores, device=device,
        **TOLERANCE[torch.float32],
    )  # fmt: skip


def test_a_hub(device):
    edges_of_hub = 5_000 if INTERPRETED else 100_000
    edges = torch.stack([torch.arange(edges_of_hub) % 300, torch.zeros(edges_of_hub, dtype=torch.long)])
    graph = Graph(edges, None, 300).to(device)
    work = _rows.items(graph.rowptr)
    lengths = (work.end - work.start).tolist()
    assert max(lengths) <= _rows.LONGEST
    assert sum(lengths) == edges_of_hub
    x, a, c = (torch.randn(300, *shape, device=device) for shape in ((1, 8), (1,), (1,)))
    with use_backend("triton"):
        outs = attend(graph, x, a, c), spmm(graph, x.flatten(1))
    with use_backend("reference"):
        expected = attend(graph, x.double(), a.double(), c.double()), spmm(graph, x.double().flatten(1))
    for out, want in zip(outs, expected, strict=True):
        assert_matches(out.double(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_the_dropout_mask_is_that_of_the_reference(device, dtype):
    count = 400
    graph = Graph(torch.stack([torch.arange(count), torch.zeros(count, dtype=torch.long)]).to(dtype), None, (count, 1))
    x = torch.eye(count).view(count, 1, count).to(device)
    a, c = (torch.zeros(n, 1, device=device) for n in (1, count))
    for key in (0, 1, -1, SEED, 2**62 - 1):
        with use_backend("triton"):
            out = attend(graph.to(device), x, a, c, dropout=0.3, seed=torch.tensor([key], device=device))
        mask = keep_mask(0, count, key, dropout_threshold(0.3), torch.float32)
        assert out.view(-1).ne(0).float().cpu().equal(mask)


def test_scores_far_from_zero_and_undefined_ones(device):
    graph = Graph(torch.tensor([[0, 1, 0], [1, 1, 0]]), None, 2).to(device)
    x, one = torch.eye(2, device=device).double().view(2, 1, 2), torch.ones(2, 1, device=device).double()
    for size in (15.9, 1000.0, -1000.0):
        f = lambda g, x, a, size=size: attend(g, x, a, one * size)  # noqa: E731
        assert_same(f, graph, x, one, device=device, atol=1e-9)
    outs = []
    for name in ("triton", "reference"):
        with use_backend(name):
            outs.append(attend(graph, x, one, one * float("nan")))
    assert outs[0].isnan().equal(outs[1].isnan())


def test_every_element_is_written(device, split, poisoned):
    graph = Graph(torch.tensor([[0, 1, 4, 0, 1, 2, 3, 5], [3, 3, 4, 5, 5, 5, 5, 5]]), torch.ones(8), 7).to(device)
    x, a, c = torch.ones(7, 2, 3), torch.ones(7, 2), torch.ones(7, 2)
    x, a, c = (t.to(device) for t in (x, a, c))
    p = graph.transition()
    for f, inputs in (
        (lambda g, *t: attend(g, *t, dropout=0.3, seed=seed(device)), (x, a, c)),
        (lambda g, *t: attend_scores(g.with_weight(None), *t), (x, torch.ones(8, 2, device=device))),
        (spmm, (x.flatten(1),)),
        (spmm, (x, torch.ones(8, 2, device=device))),
        (lambda g, x: mix(p, x, 2), (torch.ones(7, 9, device=device),)),
    ):
        assert not any(t.isnan().any() for t in results(f, graph, *inputs, backend="triton"))


def test_repeats_bitwise(device, split):
    graph = random_graph(16, 100).to(device)
    x, a, c = (torch.randn(16, *shape, device=device) for shape in ((2, 5), (2,), (2,)))
    f = lambda g, *t: attend(g, *t, dropout=0.3, seed=seed(device), residual=True)  # noqa: E731
    first, second = (results(f, graph, x, a, c, backend="triton") for _ in range(2))
    assert all(u.equal(v) for u, v in zip(first, second, strict=True))
    with use_backend("triton"):
        assert mix(graph.transition(), x.flatten(1), 4).equal(mix(graph.transition(), x.flatten(1), 4))


@pytest.mark.parametrize("score", ["product", "additive"])
def test_gradcheck(device, score):
    graph = Graph(torch.tensor([[0, 1, 1], [0, 0, 1]]), torch.rand(3).double(), 2).to(device)
    x, a, c = (torch.randn(2, *shape, device=device).double().requires_grad_() for shape in ((1, 2), (1,), (1,)))
    weight = graph.weight.clone().requires_grad_()
    with use_backend("triton"):
        assert torch.autograd.gradcheck(
            lambda x, a, c, w: attend(graph.with_weight(w), x, a, c, score=score), (x, a, c, weight)
        )
        assert torch.autograd.gradcheck(lambda x, w: spmm(graph.with_weight(w), x.flatten(1)), (x, weight))


def test_a_layer_in_training(device):
    x, edge_index = torch.randn(12, 6, device=device), torch.randint(12, (2, 30), device=device)
    layer = GESMConv(6, 4, 3, K=3, heads=2).to(device)
    grads = []
    for name in ("triton", "reference"):
        with use_backend(name):
            grads.append(torch.autograd.grad(layer(x, edge_index).square().sum(), list(layer.parameters())))
    for actual, want in zip(*grads, strict=True):
        assert_matches(actual, want, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_compiles_without_graph_breaks(device):
    torch._dynamo.reset()
    x, edge_index = torch.randn(12, 6), torch.randint(12, (2, 30))
    edge_index[:, :5] = torch.arange(5)  # in a traced graph what self-loops displace stands behind the last row
    x, edge_index, weight = x.to(device), edge_index.to(device), torch.rand(30, device=device, requires_grad=True)
    layer = GESMConv(6, 3, 2, K=1, heads=1).to(device)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    with use_backend("triton"):
        outs = [f(x, edge_index, weight) for f in (compiled, layer)]
        grads = [torch.autograd.grad(out.square().sum(), [weight, *layer.parameters()]) for out in outs]
    assert_matches(*outs, rtol=1e-4, atol=1e-5)
    for actual, want in zip(*grads, strict=True):
        assert_matches(actual, want, rtol=1e-4, atol=1e-4)


def test_opcheck(device):
    graph = random_graph(9, 30).to(device)
    x, a, c = (torch.randn(9, *shape, device=device) for shape in ((2, 3), (2,), (2,)))
    structure = (graph.rowptr, graph.col)
    with use_backend("triton"):
        torch.library.opcheck(torch.ops.gesm.spmm.default, (*structure, graph.weight, x.flatten(1)))
        torch.library.opcheck(torch.ops.gesm.sddmm.default, (*structure, x.flatten(1), x.flatten(1), 2))
        half, args = x.half(), (graph.weight, x, a, c)
        torch.library.opcheck(torch.ops.gesm.sddmm.default, (*structure, half.flatten(1), half.flatten(1), 2))
        for operands in (args, (graph.weight, half, a, c)):
            args = (*structure, *operands, "product", 0.3, seed(device), True)
            torch.library.opcheck(torch.ops.gesm.attend.default, args)
            out, lse = torch.ops.gesm.attend(*args)
            transpose = (graph.colptr, graph.row, graph.to_csc)
            back = (*structure, *transpose, *operands, lse, out, "product", 0.3, seed(device), True, True)
            torch.library.opcheck(torch.ops.gesm.attend_backward.default, back)
        for op, args in (
            (torch.ops.gesm.mix, (*structure, graph.weight, torch.randn(9, 6, device=device), 2)),
            (torch.ops.gesm.mix_backward, (graph.colptr, graph.row, graph.weight, torch.randn(9, 2, device=device), 2)),
        ):
            torch.library.opcheck(op.default, args)


def test_the_work_list_covers_every_edge_once_and_is_kept(device, split):
    graph = random_graph(15, 90).to(device)
    work = _rows.items(graph.rowptr)
    assert _rows.items(graph.rowptr) is work
    edges = torch.cat([torch.arange(s, e) for s, e in zip(work.start.tolist(), work.end.tolist(), strict=True)])
    assert edges.sort().values.equal(torch.arange(90))
    target = graph.target.cpu().long()
    for row, start, end in zip(work.row.tolist(), work.start.tolist(), work.end.tolist(), strict=True):
        assert (target[start:end] == row).all()
    assert sorted(work.row.unique().tolist()) == list(range(15))
    lengths = (work.end - work.start).double()
    assert (lengths.log2().ceil().clamp(min=0).diff() <= 1).all()


def test_only_what_the_device_can_run_is_chosen(device):
    with use_backend("triton"):
        assert backend(torch.device(device)) == "triton"
        with pytest.raises(GesmError, match="tensors are on meta"):
            backend(torch.device("meta"))
    assert backend(torch.device("cuda")) == ("triton" if torch.cuda.is_available() else "reference")
