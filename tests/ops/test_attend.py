import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_matches, graphs, star

from gesm import GesmError, Graph
from gesm.ops import _sparse, attend, attend_scores, attention_weights, spmm, use_backend
from gesm.ops.attend import reference

SEED = torch.tensor([2**40 + 12345])


def operands(graph, heads, d, dtype=torch.float64):
    x = torch.randn(graph.num_src, heads, d, dtype=dtype)
    a = torch.randn(graph.num_dst, heads, dtype=dtype)
    c = torch.randn(graph.num_src, heads, dtype=dtype)
    return x, a, c


def run(backend, graph, x, a, c, **kwargs):
    """Output and the gradients of x, a, c and, if there are any, the weights."""
    inputs = [t.detach().clone().requires_grad_() for t in (x, a, c)]
    if graph.weight is not None and kwargs.get("score") != "additive":
        inputs.append(graph.weight.detach().clone().requires_grad_())
        graph = graph.with_weight(inputs[-1])
    with use_backend(backend):
        out = attend(graph, *inputs[:3], **kwargs)
    return out.detach(), *torch.autograd.grad((out * out.detach().cos()).sum(), inputs)


def dense_attend(graph, x, a, c, score):
    """The formula edge by edge and row by row, multi-edges apart."""
    weight = torch.ones(graph.num_edges).double() if graph.weight is None else graph.weight
    out = torch.zeros(graph.num_dst, *x.shape[1:], dtype=x.dtype)
    for i in range(graph.num_dst):
        for h in range(x.size(1)):
            edges = (graph.target == i).nonzero().view(-1)
            if edges.numel() == 0:
                continue
            j = graph.col[edges].long()
            if score == "product":
                s = weight[edges] * a[i, h] * c[j, h]
            else:
                s = torch.nn.functional.leaky_relu(a[i, h] + c[j, h], 0.2)
            out[i, h] = s.softmax(0) @ x[j, h]
    return out


@given(graphs(bipartite=True), st.integers(1, 4), st.integers(0, 4), st.sampled_from(["product", "additive"]))
def test_equals_the_formula(graph, heads, d, score):
    x, a, c = operands(graph, heads, d)
    expected = dense_attend(graph, x, a, c, score)
    for backend in ("reference", "cpu"):
        with use_backend(backend):
            assert_matches(attend(graph, x, a, c, score=score), expected)


@given(
    graphs(bipartite=True),
    st.integers(1, 4),
    st.integers(0, 4),
    st.sampled_from(["product", "additive"]),
    st.sampled_from([0.0, 0.6]),
)
def test_cpu_equals_reference(graph, heads, d, score, dropout):
    x, a, c = operands(graph, heads, d)
    kwargs = {"score": score, "dropout": dropout, "seed": SEED, "residual": not graph.is_bipartite}
    for actual, expected in zip(run("cpu", graph, x, a, c, **kwargs), run("reference", graph, x, a, c, **kwargs), strict=True):
        assert_matches(actual, expected)


def by_scores(backend, graph, x, scores, **kwargs):
    inputs = [t.detach().clone().requires_grad_() for t in (x, scores)]
    with use_backend(backend):
        out = attend_scores(graph, *inputs, **kwargs)
    return out.detach(), *torch.autograd.grad((out * out.detach().cos()).sum(), inputs)


@given(graphs(bipartite=True), st.integers(1, 4), st.integers(0, 4), st.sampled_from([0.0, 0.6]))
def test_given_scores_equal_reference_and_the_scores_that_gave_them(graph, heads, d, dropout):
    x, a, c = operands(graph, heads, d)
    kwargs = {"dropout": dropout, "seed": SEED, "residual": not graph.is_bipartite}
    scores = torch.nn.functional.leaky_relu(a[graph.target.long()] + c[graph.col.long()], 0.2)
    expected = by_scores("reference", graph, x, scores, **kwargs)
    for actual, want in zip(by_scores("cpu", graph, x, scores, **kwargs), expected, strict=True):
        assert_matches(actual, want)
    assert_matches(expected[0], attend(graph, x, a, c, score="additive", **kwargs))


def test_gradcheck_of_given_scores():
    graph = Graph(torch.tensor([[0, 1, 1, 2], [0, 0, 1, 0]]), None, 3)
    x, scores = torch.randn(3, 2, 2).double().requires_grad_(), torch.randn(4, 2).double().requires_grad_()
    for backend in ("reference", "cpu"):
        with use_backend(backend):
            assert torch.autograd.gradcheck(lambda x, s: attend_scores(graph, x, s, dropout=0.3, seed=SEED), (x, scores))


