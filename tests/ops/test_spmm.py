import io
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_matches, dense, graphs

from gesm import GesmError, Graph
from gesm.ops import _sparse, spmm, use_backend
from gesm.ops.spmm import cpu


def both(graph, x, weight=None):
    """Output and gradients of every backend: reference first."""
    results = []
    for name in ("reference", "cpu"):
        inputs = [t.detach().clone().requires_grad_() for t in (x, weight) if t is not None]
        with use_backend(name):
            out = spmm(graph, *inputs)
        grads = torch.autograd.grad((out * out.detach().cos()).sum(), inputs)
        results.append((out.detach(), *grads))
    return results


@given(graphs(bipartite=True), st.integers(0, 4))
def test_cpu_equals_reference_and_the_dense_product(graph, width):
    x = torch.randn(graph.num_src, width, dtype=torch.float64)
    reference, cpu = both(graph, x)
    assert_matches(cpu[0], dense(graph) @ x)
    for a, b in zip(cpu, reference, strict=True):
        assert_matches(a, b)


@given(graphs(bipartite=True), st.integers(1, 4), st.integers(0, 3))
def test_multi_head_weights_and_their_gradient(graph, heads, d):
    x = torch.randn(graph.num_src, heads, d, dtype=torch.float64)
    weight = torch.randn(graph.num_edges, heads, dtype=torch.float64)
    reference, cpu = both(graph, x, weight)
    for h in range(heads):
        assert_matches(cpu[0][:, h], dense(graph.with_weight(weight[:, h])) @ x[:, h])
    for a, b in zip(cpu, reference, strict=True):
        assert_matches(a, b)


@given(graphs(weighted=True, max_nodes=5, max_edges=8))
def test_gradcheck(graph):
    x = torch.randn(graph.num_src, 2, dtype=torch.float64, requires_grad=True)
    weight = graph.weight.clone().requires_grad_()
    for name in ("reference", "cpu"):
        with use_backend(name):
            assert torch.autograd.gradcheck(lambda x, w: spmm(graph, x, w), (x, weight))
            assert torch.autograd.gradcheck(lambda x, w: spmm(graph.with_weight(w), x), (x, weight))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(dtype):
    edges = torch.stack([torch.arange(3000) % 300, torch.zeros(3000, dtype=torch.long)])
    graph = Graph(edges, None, 300)
    x = torch.rand(300, 4).to(dtype)
    out = spmm(graph, x)
    assert out.dtype is dtype
    torch.testing.assert_close(out[0].float(), x.float().sum(0) * 10, rtol=1e-2, atol=0)


def test_every_element_is_written(poisoned):
    graph = Graph(torch.tensor([[0, 1], [3, 3]]), None, 6)
    for shape in ((6, 3), (6, 2, 3)):
        x = torch.ones(shape, requires_grad=True)
        weight = torch.ones(2, 2, requires_grad=True) if len(shape) == 3 else None
        out = spmm(graph, x, weight)
        out.sum().backward()
        assert not out.isnan().any()
        assert not x.grad.isnan().any()
        assert weight is None or not weight.grad.isnan().any()


@given(graphs(bipartite=True), st.integers(0, 3), st.sampled_from([-1, 1, 2]))
def test_with_and_without_mkl_it_is_the_same(graph, heads, width):
    # Only float32 has a widest product.
    dtype, tolerance = (torch.float64, (1e-10, 1e-12)) if width < 0 else (torch.float32, (1e-5, 1e-5))
    x = torch.randn(graph.num_src, *[heads, 2][: 2 if heads else 0], *([] if heads else [3]), dtype=dtype)
    weight = torch.rand(graph.num_edges, heads, dtype=dtype) if heads else None
    expected = both(graph, x, weight)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sparse, "_MKL_WIDTH", min(width, _sparse._MKL_WIDTH))
        for a, b in zip(both(graph, x, weight)[1], expected, strict=True):
            assert_matches(a, b, *tolerance)


