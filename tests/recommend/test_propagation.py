import pytest
import torch
from torch_geometric.nn import LightGCN as PyGLightGCN

from gesm import GesmError, Graph
from gesm.nn import HopSampling
from gesm.ops import use_backend
from gesm.recommend import EmbeddingPropagation, Interactions


def bipartite(seed=0, users=7, items=5, pairs=20):
    draw = torch.Generator().manual_seed(seed)
    user, item = torch.randint(users, (pairs,), generator=draw), torch.randint(items, (pairs,), generator=draw)
    return Interactions.from_arrays(user, item).graph()


def dense(graph, x, weight, alpha):
    p = graph.transition("sym", self_loops=False)
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=x.dtype)
    matrix[p.target.long(), p.col.long()] = p.weight.to(x.dtype)
    steps = [x]
    for _ in range(weight.size(-1) - 1):
        steps.append(matrix @ steps[-1])
    return sum(weight[..., j : j + 1] * alpha[j] * step for j, step in enumerate(steps))


@pytest.mark.parametrize("K", [0, 1, 3])
def test_equals_lightgcn_of_pyg(K):
    graph = bipartite()
    peer = PyGLightGCN(graph.num_nodes, 6, K)
    ours = EmbeddingPropagation(K)
    x = peer.embedding.weight.detach().clone().requires_grad_()
    expected, out = peer.get_embedding(graph.edge_index), ours(x, graph)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    seed = torch.randn_like(out)
    expected.backward(seed)
    out.backward(seed)
    torch.testing.assert_close(x.grad, peer.embedding.weight.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", ["uniform", "softmax", "free"])
@pytest.mark.parametrize("shape", [(), ("N",), (2, "N"), (2, 1)], ids=str)
@pytest.mark.parametrize("J", [0, 2, 3])
def test_step_weights_against_dense(alpha, shape, J):
    graph = bipartite()
    layer = EmbeddingPropagation(3, alpha).double()
    if alpha != "uniform":
        torch.nn.init.normal_(layer.alpha)
    x = torch.randn(graph.num_nodes, 4, dtype=torch.float64, requires_grad=True)
    sizes = [graph.num_nodes if n == "N" else n for n in shape]
    weight = torch.rand(*sizes, J + 1, dtype=torch.float64)
    out = layer(x, graph, step_weight=weight)
    expected = dense(graph, x, weight, layer.step_coefficients(x))
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-7)
    inputs = [x, *layer.parameters()]
    seed = torch.randn_like(out)
    got, wanted = (torch.autograd.grad(o, inputs, seed, retain_graph=True) for o in (out, expected))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("alpha", ["uniform", "softmax"])
def test_gradcheck_and_reference(alpha):
    graph = bipartite().transition("sym", self_loops=False, dtype=torch.float64)
    layer = EmbeddingPropagation(2, alpha).double()
    x = torch.randn(graph.num_nodes, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, graph), x)
    out = layer(x, graph)
    with use_backend("reference"):
        torch.testing.assert_close(layer(x, graph), out)


def test_hop_sampling_reads_every_depth():
    graph, layer = bipartite(), EmbeddingPropagation(4)
    hop = HopSampling(layer)
    x = torch.randn(graph.num_nodes, 3)
    hop.eval()
    assert torch.equal(hop(x, graph), layer(x, graph))
    for k in range(1, 5):  # at depth k it is LightGCN with k layers
        with hop.at(k):
            torch.testing.assert_close(hop(x, graph), EmbeddingPropagation(k)(x, graph))
    with hop.at("expected"):
        expected = sum(EmbeddingPropagation(k)(x, graph) for k in range(1, 5)) / 4
        torch.testing.assert_close(hop(x, graph), expected)
    assert hop.sample(5, x, graph).shape == (5, graph.num_nodes, 3)


def test_edge_dropout_leaves_out_both_directions():
    graph = bipartite(users=30, items=20, pairs=200)
    layer = EmbeddingPropagation(1, edge_dropout=0.4)
    layer.generator = torch.Generator().manual_seed(1)
    eye = torch.eye(graph.num_nodes)
    step = 2 * layer(eye, graph) - eye  # P of what is left
    assert torch.equal(step, step.t())
    kept = step.count_nonzero() / graph.num_edges
    assert 0.5 < kept < 0.7
    left = step > 0
    degree = left.sum(1).clamp(min=1).float()
    torch.testing.assert_close(step, left / (degree.unsqueeze(1) * degree).sqrt())
    again = EmbeddingPropagation(1, edge_dropout=0.4)
    again.generator = torch.Generator().manual_seed(1)
    assert torch.equal(2 * again(eye, graph) - eye, step)
    assert torch.equal(layer.eval()(eye, graph), EmbeddingPropagation(1)(eye, graph))


def test_isolated_nodes_keep_their_share():
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=3)
    assert torch.equal(EmbeddingPropagation(1)(torch.ones(3, 1), graph), torch.tensor([[1.0], [1.0], [0.5]]))


def test_repr_and_reset():
    layer = EmbeddingPropagation(2, "free", edge_dropout=0.1)
    torch.nn.init.normal_(layer.alpha)
    layer.reset_parameters()
    assert torch.equal(layer.alpha, torch.full((3,), 1 / 3))
    assert str(layer) == "EmbeddingPropagation(K=2, alpha='free', edge_dropout=0.1)"
    assert str(EmbeddingPropagation()) == "EmbeddingPropagation(K=3, alpha='uniform')"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g, x: EmbeddingPropagation(-1), "K must be at least 0, a whole number, got -1"),
        (lambda g, x: EmbeddingPropagation(2, "learned"), "alpha must be one of 'uniform', 'softmax', 'free', got 'learned'"),
        (lambda g, x: EmbeddingPropagation(2, edge_dropout=1.0), r"edge_dropout must be in \[0, 1\), got 1.0"),
        (lambda g, x: EmbeddingPropagation()(x[0], g), "x must be a floating-point tensor"),
        (lambda g, x: EmbeddingPropagation()(x.long(), g), "x must be a floating-point tensor"),
        (lambda g, x: EmbeddingPropagation()([1.0], g), "got list"),
        (lambda g, x: EmbeddingPropagation()(x, g, step_weight=torch.ones(5)), r"from 0 to K = 3, got \[5\]"),
        (lambda g, x: EmbeddingPropagation()(x, g, step_weight=torch.ones(2, 3)), r"got \[2, 3\]"),
        (lambda g, x: EmbeddingPropagation()(x, g, step_weight=torch.tensor(1.0)), r"got \[\]"),
        (lambda g, x: EmbeddingPropagation()(x[:2], Graph(torch.tensor([[0], [1]]), num_nodes=2)), "is not symmetric"),
        (
            lambda g, x: EmbeddingPropagation()(
                x[:2], Graph(torch.tensor([[0, 1], [1, 0]]), torch.tensor([1.0, 2.0]), num_nodes=2)
            ),
            "is not symmetric",
        ),
    ],
)
def test_errors(call, message):
    graph = bipartite()
    with pytest.raises(GesmError, match=message):
        call(graph, torch.ones(graph.num_nodes, 2))