@pytest.mark.parametrize("size", [1, 30])  # of the scores: from 16 on they are shifted by their maximum
@pytest.mark.parametrize("mkl", [True, False])
@pytest.mark.parametrize("entries", [1, 7, 64])
def test_many_blocks_equal_one(monkeypatch, entries, mkl, size):
    graph = Graph(torch.randint(30, (2, 200)), torch.rand(200, dtype=torch.float64), 30)
    x, a, c = operands(graph, 3, 4)
    a = a * size
    expected = run("reference", graph, x, a, c, dropout=0.3, seed=SEED, residual=True)
    monkeypatch.setattr(_sparse, "_MKL_WIDTH", _sparse._MKL_WIDTH if mkl else -1)
    monkeypatch.setattr(_sparse, "BLOCK_ENTRIES", entries)
    monkeypatch.setattr(_sparse, "CACHED_ENTRIES", 0)
    for actual, want in zip(run("cpu", graph, x, a, c, dropout=0.3, seed=SEED, residual=True), expected, strict=True):
        assert_matches(actual, want)


@given(graphs(weighted=True, max_nodes=4, max_edges=6), st.sampled_from(["product", "additive"]), st.booleans())
def test_gradcheck(graph, score, drop):
    inputs = [t.requires_grad_() for t in operands(graph, 2, 2)]
    weight = graph.weight.clone().requires_grad_()
    kwargs = {"score": score, "dropout": 0.5 if drop else 0.0, "seed": SEED}

    def f(x, a, c, w):
        return attend(graph.with_weight(w), x, a, c, **kwargs)

    for backend in ("reference", "cpu"):
        with use_backend(backend):
            assert torch.autograd.gradcheck(f, (*inputs, weight))


def test_scores_far_from_zero_and_undefined_ones():
    graph = Graph(torch.tensor([[0, 1, 0], [1, 1, 0]]), None, 2)
    x, one = torch.eye(2, dtype=torch.float64).view(2, 1, 2), torch.ones(2, 1, dtype=torch.float64)
    for size in (15.9, 16.1, 1000.0, -1000.0):
        (out, *_), (expected, *_) = (run(name, graph, x, one, one * size) for name in ("cpu", "reference"))
        assert_matches(out, expected)
    (out, *_), (expected, *_) = (run(name, graph, x, one, one * float("nan")) for name in ("cpu", "reference"))
    assert out.isnan().equal(expected.isnan())


def test_float32_is_near_float64():
    graph = Graph(torch.randint(200, (2, 3000)), torch.rand(3000), 200)
    x, a, c = operands(graph, 8, 16)
    double = Graph(graph.edge_index, graph.weight.double(), 200)
    expected = run("reference", double, x, a, c)
    for actual, want in zip(run("cpu", graph, x.float(), a.float(), c.float()), expected, strict=True):
        assert_matches(actual.double(), want, rtol=1e-4, atol=1e-5)