@pytest.mark.parametrize(("vendor", "width"), [("GenuineIntel", 2**31), ("AuthenticAMD", 8)])
def test_mkl_is_for_intel_and_for_narrow_products(monkeypatch, vendor, width):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(f"processor\t: 0\nvendor_id\t: {vendor}\n"))
    assert _sparse._widest_for_mkl() == width
    monkeypatch.setattr("builtins.open", missing := Mock(side_effect=FileNotFoundError))
    monkeypatch.setattr(_sparse.platform, "processor", lambda: f"x86 Family 25 Model 1 Stepping 1, {vendor}")
    assert _sparse._widest_for_mkl() == width
    missing.assert_called_once()
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert _sparse._widest_for_mkl() == -1


def test_repeats_bitwise():
    graph = Graph(torch.randint(500, (2, 9000)), torch.rand(9000), 500)
    x = torch.randn(500, 32)
    assert spmm(graph, x).equal(spmm(graph, x))


def test_opcheck():
    graph = Graph(torch.randint(9, (2, 30)), torch.rand(30), 9)
    x = torch.randn(9, 4)
    torch.library.opcheck(torch.ops.gesm.spmm.default, (graph.rowptr, graph.col, graph.weight, x))
    torch.library.opcheck(torch.ops.gesm.sddmm.default, (graph.rowptr, graph.col, x, x, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: spmm("graph", torch.ones(4, 2)), "takes a gesm.Graph first, got str"),
        (lambda g: spmm(g, torch.ones(5, 2)), r"shape \[4, any\].*\[5, 2\]"),
        (lambda g: spmm(g, torch.ones(4, 2).long()), "floating-point tensor, got torch.int64"),
        (lambda g: spmm(g, torch.ones(4, 2).to_sparse_csr()), r"x must be dense, got torch.sparse_csr; pass x.to_dense\(\)"),
        (lambda g: spmm(g, torch.ones(4, 2, device="meta")), "x is on meta"),
        (lambda g: spmm(g, torch.ones(4, 2), torch.ones(5)), r"weight must have shape \[3\]"),
        (lambda g: spmm(g, torch.ones(4, 2, 3), torch.ones(3, 4)), r"weight must have shape \[3, 2\]"),
        (lambda g: spmm(g, torch.ones(4, 0, 3), torch.ones(3, 0)), r"at least one head, got shape \[4, 0, 3\]"),
        (lambda g: spmm(g, torch.ones(4, 6), torch.ones(3, 2)), r"weight must have shape \[3\]"),
    ],
)
def test_bad_input_gets_one_clear_error(call, message):
    graph = Graph(torch.tensor([[0, 1, 2], [1, 2, 3]]), None, 4)
    with pytest.raises(GesmError, match=message):
        call(graph)


@given(graphs(bipartite=True), st.integers(1, 4))
def test_strips_equal_the_plain_product(graph, width):
    x = torch.randn(graph.num_src, width, dtype=torch.float64)
    value = torch.randn(graph.num_edges, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "STRIP_ROWS", 3)
        out = cpu._spmm_by_strips(graph.rowptr, graph.col, value, x)
    assert_matches(out, dense(graph.with_weight(value)) @ x)


def test_a_long_operand_with_a_short_result_goes_by_strips(monkeypatch):
    graph = Graph(torch.stack([torch.randint(40000, (90000,)), torch.randint(9, (90000,))]), torch.rand(90000), (40000, 9))
    x = torch.randn(40000, 128)
    seen = []
    by_strips = cpu._spmm_by_strips
    monkeypatch.setattr(cpu, "_spmm_by_strips", lambda *args: seen.append(1) or by_strips(*args))
    assert_matches(spmm(graph, x), dense(graph, torch.float32) @ x, rtol=1e-4, atol=1e-4)
    assert seen
    sparse = Graph(graph.edge_index[:, ::200], graph.weight[::200], (40000, 9))  # fewer edges than strips have rows
    assert_matches(spmm(sparse, x), dense(sparse, torch.float32) @ x, rtol=1e-4, atol=1e-4)
    assert len(seen) == 1
