import copy
import pickle

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from strategies import assert_matches, dense, dense_transition, graphs, star
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

import gesm.graph
from gesm import GesmError, Graph

EDGES = torch.tensor([[2, 0, 1, 1, 3, 0], [0, 1, 2, 2, 3, 1]])
WEIGHT = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


@given(graphs(bipartite=True))
def test_csr_and_its_transpose_hold_the_same_edges(graph):
    assert graph.rowptr[-1] == graph.colptr[-1] == graph.num_edges
    assert (graph.rowptr.diff() >= 0).all()
    torch.testing.assert_close(graph.target.bincount(minlength=graph.num_dst).int(), graph.rowptr.diff().int())
    torch.testing.assert_close(graph.col.bincount(minlength=graph.num_src).int(), graph.colptr.diff().int())
    torch.testing.assert_close(graph.row, graph.target[graph.to_csc.long()])
    assert (graph.col[graph.to_csc.long()].diff() >= 0).all()
    assert graph.perm.sort().values.equal(torch.arange(graph.num_edges, dtype=graph.perm.dtype))
    assert_matches(dense(graph.transpose()), dense(graph).t())
    assert_matches(dense(graph.transpose().transpose()), dense(graph))


@given(graphs())
def test_transition_is_the_dense_formula(graph):
    for normalization in ("col", "row", "sym"):
        p = graph.transition(normalization, dtype=torch.float64)
        assert_matches(dense(p), dense_transition(graph, normalization))
    if graph.num_nodes:
        assert_matches(dense(graph.transition(dtype=torch.float64)).sum(0), torch.ones(graph.num_nodes).double())


@given(graphs(weighted=True))
def test_edge_order_does_not_matter(graph):
    order = torch.randperm(graph.num_edges)
    shuffled = Graph(graph.edge_index[:, order], graph.weight[order], graph.num_nodes)
    assert_matches(dense(shuffled), dense(graph))
    assert shuffled.col.equal(graph.col)
    assert shuffled.rowptr.equal(graph.rowptr)


@given(graphs(weighted=True))
def test_coalesce_sums_multi_edges(graph):
    merged = graph.coalesce()
    assert_matches(dense(merged), dense(graph))
    assert merged.edge_index.unique(dim=1).size(1) == merged.num_edges


@given(graphs(weighted=True))
def test_self_loops(graph):
    loops = torch.arange(graph.num_nodes)
    expected = dense(graph)
    expected[loops, loops] = 3.0
    replaced = graph.with_self_loops(3.0)
    assert_matches(dense(replaced), expected)
    assert (replaced.edge_index[0] == replaced.edge_index[1]).sum() == graph.num_nodes
    kept = dense(graph)
    own = kept.diagonal()
    own[own == 0] = 3.0
    assert_matches(dense(graph.with_self_loops(3.0, existing="keep")), kept)


def test_undirected_networkx_graph_gets_both_directions_and_its_labels_in_order():
    graph = Graph.from_networkx(nx.Graph([("a", "b"), ("b", "b"), ("b", "c")]))
    assert dense(graph).equal(torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]]).double())


def test_batch_is_block_diagonal_like_pygs():
    one, two = Graph(EDGES, WEIGHT, 4), Graph(EDGES[:, :2], None, 5)
    both = Graph.batch([one, two])
    expected = torch.block_diag(dense(one), dense(two))
    assert_matches(dense(both), expected)
    data = Batch.from_data_list([Data(edge_index=EDGES, num_nodes=4), Data(edge_index=EDGES[:, :2], num_nodes=5)])
    unweighted = Graph.batch([Graph(EDGES, None, 4), two])
    assert_matches(dense(Graph(data.edge_index, None, data.num_nodes)), dense(unweighted))


def test_empty_graphs_are_legal():
    for n in (0, 3):
        graph = Graph(torch.empty(2, 0, dtype=torch.long), None, n)
        assert graph.num_edges == 0
        assert dense(graph.transition(dtype=torch.float64)).equal(torch.eye(n, dtype=torch.float64))
    assert Graph(torch.empty(2, 0, dtype=torch.long)).num_nodes == 0


