"""torch.compile without graph breaks, on graphs of any size, and torch.export."""

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from strategies import assert_matches
from torch_geometric.nn import APPNP
from torch_geometric.nn.models import GCN

from gesm import Graph
from gesm.models import GESM, GSM, MixedMLP
from gesm.nn import EntityAttention, GESMConv, HopSampling, StepMixture
from gesm.ops import spmm, use_backend

pytestmark = pytest.mark.filterwarnings("ignore")

LAYERS = {
    "attention": lambda: EntityAttention(6, 4, heads=2),
    "additive": lambda: EntityAttention(6, 4, heads=2, score="additive", normalization="sym"),
    "mixture": lambda: StepMixture(6, 3, K=4),
    "wide-mixture": lambda: StepMixture(6, 9, K=2),
    "conv": lambda: GESMConv(6, 4, 3, K=4, heads=2),
    "numpys-sizes": lambda: GESMConv(*(np.int64(n) for n in (6, 4, 3, 4, 2))),
    "gesm": lambda: GESM(6, 4, 3, K=4, heads=2),
    "gesm-stack": lambda: GESM(6, 4, 3, K=2, heads=2, num_layers=2, layer_norm=True),
    "gsm": lambda: GSM(6, 8, 3, K=4),
    "gsm-classifier": lambda: GSM(6, 8, 3, K=4, classifier="linear", layer_norm=True),
    "mixed-mlp": lambda: MixedMLP(6, 8, 3, K=4, batch_norm="both"),
}


def sample(nodes, edges):
    generator = torch.Generator().manual_seed(nodes)
    return torch.randn(nodes, 6, generator=generator), torch.randint(nodes, (2, edges), generator=generator)


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()


@pytest.mark.parametrize("name", LAYERS)
def test_compiles_whole_for_any_size(name):
    layer = LAYERS[name]().eval()
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=frames)
    for nodes, edges in ((12, 40), (20, 33), (7, 90)):
        x, edge_index = sample(nodes, edges)
        assert_matches(compiled(x, edge_index), layer(x, edge_index), rtol=1e-4, atol=1e-5)
    assert frames.frame_count <= 2


def test_compiled_training_step():
    layer = GESMConv(6, 4, 3, K=4, heads=2, dropout=0.5, attention_dropout=0.5)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for nodes, edges in ((12, 40), (20, 33)):
        x, edge_index = sample(nodes, edges)
        layer.zero_grad()
        compiled(x, edge_index).square().sum().backward()
        assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_compiled_gradients_equal_eager_ones_with_weights():
    layer = GESMConv(6, 4, 3, K=4, heads=2)
    x, edge_index = sample(12, 40)
    weight = torch.rand(40)
    grads = [
        torch.autograd.grad(f(x, edge_index, weight).square().sum(), list(layer.parameters()))
        for f in (layer, torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager"))
    ]
    for a, b in zip(*grads, strict=True):
        assert_matches(a, b, rtol=1e-4, atol=1e-4)


def test_a_prepared_graph_goes_through_compile():
    layer = GESMConv(6, 4, 3, K=4, heads=2).eval()
    x, edge_index = sample(12, 40)
    graph = Graph(edge_index, None, 12)
    expected = layer(x, graph)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_matches(compiled(x, graph), expected, rtol=1e-4, atol=1e-5)


def test_bounds_are_checked_when_a_compiled_layer_runs():
    layer = GESMConv(6, 4, 3, K=4, heads=2).eval()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    x, edge_index = sample(12, 40)
    compiled(x, edge_index)
    with pytest.raises(ValueError, match="allowed range is 0 to 11"):
        compiled(x, edge_index + 1)


@pytest.mark.parametrize("form", ["features", "adjacency"])
def test_sparse_tensors_break_the_graph_and_no_more(form):
    layer, (x, edge_index) = GESMConv(6, 4, 3, K=2, heads=2), sample(12, 40)
    adj_t = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(40), (12, 12))
    inputs = (x.to_sparse_csr(), edge_index) if form == "features" else (x, adj_t.to_sparse_csr())
    compiled = torch.compile(layer, backend="aot_eager")
    for _ in range(2):
        out = compiled(*inputs)
        assert_matches(out, layer(*inputs), rtol=1e-4, atol=1e-5)
        out.sum().backward()


def test_hop_sampling_of_a_stack_trains_compiled():
    hop, inputs = HopSampling(GCN(6, 8, 3, 2), distribution=[0, 0, 1, 0]), sample(12, 40)
    out = torch.compile(hop, backend="aot_eager")(*inputs)
    assert_matches(out, hop(*inputs), rtol=1e-4, atol=1e-5)
    out.sum().backward()


def test_a_pair_of_indices_with_values_compiles_whole():
    class Adjacency:  # what torch_sparse.SparseTensor is to gesm
        def __init__(self, edge_index):
            self.edge_index = edge_index

        def coo(self):
            return self.edge_index[1], self.edge_index[0], torch.ones(self.edge_index.size(1))

        def sizes(self):
            return [12, 12]

    layer, (x, edge_index) = GESMConv(6, 4, 3, K=2, heads=2), sample(12, 40)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_matches(compiled(x, Adjacency(edge_index)), layer(x, edge_index), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: GESM(6, 4, 3, K=3, heads=2), lambda: MixedMLP(6, 4, 3, K=3), lambda: APPNP(3, 0.1)])
