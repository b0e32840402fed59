import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_matches, dense_transition, graphs

from gesm import GesmError, Graph
from gesm.nn import EntityAttention
from gesm.ops import use_backend


def dense_attention(conv, x, graph):
    """The formula with dense matrices; multi-edges of A count by their number in the softmax."""
    z = x @ conv.lin.weight
    heads, d = conv.heads, conv.out_channels
    count = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.long)
    count.index_put_((graph.target.long(), graph.col.long()), torch.tensor(1), accumulate=True)
    count.fill_diagonal_(1)
    p = dense_transition(graph, conv.normalization) / count.clamp(min=1)
    out = []
    for h in range(heads):
        zh = z[:, h * d : (h + 1) * d]
        a, c = zh @ conv.att_dst[0, h], zh @ conv.att_src[0, h]
        if conv.score == "product":
            s = p * (a + conv.att_dst_bias[h])[:, None] * (c + conv.att_src_bias[h])[None, :]
        else:
            s = F.leaky_relu(a[:, None] + c[None, :], 0.2)
        alpha = (s + count.double().log()).softmax(1)
        out.append(alpha @ zh)
    out = torch.cat(out, 1)
    return F.elu(out + conv.bias + (z if conv.residual else 0))


@given(
    graphs(weighted=False),
    st.integers(1, 3),
    st.sampled_from(["product", "additive"]),
    st.booleans(),
    st.sampled_from(["col", "row", "sym"]),
)
def test_equals_the_dense_formula(graph, heads, score, residual, normalization):
    conv = EntityAttention(5, 4, heads, score=score, residual=residual, normalization=normalization).double()
    for p in conv.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(graph.num_nodes, 5, dtype=torch.float64)
    expected = dense_attention(conv, x, graph)
    assert_matches(conv(x, graph), expected)
    assert_matches(conv(x, graph.edge_index), expected)
    assert_matches(conv(x.to_sparse_csr(), graph), expected)


def setup(heads=2, **kwargs):
    graph = Graph(torch.randint(10, (2, 40)), torch.rand(40), 10)
    return EntityAttention(6, 4, heads, **kwargs), torch.randn(10, 6), graph


def test_gradients_equal_those_of_the_message_form():
    conv, x, graph = setup()
    conv, x = conv.double(), x.double()
    graph = Graph(graph.edge_index, graph.weight.double(), 10)
    fused = torch.autograd.grad(conv(x, graph).square().sum(), list(conv.parameters()))
    conv.register_message_forward_hook(lambda *_: None)
    messages = torch.autograd.grad(conv(x, graph).square().sum(), list(conv.parameters()))
    for a, b in zip(fused, messages, strict=True):
        assert_matches(a, b)


def test_sparse_and_dense_features_get_the_same_gradients():
    conv, x, graph = setup()
    x = x * (torch.rand_like(x) > 0.6)
    grads = [
        torch.autograd.grad(conv(features, graph).square().sum(), list(conv.parameters()))
        for features in (x, x.to_sparse_csr())
    ]
    for a, b in zip(*grads, strict=True):
        assert_matches(a, b, rtol=1e-4, atol=1e-5)


def test_shapes_repr_and_attention_weights():
    conv, x, graph = setup(heads=3)
    assert str(conv) == "EntityAttention(6, 4, heads=3)"
    out, (edge_index, alpha) = conv(x, graph.edge_index, return_attention_weights=True)
    assert out.shape == (10, 12)
    assert edge_index.shape == (2, alpha.size(0))
    assert alpha.shape[1] == 3
    assert_matches(torch.zeros(10, 3).index_add(0, edge_index[1], alpha), torch.ones(10, 3), rtol=1e-5)
    out, z = conv(x, graph, return_embedding=True)
    assert_matches(z, x @ conv.lin.weight, rtol=1e-5, atol=1e-6)


def test_bipartite():
    edges = torch.stack([torch.randint(5, (12,)), torch.randint(3, (12,))])
    for in_channels in ((6, 4), (-1, -1)):
        conv = EntityAttention(in_channels, 2, 2)
        out = conv((torch.randn(5, 6), torch.randn(3, 4)), edges)
        assert out.shape == (3, 4)
    square = EntityAttention((6, 6), 2, 2)
    assert square(torch.randn(5, 6), edges).shape == (5, 4)
    same = EntityAttention(6, 2, 2)
    assert same((torch.randn(5, 6), torch.randn(3, 6)), edges).shape == (3, 4)


def test_lazy_and_reset():
    conv, x, graph = setup()
    lazy = EntityAttention(-1, 4, 2)
    assert lazy(x, graph).shape == (10, 8)
    assert lazy.lin.weight.shape == (6, 8)
    torch.manual_seed(5)
    conv.reset_parameters()
    first = conv(x, graph)
    torch.manual_seed(5)
    conv.reset_parameters()
    assert conv(x, graph).equal(first)


def test_dropout_only_in_training_and_repeatable():
    conv, x, graph = setup(dropout=0.6)
    torch.manual_seed(0)
    first = conv(x, graph)
    torch.manual_seed(0)
    assert conv(x, graph).equal(first)
    conv.eval()
    assert conv(x, graph).equal(conv(x, graph))
    assert not conv(x, graph).equal(first)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("score", ["product", "additive"])
