import pytest
import torch
from strategies import assert_matches

from gesm import GesmError, Graph
from gesm.models import GESM
from gesm.nn import GESMConv


def test_one_layer_is_the_conv_and_returns_its_embedding():
    graph, x = Graph(torch.randint(9, (2, 30)), None, 9), torch.randn(9, 5)
    model = GESM(5, 4, 3, K=4, heads=2).eval()
    assert_matches(model(x, graph), model.convs[0](x, graph), rtol=1e-6)
    out, z = model(x, graph, return_embedding=True)
    assert_matches(z, x @ model.convs[0].attention.lin.weight, rtol=1e-5, atol=1e-6)
    assert out.shape == (9, 3)


def test_a_stack_trains():
    torch.manual_seed(0)
    graph, x = Graph(torch.randint(40, (2, 100)), None, 40), torch.randn(40, 5)
    y = torch.randint(3, (40,))
    model = GESM(-1, 4, 3, K=2, heads=2, num_layers=2, dropout=0.1, attention_dropout=0.1)
    model(x, graph)
    assert [conv.in_channels for conv in model.convs] == [-1, 8]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x, graph), y)
        loss.backward()
        optimizer.step()
    assert loss < 0.4
    model.reset_parameters()
    assert isinstance(model.convs[1], GESMConv)


def test_no_layer_is_an_error():
    with pytest.raises(GesmError, match="num_layers must be at least 1, got 0"):
        GESM(5, 4, 3, num_layers=0)
