import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_matches, dense_transition, graphs

from gesm import GesmError, Graph
from gesm.nn import StepMixture


def dense_steps(graph, x, K, normalization="col"):
    p = dense_transition(graph, normalization)
    return [torch.linalg.matrix_power(p, k) @ x for k in range(K + 1)]


@given(graphs(), st.integers(0, 4), st.integers(1, 7), st.sampled_from(["col", "row", "sym"]))
def test_sum_equals_the_linear_map_of_the_concatenation(graph, K, out_channels, normalization):
    conv = StepMixture(4, out_channels, K, normalization=normalization).double()
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(graph.num_nodes, 4, dtype=torch.float64)
    steps = dense_steps(graph, x, K, normalization)
    weight = torch.cat(list(conv.lin.weight.split(out_channels)), dim=1)  # [out, (K + 1) * in]
    expected = torch.cat(steps, dim=1) @ weight.t() + conv.bias
    assert_matches(conv(x, graph), expected)
    assert_matches(conv(x.to_sparse_csr(), graph.edge_index, graph.weight), expected)
    conv.register_message_forward_hook(lambda *_: None)
    assert_matches(conv(x, graph), expected)


@given(graphs(), st.integers(0, 4))
def test_concat_returns_the_blocks(graph, K):
    x = torch.randn(graph.num_nodes, 3, dtype=torch.float64)
    assert_matches(StepMixture(3, K=K, mode="concat")(x, graph), torch.cat(dense_steps(graph, x, K), dim=1))


@given(graphs(), st.integers(0, 4), st.data(), st.sampled_from(["one", "node", "draws", "draws-node"]), st.booleans())
def test_weights_of_the_steps(graph, K, data, kind, messages):
    taken, nodes = data.draw(st.integers(0, K)) + 1, graph.num_nodes
    shape = {"one": (), "node": (nodes,), "draws": (3, 1), "draws-node": (3, nodes)}[kind]
    weight = torch.rand(*shape, taken, dtype=torch.float64)
    x = torch.randn(nodes, 4, dtype=torch.float64)
    steps = dense_steps(graph, x, K)[:taken]
    for out_channels in (2, 6, None):
        conv = StepMixture(4, out_channels, K, mode="sum" if out_channels else "concat").double()
        if messages:
            conv.register_message_forward_hook(lambda *_: None)
        if out_channels:
            blocks = conv.lin.weight.split(out_channels)
            expected = conv.bias + sum(weight[..., k, None] * (h @ blocks[k].t()) for k, h in enumerate(steps))
        else:
            missing = [torch.zeros_like(x)] * (K + 1 - taken)
            parts = [weight[..., k, None] * h for k, h in enumerate(steps)]
            expected = torch.cat([*parts, *(h.expand_as(parts[0]) for h in missing)], dim=-1)
        assert_matches(conv(x, graph, step_weight=weight), expected)


@pytest.mark.parametrize("shape", [(), (10,), (3, 1), (3, 10)])
@pytest.mark.parametrize("out_channels", [2, 9])
def test_gradients_with_weights_of_the_steps(shape, out_channels):
    conv, x, graph = setup(out_channels, K=3)
    x.requires_grad_()
    weight = torch.rand(*shape, 3)
    inputs = [x, *conv.parameters()]
    fused = torch.autograd.grad(conv(x, graph, step_weight=weight).square().sum(), inputs)
    conv.register_message_forward_hook(lambda *_: None)
    messages = torch.autograd.grad(conv(x, graph, step_weight=weight).square().sum(), inputs)
    for a, b in zip(fused, messages, strict=True):
        assert_matches(a, b, rtol=1e-4, atol=1e-4)


@given(graphs(weighted=False), st.integers(1, 6))
def test_steps_of_the_walk_stay_stochastic(graph, K):
    x = torch.rand(graph.num_nodes, 2, dtype=torch.float64)
    last = StepMixture(2, K=K, mode="concat")(x, graph)[:, -2:]
    assert_matches(last.sum(0), x.sum(0))


def setup(out_channels=3, K=2, **kwargs):
    graph = Graph(torch.randint(10, (2, 40)), torch.rand(40), 10)
    return StepMixture(6, out_channels, K, **kwargs), torch.randn(10, 6), graph


@pytest.mark.parametrize("out_channels", [2, 9])
def test_gradients_of_both_orders_equal_those_of_the_message_form(out_channels):
    conv, x, graph = setup(out_channels)
    x.requires_grad_()
    inputs = [x, *conv.parameters()]
    fused = torch.autograd.grad(conv(x, graph).square().sum(), inputs)
    conv.register_message_forward_hook(lambda *_: None)
    messages = torch.autograd.grad(conv(x, graph).square().sum(), inputs)
    for a, b in zip(fused, messages, strict=True):
        assert_matches(a, b, rtol=1e-4, atol=1e-4)