def test_input_dropout_gives_z_and_its_scores_one_mask(score, sparse):
    conv, x, graph = setup(score=score, input_dropout=0.5)
    x = x.to_sparse_csr() if sparse else x
    out, z = conv(x, graph, return_embedding=True)
    assert not z.allclose(conv.eval()(x, graph, return_embedding=True)[1])
    rest = EntityAttention(8, 4, 2, score=score, input_dropout=0.5).eval()
    rest.load_state_dict(conv.state_dict() | {"lin.weight": torch.eye(8)})
    torch.testing.assert_close(out, rest(z, graph))


@given(graphs(weighted=False))
def test_permutation_equivariance(graph):
    conv = EntityAttention(3, 2, 2).double()
    x = torch.randn(graph.num_nodes, 3, dtype=torch.float64)
    order = torch.randperm(graph.num_nodes)
    position = order.argsort()
    moved = Graph(position[graph.edge_index], None, graph.num_nodes)
    assert_matches(conv(x[order], moved), conv(x, graph)[order])


def test_a_batch_equals_its_graphs():
    conv, x, graph = setup()
    other, y = Graph(torch.randint(4, (2, 6)), torch.rand(6), 4), torch.randn(4, 6)
    together = conv(torch.cat([x, y]), Graph.batch([graph, other]))
    assert_matches(together, torch.cat([conv(x, graph), conv(y, other)]), rtol=1e-5, atol=1e-6)


def test_learned_edge_weights_get_a_gradient():
    conv, x, graph = setup()
    weight = torch.rand(40, requires_grad=True)
    conv(x, graph.edge_index, weight).sum().backward()
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, x, g: EntityAttention(6, 4, score="sum"), "'product', 'additive', got 'sum'"),
        (lambda c, x, g: EntityAttention(6, 4, dropout=1.5), r"\[0, 1\), got 1.5"),
        (lambda c, x, g: EntityAttention(6, 4, input_dropout=-0.1), r"input_dropout must be in \[0, 1\), got -0.1"),
        (lambda c, x, g: EntityAttention(6, 4, heads=0), "heads must be at least 1, a whole number, got 0"),
        (lambda c, x, g: EntityAttention(6, 4, heads=2.0), "heads must be at least 1, a whole number, got 2.0"),
        (lambda c, x, g: EntityAttention((6, 6), 4)((x, None), g.edge_index), "x_dst is missing; .* pass"),
        (lambda c, x, g: EntityAttention(6, 4, normalization="l2")(x, g), "'col', 'row', 'sym'"),
        (lambda c, x, g: c(x[:, :5], g), "x has 5 features.*in_channels=6"),
        (lambda c, x, g: c(x.long(), g), "floating-point tensor, got torch.int64"),
        (lambda c, x, g: c(x[None], g), r"\[1, 10, 6\]; static graphs"),
        (lambda c, x, g: c(x.to_sparse(), g), "dense or torch.sparse CSR"),
        (lambda c, x, g: c(x[:9], g), "10 sources and 10 targets, but x has 9"),
        (lambda c, x, g: c(x[:9], g.edge_index), "0 to 8"),
    ],
)
def test_bad_input_gets_one_clear_error(call, message):
    with pytest.raises(GesmError, match=message):
        call(*setup())


def test_two_node_sets_of_one_size_get_no_self_loops():
    edges = torch.randint(6, (2, 14))
    conv = EntityAttention((4, 4), 2)
    _, (edge_index, _) = conv((torch.randn(6, 4), torch.randn(6, 4)), edges, return_attention_weights=True)
    assert edge_index.size(1) == 14


def test_two_maps_of_one_node_set_get_self_loops():
    x, edges = torch.randn(6, 4), torch.tensor([[0, 1, 2], [1, 2, 0]])
    one, two = EntityAttention(4, 2, 3), EntityAttention((4, 4), 2, 3)
    with torch.no_grad():
        for name, parameter in two.named_parameters():
            parameter.copy_(one.get_parameter(name.replace("lin_src", "lin").replace("lin_dst", "lin")))
    for features in (x, (x, x)):
        assert_matches(two(features, edges), one(x, edges), rtol=1e-5, atol=1e-6)
        assert two(features, edges, return_attention_weights=True)[1][0].size(1) == 9


@pytest.mark.parametrize("in_channels", [4, (4, 4)])
def test_a_vectorised_jacobian_equals_the_row_by_row(in_channels):
    conv, x, edges = EntityAttention(in_channels, 2, 2), torch.randn(5, 4), torch.randint(5, (2, 12))
    by_rows, at_once = (torch.autograd.functional.jacobian(lambda v: conv(v, edges), x, vectorize=v) for v in (False, True))
    assert_matches(at_once, by_rows, rtol=1e-5, atol=1e-6)


def test_the_reference_differentiates_twice():
    conv = EntityAttention(3, 2, 2).double()
    x, edges = torch.randn(4, 3, dtype=torch.float64, requires_grad=True), torch.randint(4, (2, 9))
    with use_backend("reference"):
        assert torch.autograd.gradgradcheck(lambda v: conv(v, edges), x)


def test_a_propagate_hook_keeps_what_it_saw():
    conv, x, graph = setup(residual=False)
    seen = []
    conv.register_propagate_forward_hook(lambda module, inputs, out: seen.append((out, out.clone())))
    conv(x, graph)
    assert seen[0][0].equal(seen[0][1])


def test_sizes_may_be_numpys():
    x, edges = torch.randn(3, 6), torch.tensor([[0, 1, 2], [1, 2, 0]])
    assert EntityAttention(np.int64(6), np.int64(4), heads=np.int64(2))(x, edges).shape == (3, 8)
