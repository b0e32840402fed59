import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_matches, dense_transition, graphs, star

from gesm import GesmError, Graph
from gesm.models import MixedMLP


@given(graphs(), st.sampled_from(["one", "node", "draws", "draws-node"]))
def test_equals_the_dense_formula(graph, kind):
    model = MixedMLP(5, 8, 3, K=3).double()
    nodes = graph.num_nodes
    x = torch.randn(nodes, 5, dtype=torch.float64)
    weight = torch.rand(*{"one": (), "node": (nodes,), "draws": (2, 1), "draws-node": (2, nodes)}[kind], 3, dtype=torch.float64)
    p = dense_transition(graph, "sym")

    def expected(w):
        mixed = sum(w[..., k, None] * (torch.linalg.matrix_power(p, k) @ x) for k in range(w.size(-1))) / 4
        return F.relu(mixed @ model.lin1.weight) @ model.lin2.weight.t() + model.lin2.bias

    assert_matches(model(x, graph), expected(torch.ones(4, dtype=torch.float64)))
    assert_matches(model(x, graph, step_weight=weight), expected(weight))
    out, z = model(x.to_sparse_csr(), graph, step_weight=weight, return_embedding=True)
    assert_matches(out, expected(weight))
    assert_matches(z, x @ model.lin1.weight)


@pytest.mark.parametrize("sparse", [False, True])
def test_input_dropout_keeps_the_mean_and_has_a_gradient(sparse):
    graph, x = Graph(torch.randint(9, (2, 30)), None, 9), torch.rand(9, 5)
    model = MixedMLP(-1, 8, 3, K=2, input_dropout=0.5)
    given = x.to_sparse_csr() if sparse else x
    z = torch.stack([model(given, graph, return_embedding=True)[1] for _ in range(2000)])
    torch.testing.assert_close(z.mean(0), x @ model.lin1.weight, atol=0.1, rtol=0)
    assert z.std(0).min() > 0.01
    model(given, graph).sum().backward()
    assert model.lin1.weight.grad.abs().sum() > 0
    assert model.eval()(given, graph).equal(model(given, graph))
    before = model(given, graph)
    model.reset_parameters()
    assert not model(given, graph).equal(before)


def test_bad_settings_get_clear_errors():
    for options, message in (
        ({"dropout": 1}, r"dropout must be in \[0, 1\)"),
        ({"K": -1}, "K must be at least 0"),
        ({"normalization": "foo"}, "normalization must be one of 'col', 'row', 'sym', got 'foo'"),
    ):
        with pytest.raises(GesmError, match=message):
            MixedMLP(5, 8, 3, **options)


@pytest.mark.parametrize("normalization", ["col", "sym"])
def test_autocast_on_a_hub(normalization):
    hub = star(1500)
    model, x = MixedMLP(5, 8, 3, K=3, normalization=normalization).eval(), torch.randn(1500, 5)
    full = model(x, hub)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, hub).float()
    assert (half - full).norm() < 0.02 * full.norm()