def test_to_and_repr():
    graph = Graph(EDGES, WEIGHT, 4)
    assert graph.to("cpu") is graph
    assert graph.to("meta").device.type == "meta"
    assert str(graph) == "Graph(nodes=4, edges=6, weighted=True, device=cpu)"
    assert "3 -> 5" in str(Graph(torch.zeros(2, 0, dtype=torch.int32), None, (3, 5)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Graph(EDGES[0]), r"shape \[2, num_edges\].*\(6,\)"),
        (lambda: Graph([[0], [1]]), "shape .*list"),
        (lambda: Graph(EDGES.float()), "int32 or int64, got torch.float32"),
        (lambda: Graph(EDGES, None, 3), "targets|sources.*0 to 2"),
        (lambda: Graph(EDGES - 1, None, 4), "from -1"),
        (lambda: Graph(EDGES, WEIGHT[:3], 4), r"shape \[6\].*\(3,\)"),
        (lambda: Graph(EDGES, [1.0] * 6, 4), "edge_weight must be a tensor"),
        (lambda: Graph(EDGES, WEIGHT.to("meta"), 4), "edge_weight is on meta"),
        (lambda: Graph(EDGES, None, (4, 4, 4)), r"or two of them.*\(4, 4, 4\)"),
        (lambda: Graph(EDGES, None, 4.0), "int >= 0 or two of them.*4.0"),
        (lambda: Graph(EDGES, None, 4).with_weight(WEIGHT[:2]), r"shape \[6\].*\(2,\)"),
        (lambda: Graph(EDGES, None, -1), "int >= 0 or two of them.*got -1"),
        (lambda: Graph(EDGES, None, 4).transition("both"), "'col', 'row', 'sym'.*'both'"),
        (lambda: Graph(EDGES, None, 4).with_self_loops(existing="drop"), "'replace' or 'keep'"),
        (lambda: Graph(EDGES, None, (4, 5)).with_self_loops(), "as many sources as targets"),
        (lambda: Graph.batch([]), "at least one graph"),
        (lambda: Graph.batch([EDGES]), "list of gesm.Graph, got a Tensor"),
        (lambda: Graph(EDGES, None, True), "int >= 0 or two of them.*True"),
        (lambda: Graph(EDGES, WEIGHT.cfloat(), 4), "must be real"),
        (lambda: Graph(EDGES, None, 4).with_weight([1.0] * 6), "edge_weight must be a tensor"),
        (lambda: Graph(EDGES, None, 4).transition(dtype=torch.int64), "floating-point type, got torch.int64"),
        (lambda: Graph.from_sparse(scipy.sparse.eye(3)), "Graph.from_scipy"),
        (lambda: Graph.from_scipy(np.eye(3)), "SciPy sparse matrix or array, got ndarray"),
    ],
)
def test_bad_input_gets_one_clear_error(make, message):
    with pytest.raises(GesmError, match=message):
        make()


def test_a_learned_weight_is_never_kept():
    weight = WEIGHT.clone().requires_grad_()
    graph = Graph(EDGES, weight, 4)
    with torch.no_grad():
        graph.transition()
        assert graph.csc_weight is not None
    assert graph.transition().weight.requires_grad
    assert graph.csc_weight.requires_grad