def test_narrow_outputs_propagate_narrow():
    """With out < in no product with P is wider than the output, and no step is kept."""
    conv, x, graph = setup(out_channels=3, K=5)
    p = graph.transition()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        conv(x, p.with_weight(p.weight))
    assert kept.count((10, 6)) <= 1


def test_drawn_as_the_map_of_the_concatenation():
    conv = StepMixture(500, 7, K=14)
    bound = (6 / (15 * 500 + 7)) ** 0.5
    assert bound * 0.99 < conv.lin.weight.abs().max() <= bound


def test_lazy_repr_and_reset():
    _, x, graph = setup()
    for out_channels in (3, 9):
        lazy = StepMixture(-1, out_channels, K=2)
        assert lazy(x, graph).shape == (10, out_channels)
        assert lazy.lin.weight.shape == (3 * out_channels, 6)
    assert str(StepMixture(6, 3, K=2)) == "StepMixture(6, 3, K=2)"
    assert str(StepMixture(6, K=2, mode="concat")) == "StepMixture(6, K=2, mode='concat')"
    assert not list(StepMixture(6, K=2, mode="concat").parameters())


def test_one_bipartite_step():
    edges = torch.stack([torch.randint(5, (12,)), torch.randint(3, (12,))])
    conv = StepMixture(4, 2, K=1)
    x = (torch.randn(5, 4), torch.randn(3, 4))
    p = torch.zeros(3, 5).index_put_((edges[1], edges[0]), torch.tensor(1.0), accumulate=True)
    p = p / p.sum(0).clamp(min=1)
    one, two = conv.lin.weight.split(2)
    assert_matches(conv(x, edges), x[1] @ one.t() + p @ x[0] @ two.t() + conv.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("out_channels", [3, 9])
def test_a_smaller_K_takes_the_first_maps(out_channels):
    conv, x, graph = StepMixture(6, out_channels, K=4), *setup()[1:]
    expected = conv(x, graph, step_weight=torch.ones(3))
    conv.K = 2
    assert conv(x, graph).equal(expected)
    conv.K = 5
    with pytest.raises(GesmError, match=r"made with K=4 .* set to 5"):
        conv(x, graph)


def test_concatenated_steps_are_of_one_masked_x():
    graph, x = Graph(torch.arange(10).expand(2, 10), None, 10), torch.ones(10, 6)
    conv = StepMixture(6, K=2, mode="concat", dropout=0.5)
    zero, *steps = conv(x, graph).split(6, 1)
    assert 0 < zero.count_nonzero() < 60
    assert all(step.equal(zero) for step in steps)  # P of loops alone is I
    assert conv.eval()(x, graph).equal(torch.ones(10, 18))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, x, g: StepMixture(6, 3, mode="mean"), "'sum' or 'concat', got 'mean'"),
        (lambda c, x, g: StepMixture(6), "out_channels goes with mode='sum'"),
        (lambda c, x, g: StepMixture(6, 3, K=-1), "K must be at least 0"),
        (lambda c, x, g: StepMixture(6, 0), "out_channels must be at least 1, a whole number, got 0"),
        (lambda c, x, g: StepMixture(6, 3, dropout="a"), r"dropout must be in \[0, 1\), got 'a'"),
        (lambda c, x, g: StepMixture(6, 3, K=2.5), "K must be at least 0, a whole number, got 2.5"),
        (lambda c, x, g: StepMixture(6, 3, normalization="foo"), "normalization must be one of 'col', 'row', 'sym'"),
        (lambda c, x, g: c((x, x[:3]), g.edge_index % 3), "K=2 steps.*bipartite"),
        (lambda c, x, g: c(x[:, :5], g), "x has 5 features"),
        (lambda c, x, g: c(x.double().long(), g), "floating-point"),
        (lambda c, x, g: c(x.numpy(), g), "x must be a tensor, got ndarray"),
        (lambda c, x, g: StepMixture(5, K=1, mode="concat")(x, g), "x has 6 features.*in_channels=5"),
        (lambda c, x, g: StepMixture(6, 3, K=1)((x, x[:, :5]), g.edge_index), "one width, got 6 and 5 columns"),
        (lambda c, x, g: StepMixture(6, K=1, mode="concat", dropout=0.5)(x.to_sparse_csr(), g), "dropout works on dense"),
    ],
)
def test_bad_input_gets_one_clear_error(call, message):
    with pytest.raises(GesmError, match=message):
        call(*setup())
