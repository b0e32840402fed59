import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from strategies import assert_matches, dense_transition, graphs

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


def test_bad_settings_get_clear_errors():
    with pytest.raises(GesmError, match="num_layers must be at least 1"):
        GSM(5, 8, 3, num_layers=0)
    with pytest.raises(GesmError, match=r"dropout must be in \[0, 1\)"):
        GSM(5, 8, 3, dropout=1)
    with pytest.raises(GesmError, match=r"input_dropout must be in \[0, 1\)"):
        GSM(5, 8, 3, input_dropout=1)