def test_large_scores_do_not_overflow():
    graph = Graph(torch.tensor([[0, 1, 2], [0, 0, 0]]), None, 3)
    x, a, c = torch.randn(3, 1, 2), torch.full((3, 1), 1e3), torch.tensor([[1e3], [0.0], [-1e3]])
    assert attend(graph, x, a, c)[0].equal(x[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    graph = Graph(torch.randint(20, (2, 90)), None, 20)
    x, a, c = (t.to(dtype) for t in operands(graph, 2, 4))
    out = attend(graph, x, a, c)
    assert out.dtype is dtype
    torch.testing.assert_close(out.float(), attend(graph, x.float(), a.float(), c.float()), rtol=1e-2, atol=1e-2)


def test_dropout_keeps_the_mean_and_follows_the_seed():
    graph = Graph(torch.randint(50, (2, 4000)), None, 50)
    x, a, c = operands(graph, 2, 3)
    x, a = x.abs(), a * 0.1
    assert attend(graph, x, a, c, dropout=0.5, seed=SEED).equal(attend(graph, x, a, c, dropout=0.5, seed=SEED))
    seeds = [torch.tensor([s]) for s in range(300)]
    mean = torch.stack([attend(graph, x, a, c, dropout=0.5, seed=s) for s in seeds]).mean(0)
    torch.testing.assert_close(mean, attend(graph, x, a, c), rtol=0.25, atol=0)
    torch.manual_seed(1)
    first = attend(graph, x, a, c, dropout=0.5)
    assert not first.equal(attend(graph, x, a, c, dropout=0.5))
    torch.manual_seed(1)
    assert first.equal(attend(graph, x, a, c, dropout=0.5))


def test_attention_weights_sum_to_one():
    graph = Graph(torch.randint(20, (2, 90)), None, 20).transition(dtype=torch.float64)
    x, a, c = operands(graph, 3, 4)
    alpha = attention_weights(graph, a, c)
    assert alpha.shape == (graph.num_edges, 3)
    assert_matches(torch.zeros(20, 3).double().index_add(0, graph.target, alpha), torch.ones(20, 3).double())
    out = torch.zeros(20, 3, 4).double().index_add(0, graph.target, alpha.unsqueeze(-1) * x[graph.col.long()])
    assert_matches(out, attend(graph, x, a, c))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_weights_sum_to_one_in_half_precision(dtype):
    graph = Graph(star(3000), None, 3000)
    scores = torch.zeros(3000, 1, dtype=dtype)
    alpha = attention_weights(graph, scores, scores)
    assert alpha.dtype == dtype
    assert abs(alpha[graph.target == 0].float().sum() - 1) < 0.01


def test_more_heads_than_int32_counts_nodes(monkeypatch):
    rowptr, col = torch.tensor([0, 2], dtype=torch.int32), torch.tensor([3, 2**28 + 1], dtype=torch.int32)
    block = _sparse._make_block(rowptr, col, 8, 0, 1)
    expected = (col.long()[None] * 8 + torch.arange(8)[:, None]).view(-1)
    assert block.heads_col.equal(expected)
    assert block.heads_rowptr.dtype == block.heads_col.dtype
    near = _sparse._make_block(rowptr, torch.tensor([3, 5], dtype=torch.int32), 8, 0, 1)
    monkeypatch.setattr(_sparse, "_bag", lambda *_: torch.full((8, 1), 7.0))  # MKL cannot count the columns
    out = _sparse.csr_matmul(near.matrix(torch.ones(2, 8), 2**28 + 8), torch.zeros(1, 1).expand(2**31 + 64, 1))
    assert out.equal(torch.full((8, 1), 7.0))


def test_every_element_is_written(poisoned):
    graph = Graph(torch.tensor([[0, 1, 4], [3, 3, 4]]), torch.ones(3), 6)
    for entries in (2**20, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_sparse, "BLOCK_ENTRIES", entries)
            patch.setattr(_sparse, "CACHED_ENTRIES", 0)
            x, a, c = operands(graph, 2, 3, torch.float32)
            for value in run("cpu", graph, x, a, c, dropout=0.3, seed=SEED):
                assert not value.isnan().any()


def test_repeats_bitwise():
    graph = Graph(torch.randint(300, (2, 9000)), torch.rand(9000), 300)
    x, a, c = operands(graph, 8, 16, torch.float32)
    first, second = (run("cpu", graph, x, a, c, dropout=0.3, seed=SEED) for _ in range(2))
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))


def test_nothing_of_edge_size_is_kept_or_made(monkeypatch):
    """No [E, heads, d] tensor appears in forward or backward, by the sizes of all that PyTorch allocates."""
    graph = Graph(torch.randint(50, (2, 4000)), None, 50).transition()
    x, a, c = (t.requires_grad_() for t in operands(graph, 4, 32, torch.float32))
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(t, torch.Tensor) and t.layout is torch.strided:
                    largest = max(largest, t.numel())
            return out

    attend(graph, x, a, c).sum().backward()
    monkeypatch.setattr(_sparse, "CACHED_ENTRIES", 0)
    args = (graph.rowptr, graph.col, graph.weight, x.detach(), a.detach(), c.detach(), "product", 0.5, SEED, False)
    with Watch(), torch.no_grad():
        from gesm.ops.attend import cpu

        out, lse = cpu.attend(*args)
        transpose = (graph.colptr, graph.row, graph.to_csc)
        cpu.attend_backward(*args[:2], *transpose, *args[2:6], lse, out, *args[6:], False)
    assert largest <= 4 * graph.num_edges < graph.num_edges * 4 * 32


