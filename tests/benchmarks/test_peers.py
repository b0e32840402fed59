import pytest
import torch

from benchmarks.peers import PyGAttend, PyGGAT, PyGGCN, PyGGESM, copy_parameters
from gesm import Graph
from gesm.datasets import synthetic
from gesm.models import GESM
from gesm.ops import attend


@pytest.fixture
def data():
    data = synthetic(num_nodes=50)
    loops = torch.tensor([[3, 7, 9], [3, 7, 9]])  # replaced by one of weight one
    data.edge_index = torch.cat([data.edge_index[:, ::2], loops], 1)  # half the edges: a directed graph
    data.x = data.x.double()
    return data


def draw(model):
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


@pytest.mark.parametrize("K", [0, 5])
@pytest.mark.parametrize("sparse_steps", [False, True])
def test_peer_computes_what_gesm_computes(data, K, sparse_steps):
    sizes = (data.x.size(1), 6, 3)
    ours = draw(GESM(*sizes, K=K, heads=4, dropout=0.3, attention_dropout=0.5)).eval()
    peer = PyGGESM(*sizes, K=K, heads=4, dropout=0.3, attention_dropout=0.5, sparse_steps=sparse_steps).double().eval()
    copy_parameters(ours, peer)
    out, expected = ours(data.x, data.edge_index), peer(data.x, data.edge_index)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)

    gradient = torch.randn_like(out)
    ours_weight, peer_weight = ours.convs[0].attention.lin.weight, peer.attention.lin.weight
    (by_ours,) = torch.autograd.grad(out, ours_weight, gradient)
    (by_peer,) = torch.autograd.grad(expected, peer_weight, gradient)
    torch.testing.assert_close(by_ours.t(), by_peer, rtol=1e-10, atol=1e-10)


def test_as_many_parameters(data):
    sizes = (data.x.size(1), 6, 3)
    ours, peer = GESM(*sizes, K=5, heads=4), PyGGESM(*sizes, K=5, heads=4)
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(ours) == count(peer)


def test_attend_of_the_peer_drops_weights_in_training_only(data):
    graph = Graph.from_edge_index(data.edge_index, num_nodes=50).transition(dtype=torch.float64)
    x, a, c = torch.randn(50, 2, 3).double(), torch.randn(50, 2).double(), torch.randn(50, 2).double()
    peer = PyGAttend(dropout=0.5)
    inputs = (x, graph.edge_index, graph.weight, a, c)
    assert not torch.allclose(peer(*inputs), attend(graph, x, a, c))
    torch.testing.assert_close(peer.eval()(*inputs), attend(graph, x, a, c))


@pytest.mark.parametrize("peer", [PyGGAT, PyGGCN])
def test_small_peers_run(data, peer):
    model = peer(data.x.size(1), 3).double()
    assert model(data.x, data.edge_index).shape == (50, 3)
