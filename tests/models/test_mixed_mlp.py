import gc
import weakref
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import STEP_WEIGHTS, assert_matches, dense_transition, graphs, star, step_weight

from gesm import GesmError, Graph
from gesm.models import MixedMLP, mixed_mlp


@given(graphs(), STEP_WEIGHTS)
def test_equals_the_dense_formula(graph, kind):
    model = MixedMLP(5, 8, 3, K=3).double()
    nodes = graph.num_nodes
    x, weight = torch.randn(nodes, 5, dtype=torch.float64), step_weight(kind, nodes)
    p = dense_transition(graph, "sym")

    def expected(w):
        mixed = sum(w[..., k, None] * (torch.linalg.matrix_power(p, k) @ x) for k in range(w.size(-1))) / 4
        return F.relu(mixed @ model.lin1.weight) @ model.lin2.weight.t() + model.lin2.bias

    assert_matches(model(x, graph), expected(torch.ones(4, dtype=torch.float64)))
    assert_matches(model(x, graph, step_weight=weight), expected(weight))
    out, z = model(x.to_sparse_csr(), graph, step_weight=weight, return_embedding=True)
    assert_matches(out, expected(weight))
    assert_matches(z, x @ model.lin1.weight)


@given(graphs(), st.one_of(STEP_WEIGHTS, st.just("all")), st.sampled_from(["hidden", "both"]), st.booleans(), st.booleans())
def test_batch_norm_equals_the_dense_formula(graph, kind, which, training, sparse):
    model, nodes = MixedMLP(5, 8, 3, K=3, batch_norm=which).double().train(training), graph.num_nodes
    for norm in (model.input_norm, model.norm):
        for t in (*norm.parameters(), norm.module.running_mean, norm.module.running_var) if norm else ():
            torch.nn.init.uniform_(t, 0.5, 2)
    before = deepcopy(model)
    x, p = torch.randn(nodes, 5, dtype=torch.float64), dense_transition(graph, "sym")
    weight = None if kind == "all" else step_weight(kind, nodes)
    w = torch.ones(4, dtype=torch.float64) if weight is None else weight
    mixed = sum(w[..., k, None] * (torch.linalg.matrix_power(p, k) @ x) for k in range(w.size(-1))) / 4
    rows = mixed.flatten(0, -2) if which == "hidden" else before.input_norm(mixed.flatten(0, -2))
    expected = before.lin2(before.norm(F.relu(rows @ before.lin1.weight))).unflatten(0, mixed.shape[:-1])
    out, z = model(x.to_sparse_csr() if sparse else x, graph, step_weight=weight, return_embedding=True)
    assert_matches(out, expected, rtol=1e-7, atol=1e-9)
    assert_matches(z, x @ model.lin1.weight)
    torch.testing.assert_close(model.state_dict(), before.state_dict(), rtol=1e-7, atol=1e-9)


def test_the_remembered_steps_follow_what_changes():
    edges, x = torch.randint(9, (2, 30)), torch.rand(9, 5)
    weight, graph = torch.rand(30), Graph(edges, None, 9)
    model = MixedMLP(5, 8, 3, K=2, batch_norm="both").eval()

    def fresh(x, *adjacency):
        return model(x.clone(), *adjacency)

    with torch.inference_mode():
        first = model(x, graph)
    _, _, steps = mixed_mlp._remembered[x]
    assert model(x, graph).equal(first)
    assert mixed_mlp._remembered[x][2] is steps
    x.mul_(2)
    assert model(x, graph).equal(fresh(x, graph))
    assert not model(x, graph).equal(first)
    assert model(x, edges, weight).equal(fresh(x, edges, weight))
    weight.mul_(torch.arange(30))
    assert model(x, edges, weight).equal(fresh(x, edges, weight))
    for model.K in (1, 3):
        assert model(x, graph).equal(fresh(x, graph))
    model.train()(x, graph).sum().backward()
    assert model.input_norm.module.weight.grad.abs().sum() > 0
    before = model.eval()(x, graph)
    model.reset_parameters()
    assert model.input_norm.module.running_mean.equal(torch.zeros(5))
    assert not model(x, graph).equal(before)


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr])
def test_the_remembered_steps_go_with_the_features(layout):
    graph, x = Graph(torch.randint(9, (2, 30)), None, 9), torch.rand(9, 5).to_sparse(layout=layout)
    result = MixedMLP(5, 8, 3, K=2, batch_norm="both")(x, graph)
    steps = weakref.ref(mixed_mlp._remembered[x][2])
    del x, result
    gc.collect()
    assert steps() is None


def test_batch_norm_passes_gradients_to_features_and_edge_weights():
    edges, model = torch.randint(6, (2, 12)), MixedMLP(3, 4, 3, K=2, batch_norm="both")
    x, weight = (torch.rand(*shape, dtype=torch.float64, requires_grad=True) for shape in ((6, 3), (12,)))
    model = model.double()
    assert torch.autograd.gradcheck(lambda x, w: model(x, edges, w), (x, weight))
    assert torch.autograd.gradcheck(lambda w: model(x.detach(), edges, w), weight)


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
        ({"K": 2.5}, "K must be at least 0, a whole number, got 2.5"),
        ({"batch_norm": "both", "in_channels": -1}, "batch_norm='both' needs in_channels, the number of features, got -1"),
        ({"batch_norm": True}, "batch_norm must be one of 'none', 'hidden', 'both', got True"),
        ({"normalization": "foo"}, "normalization must be one of 'col', 'row', 'sym', got 'foo'"),
    ):
        with pytest.raises(GesmError, match=message):
            MixedMLP(**{"in_channels": 5, "hidden_channels": 8, "out_channels": 3} | options)


@pytest.mark.parametrize("normalization", ["col", "sym"])
def test_autocast_on_a_hub(normalization):
    hub = star(1500)
    model, x = MixedMLP(5, 8, 3, K=3, normalization=normalization).eval(), torch.randn(1500, 5)
    full = model(x, hub)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, hub).float()
    assert (half - full).norm() < 0.02 * full.norm()