def test_opcheck():
    p = Graph(torch.randint(9, (2, 30)), None, 9).transition()
    x, a, c = operands(p, 2, 3, torch.float32)
    args = (p.rowptr, p.col, p.weight, x, a, c, "product", 0.3, SEED, True)
    torch.library.opcheck(torch.ops.gesm.attend.default, args)
    out, lse = torch.ops.gesm.attend(*args)
    back = (p.rowptr, p.col, p.colptr, p.row, p.to_csc, p.weight, x, a, c, lse, out, "product", 0.3, SEED, True, True)
    torch.library.opcheck(torch.ops.gesm.attend_backward.default, back)


def test_reference_is_differentiable_twice():
    graph = Graph(torch.randint(4, (2, 9)), None, 4)
    x, a, c = (t.requires_grad_() for t in operands(graph, 1, 2))
    ones = torch.ones(graph.num_edges).double()
    assert torch.autograd.gradgradcheck(
        lambda x, a, c: reference.attend(graph.col, graph.target, ones, x, a, c, "product", 0.0, SEED, False), (x, a, c)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"graph": None}, "takes a gesm.Graph first, got NoneType"),
        ({"x": torch.ones(4, 6)}, r"x must have shape \[4, any, any\].*\[4, 6\]"),
        ({"x": torch.ones(5, 2, 3)}, r"x must have shape \[4, any, any\]"),
        ({"x": torch.ones(4, 2, 3).int()}, "floating-point"),
        ({"score_dst": torch.ones(4, 3)}, r"score_dst must have shape \[4, 2\].*\[4, 3\]"),
        ({"score_src": torch.ones(3, 2)}, r"score_src must have shape \[4, 2\].*\[3, 2\]"),
        ({"score": "sum"}, "'product', 'additive', got 'sum'"),
        ({"graph": Graph(torch.zeros(2, 1).int(), None, (4, 5)), "score_dst": torch.ones(5, 2), "residual": True}, "as many"),
        ({"seed": torch.tensor(3)}, r"seed must be an int64 tensor of shape \[1\]"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_input_gets_one_clear_error(change, message):
    graph = Graph(torch.tensor([[0, 1, 2], [1, 2, 3]]), None, 4)
    good = {"graph": graph, "x": torch.ones(4, 2, 3), "score_dst": torch.ones(4, 2), "score_src": torch.ones(4, 2)}
    with pytest.raises(GesmError, match=message):
        attend(**{**good, **change})


@pytest.mark.parametrize(
    ("x", "scores", "message"),
    [
        (torch.ones(4, 6), torch.ones(3, 2), r"x must have shape \[4, any, any\]"),
        (torch.ones(4, 2, 3), torch.ones(3, 1), r"scores must have shape \[3, 2\].*\[3, 1\]"),
        (torch.ones(4, 2, 3), torch.ones(4, 2), r"scores must have shape \[3, 2\].*\[4, 2\]"),
        (torch.ones(4, 2, 3), torch.ones(3, 2).long(), "scores must be a floating-point tensor"),
    ],
)
def test_bad_scores_get_one_clear_error(x, scores, message):
    with pytest.raises(GesmError, match=message):
        attend_scores(Graph(torch.tensor([[0, 1, 2], [1, 2, 3]]), None, 4), x, scores)


def test_operators_in_turns_on_one_graph_do_not_mix_up_their_indices():
    graph = Graph(torch.randint(12, (2, 50)), torch.rand(50, dtype=torch.float64), 12)
    x, a, c = operands(graph, 2, 3)
    weight = torch.rand(50, 2, dtype=torch.float64, requires_grad=True)
    x = x.requires_grad_()

    def by_spmm():
        return torch.autograd.grad(spmm(graph, x, weight).square().sum(), (x, weight))

    calls = [by_spmm, lambda: run("cpu", graph, x, a, c), lambda: run("cpu", graph.transpose(), x, a, c)]
    fresh = []
    for call in calls:
        _sparse._expanded.clear()
        fresh.append(call())
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        _sparse._expanded.clear()
        for i in (*order, *order):
            for got, want in zip(calls[i](), fresh[i], strict=True):
                assert got.equal(want)


def test_several_cached_blocks_with_a_residual(monkeypatch):
    graph = Graph(torch.randint(30, (2, 200)), torch.rand(200, dtype=torch.float64), 30)
    x, a, c = operands(graph, 3, 4)
    kwargs = {"dropout": 0.3, "seed": SEED, "residual": True}
    expected = run("reference", graph, x, a, c, **kwargs)
    monkeypatch.setattr(_sparse, "BLOCK_ENTRIES", 50)
    for _ in range(2):
        for actual, want in zip(run("cpu", graph, x, a, c, **kwargs), expected, strict=True):
            assert_matches(actual, want)
