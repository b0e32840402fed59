import pytest
import torch
from hypothesis import given
from strategies import assert_matches, graphs
from torch.nn.utils import prune, weight_norm

from gesm import GesmError, Graph
from gesm.nn import GESMConv


def setup(**kwargs):
    graph = Graph(torch.randint(10, (2, 40)), torch.rand(40), 10)
    return GESMConv(6, 4, 3, K=5, heads=2, **kwargs), torch.randn(10, 6), graph


@given(graphs())
def test_is_attention_then_mixture_in_every_adjacency_form(graph):
    conv = GESMConv(4, 3, 2, K=3, heads=2).double()
    x = torch.randn(graph.num_nodes, 4, dtype=torch.float64)
    expected = conv.mixture(conv.attention(x, graph), graph)
    assert_matches(conv(x, graph), expected)
    assert_matches(conv(x, graph.edge_index, graph.weight), expected)
    if graph.num_nodes and graph.weight is not None:
        size = (graph.num_nodes, graph.num_nodes)
        adj_t = torch.sparse_csr_tensor(graph.rowptr, graph.col, graph.weight, size, check_invariants=False)
        assert_matches(conv(x, adj_t), expected)


def test_returns_attention_weights_and_embedding():
    conv, x, graph = setup()
    out, (edge_index, alpha), z = conv(x, graph, return_attention_weights=True, return_embedding=True)
    assert out.shape == (10, 3)
    assert edge_index.size(1) == alpha.size(0)
    assert_matches(z, x @ conv.attention.lin.weight, rtol=1e-5, atol=1e-6)
    out, z = conv(x, graph, return_embedding=True)
    assert z.shape == (10, 8)


def test_dropout_lazy_repr_and_reset():
    conv, x, graph = setup(dropout=0.5, attention_dropout=0.5)
    torch.manual_seed(1)
    first = conv(x, graph)
    torch.manual_seed(1)
    assert conv(x, graph).equal(first)
    assert conv.eval()(x, graph).equal(conv(x, graph))
    assert str(conv) == "GESMConv(6, 4, 3, K=5, heads=2)"
    assert GESMConv(-1, 4, 3, K=5, heads=2)(x, graph).shape == (10, 3)
    before = conv(x, graph)
    conv.reset_parameters()
    assert not conv(x, graph).equal(before)


def test_a_changed_graph_is_noticed():
    conv, x, graph = setup()
    edges = graph.edge_index
    before = conv(x, edges)
    edges[0] = edges[0].flip(0)
    assert not torch.allclose(conv(x, edges), before)


def test_bipartite_and_bad_dropout_get_clear_errors():
    conv, x, graph = setup()
    with pytest.raises(GesmError, match=r"K=5 steps.*10 sources and 3 targets"):
        conv((x, x[:3]), graph.edge_index % 3)
    with pytest.raises(GesmError, match=r"dropout must be in \[0, 1\), got 2"):
        GESMConv(6, 4, 3, dropout=2)
    with pytest.raises(GesmError, match="0 to 4"):
        conv(x[:5], graph.edge_index)


def test_evaluation_under_inference_mode_leaves_training_intact():
    conv, x, graph = setup()
    for adjacency in (graph, graph.edge_index.clone()):
        with torch.inference_mode():
            conv(x, adjacency)
            conv(x.to_sparse_csr(), adjacency)
        conv(x, adjacency).sum().backward()


def test_options_that_the_mathematics_fixes_are_refused():
    for options in ({"flow": "target_to_source"}, {"aggr": "max"}, {"node_dim": -2}):
        with pytest.raises(GesmError, match=f"{next(iter(options))} must be"):
            GESMConv(6, 4, 3, **options)
    assert GESMConv(6, 4, 3, aggr="add").attention.flow == "source_to_target"


def test_depth_and_dropout_are_those_of_the_mixture():
    conv, x, graph = setup(dropout=0.9)
    conv.train().dropout = 0.0
    assert conv(x, graph).equal(conv(x, graph))
    conv.K = 2
    assert "K=2" in str(conv)
    assert conv(x, graph).equal(conv(x, graph, step_weight=torch.ones(3)))


def test_features_of_another_type_get_a_clear_error():
    conv, x, graph = setup()
    for features in (x.double(), x.double().to_sparse_csr()):
        with pytest.raises(GesmError, match=r"x is torch\.float64 but the layer torch\.float32"):
            conv(features, graph)
    with pytest.raises(GesmError, match="x must be a tensor, got NoneType"):
        conv(None, graph)


def test_a_pair_of_widths_is_refused():
    with pytest.raises(GesmError, match=r"in_channels must be an int, got \(6, 6\): GESMConv walks K=14 .* EntityAttention"):
        GESMConv((6, 6), 4, 3)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # weight_norm is deprecated
@pytest.mark.parametrize("part", ["attention.lin", "mixture.lin"])
def test_maps_may_be_pruned_and_weight_normalised(part):
    x, edges = torch.randn(8, 6), torch.randint(8, (2, 30))
    for wrap in (lambda lin: prune.l1_unstructured(lin, "weight", amount=0.5), weight_norm):
        conv = GESMConv(6, 4, 3, K=2, heads=2)
        wrap(conv.get_submodule(part))
        optimizer = torch.optim.SGD(conv.parameters(), lr=0.1)
        outs = []
        for _ in range(2):
            optimizer.zero_grad()
            outs.append(conv(x, edges))
            outs[-1].square().sum().backward()
            optimizer.step()
        assert not torch.equal(*outs)


def test_hooks_of_maps_that_want_keywords_get_them():
    conv, seen = GESMConv(6, 4, 3, K=2, heads=2), []
    conv.mixture.lin.register_forward_pre_hook(lambda _, args, kwargs: seen.append((len(args), kwargs)), with_kwargs=True)
    conv(torch.randn(8, 6), torch.randint(8, (2, 30)))
    assert seen == [(1, {})]