def test_an_expectation_over_depths_compiles_whole_and_exports(make):
    hop, inputs = HopSampling(make(), inference="expected").eval(), sample(12, 40)
    assert_matches(torch.compile(hop, fullgraph=True, backend="aot_eager")(*inputs), hop(*inputs), rtol=1e-4, atol=1e-5)
    assert_matches(torch.export.export(hop, inputs, strict=False).module()(*inputs), hop(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_exports(name):
    layer = LAYERS[name]().eval()
    x, edge_index = sample(12, 40)
    nodes, edges = torch.export.Dim("nodes", min=2), torch.export.Dim("edges", min=2)
    program = torch.export.export(layer, (x, edge_index), dynamic_shapes=({0: nodes}, {1: edges}), strict=False)
    other = sample(20, 33)
    assert_matches(program.module()(*other), layer(*other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backend", "score", "normalization"),
    [("reference", "product", "col"), ("reference", "additive", "row"), ("cpu", "product", "col")],
)
def test_self_loops_that_are_replaced_stay_out_of_a_traced_graph(backend, score, normalization):
    x, edge_index = sample(12, 40)
    edge_index[:, :5] = torch.arange(5)
    layer = EntityAttention(6, 4, heads=2, score=score, normalization=normalization)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    with use_backend(backend):
        expected = layer(x, edge_index)
        assert_matches(compiled(x, edge_index), expected, rtol=1e-4, atol=1e-5)
        out, (edges, alpha) = compiled(x, edge_index, return_attention_weights=True)
        assert_matches(out, expected, rtol=1e-4, atol=1e-5)
        _, (want_edges, want_alpha) = layer(x, edge_index, return_attention_weights=True)
    live = edges[1] < 12
    assert edges[:, live].equal(want_edges)
    assert_matches(alpha[live], want_alpha, rtol=1e-4, atol=1e-5)


def test_compiled_mixture_on_the_reference():
    x, edge_index = sample(12, 40)
    edge_index[:, :5] = torch.arange(5)
    layer = StepMixture(6, 3, K=4)
    with use_backend("reference"):
        compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
        assert_matches(compiled(x, edge_index), layer(x, edge_index), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "most"), [("gsm", 3), ("conv", 3), ("appnp", 8)])
def test_hop_sampling_compiles_a_mixture_once_and_a_loop_once_a_depth(name, most):
    module = APPNP(K=4, alpha=0.1) if name == "appnp" else LAYERS[name]()
    eager, hop = (HopSampling(module, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(hop, backend=frames)
    x, edge_index = sample(12, 40)
    depths = set()
    for _ in range(12):
        assert_matches(compiled(x, edge_index), eager(x, edge_index), rtol=1e-4, atol=1e-5)
        depths.add(hop.last_depth)
    assert len(depths) == 4
    assert frames.frame_count <= most
    torch._dynamo.reset()
    whole = torch.compile(hop.eval(), fullgraph=True, backend="aot_eager")
    assert_matches(whole(x, edge_index), eager.eval()(x, edge_index), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "derive",
    [
        lambda g: g.with_self_loops().transition(),
        lambda g: g.with_self_loops(2.0).with_self_loops(3.0),
        lambda g: g.with_self_loops(2.0).with_self_loops(3.0, existing="keep"),
        lambda g: g.transition().transpose(),
        lambda g: g.transition("sym").transpose().transition(self_loops=False),
        lambda g: g.with_weight(g.col.float() + 1).transpose().with_self_loops().transpose(),
        lambda g: Graph.batch([g.with_self_loops(), g.transition(), g]),
        lambda g: Graph.batch([g, g.with_self_loops(2.0)]).transpose().transition("row", self_loops=False),
    ],
)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_graphs_derived_within_a_compiled_function(backend, derive):
    x, edge_index = sample(12, 40)
    edge_index[:, :5] = torch.arange(5)
    x.requires_grad_()

    def f(x, edge_index):
        graph = derive(Graph(edge_index, None, 12))
        return spmm(graph, x.repeat(graph.num_nodes // 12, 1))

    with use_backend(backend):
        outs = [f(x, edge_index), torch.compile(f, fullgraph=True, backend="aot_eager")(x, edge_index)]
        grads = [torch.autograd.grad(out.square().sum(), x)[0] for out in outs]
    assert_matches(*outs, rtol=1e-4, atol=1e-5)
    assert_matches(*grads, rtol=1e-4, atol=1e-4)


def test_displaced_loops_bring_no_nan_into_gradients_of_weights():
    x, edge_index = sample(3, 2)
    edge_index = torch.tensor([[0, 0, 1], [0, 1, 2]])
    weight = torch.rand(3, requires_grad=True)
    layer = StepMixture(6, 2, K=1, normalization="sym")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    grads = [torch.autograd.grad(f(x, edge_index, weight).square().sum(), weight)[0] for f in (layer, compiled)]
    assert_matches(*grads, rtol=1e-4, atol=1e-5)