def test_a_weight_changed_in_place_is_noticed():
    weight = WEIGHT.clone()
    graph = Graph(EDGES, None, 4).with_weight(weight)
    graph.transition(), graph.csc_weight
    weight.mul_(torch.arange(1.0, 1 + weight.numel()))
    fresh = Graph(EDGES, None, 4).with_weight(weight.clone())
    assert graph.transition().weight.equal(fresh.transition().weight)
    assert graph.csc_weight.equal(fresh.csc_weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("normalization", ["col", "row", "sym"])
def test_degrees_are_counted_in_float32(dtype, normalization):
    hub = Graph(star(3000), None, 3000)
    torch.testing.assert_close(
        hub.transition(normalization, dtype=dtype).weight.float(), hub.transition(normalization).weight, rtol=0.01, atol=0
    )


def test_edge_index_that_knows_its_size():
    edges = EdgeIndex(EDGES[:, :2], sparse_size=(5, 5))
    assert Graph(edges).num_nodes == 5


@given(graphs(bipartite=True))
def test_a_bipartite_transition_is_the_dense_formula(graph):
    if not graph.is_bipartite:
        return
    a = dense(graph)
    rows, cols = (a.sum(d, keepdim=True).masked_fill(a.sum(d, keepdim=True) == 0, 1.0) for d in (1, 0))
    for normalization, expected in (("col", a / cols), ("row", a / rows), ("sym", a / (rows * cols).sqrt())):
        assert_matches(dense(graph.transition(normalization, dtype=torch.float64)), expected)


@pytest.mark.parametrize("normalization", ["col", "row", "sym"])
def test_a_node_whose_weights_sum_to_zero_brings_no_nan_into_gradients(normalization):
    weight = torch.tensor([0.0, 1.0], requires_grad=True)
    p = Graph(torch.tensor([[0, 1], [1, 2]]), weight, 3).transition(normalization, self_loops=False)
    p.weight.sum().backward()
    assert p.weight[0] == 0
    assert weight.grad.isfinite().all()


def test_other_weights_bring_another_transition():
    graph = Graph(EDGES, WEIGHT, 4)
    graph.transition(), graph.csc_weight
    graph.weight = WEIGHT * WEIGHT
    fresh = Graph(EDGES, None, 4).with_weight(WEIGHT * WEIGHT)
    assert graph.transition().weight.equal(fresh.transition().weight)
    assert graph.csc_weight.equal(fresh.csc_weight)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
def test_a_copy_derives_anew(copied):
    weight = WEIGHT.clone()
    graph = Graph(EDGES, None, 4).with_weight(weight)
    weight.mul_(1.0), graph.transition(), weight.copy_(WEIGHT.flip(0))
    twin = copied(graph)
    assert twin.transition().weight.equal(Graph(EDGES, None, 4).with_weight(weight).transition().weight)
    assert not copied(graph)._cache


def test_perm_leads_to_the_edges_passed_and_then_to_the_loops():
    edge_index = torch.tensor([[0, 0, 1], [2, 1, 1]])
    both = torch.cat([edge_index, torch.arange(3).expand(2, 3)], 1)
    p = Graph(edge_index, None, 3).transition()
    assert both[:, p.perm.long()].equal(p.edge_index)


def test_integer_weights_become_floats():
    graph = Graph(EDGES, None, 4)
    ints = torch.arange(1, 7)
    assert graph.with_weight(ints).transition().weight.equal(graph.with_weight(ints.float()).transition().weight)


def test_coalesce_counts_in_float32():
    edges = torch.zeros(2, 1000, dtype=torch.long)
    assert Graph(edges, torch.ones(1000, dtype=torch.bfloat16), 1).coalesce().weight.item() == 1000


def test_sizes_may_be_numpys():
    assert Graph(EDGES, None, np.int64(4)).num_nodes == 4


def test_perm_of_a_batch_leads_to_the_edges_of_its_graphs_one_after_the_other():
    edges = [torch.tensor([[0, 1, 2, 1], [2, 1, 0, 0]]), torch.tensor([[0, 1, 0], [1, 0, 1]])]
    batch = Graph.batch([Graph(edges[0], None, 3), Graph(edges[1], None, 2).transpose()])
    both = torch.cat([edges[0], edges[1].flip(0) + 3], 1)
    assert both[:, batch.perm.long()].equal(batch.edge_index)
    looped = Graph.batch([Graph(e, None, 3).with_self_loops() for e in edges])
    loops = torch.arange(3).expand(2, 3)
    both = torch.cat([edges[0], loops, edges[1] + 3, loops + 3], 1)
    assert both[:, looped.perm.long()].equal(looped.edge_index)
    twice = Graph(edges[0], None, 3).with_self_loops().with_self_loops()
    assert torch.cat([edges[0], loops, loops], 1)[:, twice.perm.long()].equal(twice.edge_index)


def test_edges_are_sorted_once_whatever_the_weights(monkeypatch):
    sorts, sort = [], gesm.graph.sort_edges
    monkeypatch.setattr(gesm.graph, "sort_edges", lambda *args: sorts.append(1) or sort(*args))
    edges = EDGES.clone()
    for weight in (None, WEIGHT.clone(), WEIGHT.clone().requires_grad_(), WEIGHT.clone().requires_grad_()):
        for normalization in ("col", "sym"):
            gesm.as_graph(edges, weight, 4).transition(normalization)
    assert len(sorts) == 2  # A, and A + I


@pytest.mark.parametrize("normalization", ["col", "row", "sym"])
def test_a_negative_weight_is_refused_where_a_walk_takes_it(normalization):
    Graph(torch.tensor([[0, 0, 1], [0, 1, 0]]), torch.tensor([-1.0, 1.0, 1.0]), 2).transition(normalization)  # on a loop
    graph = Graph(EDGES, WEIGHT - 3, 4)
    with torch.no_grad():  # learned, perhaps
        graph.transition(normalization)
    for _ in range(2):  # what evaluation made is not taken unseen
        with pytest.raises(GesmError, match=r"must not be negative.*-2\.0; pass its absolute value"):
            graph.transition(normalization)


def test_other_data_of_the_weights_are_noticed():
    graph = Graph(EDGES, None, 4).with_weight(WEIGHT.clone())
    graph.transition()
    graph.weight.data = WEIGHT.flip(0)
    assert graph.transition().weight.equal(Graph(EDGES, None, 4).with_weight(WEIGHT.flip(0)).transition().weight)


def test_forward_mode_and_vmap_over_edge_weights():
    transition = lambda w: gesm.as_graph(EDGES, w, 4).transition().weight  # noqa: E731
    forward, backward = torch.func.jacfwd(transition)(WEIGHT), torch.func.jacrev(transition)(WEIGHT)
    assert_matches(forward, backward, rtol=1e-5, atol=1e-6)
    weights = torch.rand(3, 6)
    assert_matches(torch.vmap(transition)(weights), torch.stack([transition(w) for w in weights]), rtol=1e-5, atol=1e-6)
