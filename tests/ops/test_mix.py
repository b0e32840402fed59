import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_matches, dense, graphs

from gesm import GesmError, Graph
from gesm.ops import mix, use_backend


def dense_mix(p, x, K):
    blocks = x.unflatten(1, (K + 1, -1))
    return sum(torch.linalg.matrix_power(p, k) @ blocks[:, k] for k in range(K + 1))


@given(graphs(), st.integers(0, 4), st.integers(1, 3))
def test_cpu_equals_reference_and_the_dense_powers(graph, K, width):
    p = graph.transition(dtype=torch.float64)
    x = torch.randn(graph.num_nodes, (K + 1) * width, dtype=torch.float64)
    results = []
    for name in ("reference", "cpu"):
        xi = x.clone().requires_grad_()
        with use_backend(name):
            out = mix(p, xi, K)
        results.append((out.detach(), *torch.autograd.grad((out * out.detach().cos()).sum(), xi)))
    assert_matches(results[1][0], dense_mix(dense(p), x, K))
    for a, b in zip(*results, strict=True):
        assert_matches(a, b)


@given(graphs(weighted=True, max_nodes=5, max_edges=8))
def test_gradcheck_of_blocks_and_weights(graph):
    p = graph.transition(dtype=torch.float64)
    x = torch.randn(graph.num_nodes, 6, dtype=torch.float64, requires_grad=True)
    weight = p.weight.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mix(p, x, 2), x)
    assert torch.autograd.gradcheck(lambda x, w: mix(p.with_weight(w), x, 2), (x, weight))


def test_unweighted_graph_half_precision_and_strided_input():
    graph = Graph(torch.randint(6, (2, 10)), None, 6)
    x = torch.randn(8, 6).t()
    assert_matches(mix(graph, x, 3), dense_mix(dense(graph, torch.float32), x, 3), rtol=1e-5, atol=1e-4)
    assert mix(graph.transition(), x.bfloat16(), 3).dtype is torch.bfloat16


def test_no_step_is_kept_for_backward():
    p = Graph(torch.randint(50, (2, 100)), None, 50).transition()
    x = torch.randn(50, 45, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        mix(p, x, 14)
    assert not any(t.shape in ((50, 3), (50, 45)) for t in kept)


def test_every_element_is_written_and_repeats_bitwise(poisoned):
    p = Graph(torch.tensor([[0, 1], [3, 3]]), None, 6).transition()
    x = torch.ones(6, 9, requires_grad=True)
    first, second = mix(p, x, 2), mix(p, x, 2)
    first.sum().backward()
    assert first.equal(second)
    assert not first.isnan().any()
    assert not x.grad.isnan().any()


def test_opcheck():
    p = Graph(torch.randint(9, (2, 30)), None, 9).transition()
    torch.library.opcheck(torch.ops.gesm.mix.default, (p.rowptr, p.col, p.weight, torch.randn(9, 6), 2))
    torch.library.opcheck(torch.ops.gesm.mix.default, (p.rowptr, p.col, p.weight, torch.randn(9, 6), 0))
    torch.library.opcheck(torch.ops.gesm.mix_backward.default, (p.colptr, p.row, p.weight, torch.randn(9, 2), 2))
    torch.library.opcheck(torch.ops.gesm.mix_backward.default, (p.colptr, p.row, p.weight, torch.randn(9, 2), 0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: mix(g, torch.ones(4, 7), 2), "K \\+ 1 = 3 blocks of equal width, got 7"),
        (lambda g: mix(g, torch.ones(4, 6), -1), "K must be at least 0, a whole number, got -1"),
        (lambda g: mix(g, torch.ones(4, 6), 2.0), "K must be at least 0, a whole number, got 2.0"),
        (lambda g: mix(Graph(torch.zeros(2, 1).int(), None, (2, 4)), torch.ones(4, 6), 2), "as many sources as targets"),
        (lambda g: mix(g, torch.ones(3, 6), 2), r"shape \[4, any\]"),
    ],
)
def test_bad_input_gets_one_clear_error(call, message):
    graph = Graph(torch.tensor([[0, 1, 2], [1, 2, 3]]), None, 4)
    with pytest.raises(GesmError, match=message):
        call(graph)
