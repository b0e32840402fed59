import gc

import networkx as nx
import pytest
import scipy.sparse
import torch
from strategies import dense
from torch_geometric import EdgeIndex

import gesm.adjacency
import gesm.ops  # quiets the first CSR of the process
from gesm import GesmError, Graph, as_graph

EDGES = torch.tensor([[2, 0, 1, 1, 3, 0], [0, 1, 2, 2, 3, 1]])
WEIGHT = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


def adjacency(edges=EDGES, weight=WEIGHT, n=4):
    return torch.zeros(n, n).index_put_((edges[1], edges[0]), weight, accumulate=True)


def test_every_form_of_adjacency_gives_the_same_graph():
    dense_a = adjacency()
    forms = {
        "edge_index": Graph.from_edge_index(EDGES, WEIGHT, 4),
        "int32": Graph.from_edge_index(EDGES.int(), WEIGHT, 4),
        "EdgeIndex": as_graph(EdgeIndex(EDGES, sparse_size=(4, 4)), WEIGHT, 4),
        "csr": as_graph(dense_a.to_sparse_csr(), None, 4),
        "csc": as_graph(dense_a.to_sparse_csc(), None, 4),
        "coo": as_graph(dense_a.to_sparse(), None, 4),
        "scipy": Graph.from_scipy(scipy.sparse.csr_array(dense_a.t().numpy())),
        "networkx": Graph.from_networkx(nx.from_numpy_array(dense_a.t().numpy(), create_using=nx.DiGraph)),
        "SparseTensor": as_graph(FakeSparseTensor(dense_a), None, 4),
        "Graph": as_graph(Graph(EDGES, WEIGHT, 4), None, 4),
    }
    for name, graph in forms.items():
        assert dense(graph, torch.float32).equal(dense_a), name


class FakeSparseTensor:
    """The two methods of torch_sparse.SparseTensor that are used."""

    def __init__(self, matrix):
        self.matrix = matrix

    def coo(self):
        row, col = self.matrix.nonzero().t()
        return row, col, self.matrix[row, col]

    def sizes(self):
        return list(self.matrix.shape)


def test_cache_returns_the_same_graph_and_notices_a_change_in_place():
    edges, weight = EDGES.clone(), WEIGHT.clone()
    graph = as_graph(edges, weight, 4)
    assert as_graph(edges, weight, 4) is graph
    assert as_graph(edges, None, 4) is not graph
    assert graph.transition() is graph.transition()
    edges[0, 0] = 3
    changed = as_graph(edges, weight, 4)
    assert changed is not graph
    assert dense(changed)[0, 3] == 1
    weight.mul_(2)
    assert as_graph(edges, weight, 4) is not changed
    csr = adjacency().to_sparse_csr()
    assert as_graph(csr) is as_graph(csr)
    first = as_graph(csr)
    csr.values().mul_(2)
    assert as_graph(csr) is not first


def test_cache_forgets_with_its_tensors():
    edges = EDGES.clone()
    gc.collect()  # of other tests
    before = len(gesm.adjacency._graphs)
    as_graph(edges, None, 4)
    assert len(gesm.adjacency._graphs) == before + 1
    del edges
    gc.collect()
    assert len(gesm.adjacency._graphs) == before


def test_a_learned_edge_weight_is_not_cached_and_gets_its_gradient():
    weight = WEIGHT.clone().requires_grad_()
    p = as_graph(EDGES, weight, 4).transition()
    p.weight.square().sum().backward()
    assert weight.grad.abs().sum() > 0
    assert as_graph(EDGES, weight, 4) is not as_graph(EDGES, weight, 4)


def test_inference_tensors_work():
    with torch.inference_mode():
        assert as_graph(EDGES.clone(), None, 4).num_edges == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: as_graph("cora"), "got str"),
        (lambda: as_graph(Graph(EDGES, None, 4), None, 7), "4 sources and 4 targets, but x has 7"),
        (lambda: as_graph(Graph(EDGES, None, 4), WEIGHT), "carries its own weights"),
        (lambda: as_graph(EdgeIndex(EDGES, sparse_size=(5, 5)), None, 4), r"sparse_size \(5, 5\), but x has 4 and 4 rows"),
        (lambda: as_graph(EdgeIndex(EDGES, sparse_size=(None, 5)), None, (4, 4)), r"\(None, 5\), but x has 4 and 4"),
        (lambda: as_graph(adjacency().to_sparse_csr(), WEIGHT), "carries its own weights"),
    ],
)
def test_bad_input_gets_one_clear_error(make, message):
    with pytest.raises(GesmError, match=message):
        make()


def test_an_edge_index_object_changed_in_place_is_noticed():
    edges = EdgeIndex(EDGES.clone(), sparse_size=(4, 4))
    first = as_graph(edges, None, [4, 4])
    assert as_graph(edges, None, (4, 4)) is first
    edges.as_tensor()[0, 0] = 3
    assert dense(as_graph(edges, None, 4))[0, 3] == 1


def test_coo_weights_keep_their_gradient():
    adj = adjacency().to_sparse().requires_grad_()
    assert as_graph(adj, None, 4).weight.requires_grad


def test_other_data_are_noticed():
    edges, weight = EDGES.clone(), torch.nn.Parameter(WEIGHT.clone(), requires_grad=False)
    assert dense(as_graph(edges, weight, 4), torch.float32).equal(adjacency())
    weight.data = WEIGHT * 2
    assert dense(as_graph(edges, weight, 4), torch.float32).equal(2 * adjacency())
    edges.data, weight.data = EDGES[:, :3].clone(), WEIGHT[:3].clone()
    assert as_graph(edges, weight, 4).num_edges == 3


def test_one_size_or_two_is_one_graph():
    edges = EDGES.clone()
    assert as_graph(edges, None, 4) is as_graph(edges, None, (4, 4))


def test_a_sparse_tensor_is_remembered_while_its_parts_live():
    adj = FakeSparseTensor(adjacency())
    row, col, value = adj.coo()
    adj.coo = lambda: (row, col, value)
    first = as_graph(adj, None, 4)
    assert as_graph(adj, None, 4) is first
    value.mul_(2)
    assert dense(as_graph(adj, None, 4), torch.float32).equal(2 * adjacency())
    adj.sizes = lambda: [5, 4]
    assert as_graph(adj).num_dst == 5
    with pytest.raises(GesmError, match="4 sources and 5 targets, but x has 4 and 4"):
        as_graph(adj, None, 4)


def test_a_learned_edge_weight_of_a_column_or_of_a_wrong_size():
    weight = WEIGHT.clone().view(-1, 1).requires_grad_()
    assert dense(as_graph(EDGES, weight, 4), torch.float32).equal(adjacency())
    with pytest.raises(GesmError, match=r"edge_weight must have shape \[6\]"):
        as_graph(EDGES, weight[:2], 4)
