import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import STEP_WEIGHTS, assert_matches, dense_transition, graphs, step_weight

from gesm import GesmError, Graph
from gesm.models import GSM


@given(graphs())
def test_equals_the_dense_formula(graph):
    model = GSM(5, 8, 3, K=3).double()
    x = torch.randn(graph.num_nodes, 5, dtype=torch.float64)
    p = dense_transition(graph)
    h = F.elu(x @ model.lins[0].weight)
    maps = model.mixture.lin.weight.split(3)
    expected = sum(torch.linalg.matrix_power(p, k) @ h @ b.t() for k, b in enumerate(maps)) + model.mixture.bias
    assert_matches(model(x, graph), expected)
    out, z = model(x.to_sparse_csr(), graph, return_embedding=True)
    assert_matches(out, expected)
    assert_matches(z, x @ model.lins[0].weight)


@given(graphs(), st.booleans(), STEP_WEIGHTS | st.none())
def test_a_linear_classifier_reads_the_normalised_mixture(graph, sparse, kind):
    model, nodes = GSM(5, 8, 3, K=3, num_layers=2, classifier="linear", layer_norm=True).double(), graph.num_nodes
    for norm in model.norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 2), torch.nn.init.uniform_(norm.bias)
    x, p = torch.randn(nodes, 5, dtype=torch.float64), dense_transition(graph)

    def activated(x, norm):
        x = x - x.mean(-1, keepdim=True)
        return F.elu(x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias)

    h = activated(x @ model.lins[0].weight, model.norms[0])
    h = activated(h @ model.lins[1].weight, model.norms[1])
    weight = None if kind is None else step_weight(kind, nodes)
    w, maps = torch.ones(4, dtype=torch.float64) if weight is None else weight, model.mixture.lin.weight.split(8)
    mixed = sum(w[..., k, None] * (torch.linalg.matrix_power(p, k) @ h @ maps[k].t()) for k in range(w.size(-1)))
    expected = model.classifier(activated(mixed + model.mixture.bias, model.norms[2]))
    assert_matches(model(x.to_sparse_csr() if sparse else x, graph, step_weight=weight), expected, rtol=1e-7, atol=1e-9)


def test_gradients_pass_the_classifier_and_its_normalisation():
    graph, model = Graph(torch.randint(6, (2, 12)), None, 6), GSM(3, 4, 2, K=2, classifier="linear", layer_norm=True)
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: model.double()(x, graph), x)


def test_a_reset_draws_the_classifier_and_forgets_the_normalisation():
    model = GSM(5, 8, 3, K=2, classifier="linear", layer_norm=True)
    before = model.classifier.weight.clone()
    torch.nn.init.uniform_(model.norms[1].weight)
    model.reset_parameters()
    assert model.norms[1].weight.eq(1).all()
    assert not model.classifier.weight.equal(before)


def test_layers_dropout_and_reset():
    graph, x = Graph(torch.randint(9, (2, 30)), None, 9), torch.randn(9, 5)
    model = GSM(-1, 8, 3, K=2, dropout=0.5, num_layers=2)
    assert model(x, graph).shape == (9, 3)
    assert model.eval()(x, graph).equal(model(x, graph))
    before = model(x, graph)
    model.reset_parameters()
    assert not model(x, graph).equal(before)
    masked = GSM(5, 8, 3, K=2, input_dropout=0.5)
    assert not masked(x, graph).equal(masked(x, graph))
    assert masked.eval()(x, graph).equal(masked(x, graph))


def test_depth_and_dropout_may_be_changed():
    model, x, edges = GSM(5, 8, 3, K=4, dropout=0.9, num_layers=2).train(), torch.randn(9, 5), torch.randint(9, (2, 20))
    model.dropout = 0.0
    assert model(x, edges).equal(model(x, edges))
    model.K = 1
    assert model(x, edges).equal(model(x, edges, step_weight=torch.ones(2)))


def test_features_of_another_type_get_a_clear_error():
    with pytest.raises(GesmError, match=r"floating-point tensor, got torch.int64; use .float\(\)"):
        GSM(5, 8, 3)(torch.ones(4, 5).long(), torch.zeros(2, 1, dtype=torch.long))


def test_bad_settings_get_clear_errors():
    with pytest.raises(GesmError, match="num_layers must be at least 1"):
        GSM(5, 8, 3, num_layers=0)
    with pytest.raises(GesmError, match=r"dropout must be in \[0, 1\)"):
        GSM(5, 8, 3, dropout=1)
    with pytest.raises(GesmError, match=r"input_dropout must be in \[0, 1\)"):
        GSM(5, 8, 3, input_dropout=1)
    with pytest.raises(GesmError, match="classifier must be one of 'mixture', 'linear', got 'mlp'"):
        GSM(5, 8, 3, classifier="mlp")


def test_another_classifier_may_be_put_in():
    model = GSM(6, 8, 3, K=2, classifier="linear")
    model.classifier = torch.nn.Linear(8, 5)
    assert model(torch.randn(4, 6), torch.randint(4, (2, 9))).shape == (4, 5)
