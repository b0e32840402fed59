import pytest
import torch
from hypothesis import given
from strategies import assert_matches, dense, graphs

from gesm import GesmError, Graph
from gesm.metrics import dirichlet_energy, mean_average_distance, over_smoothing
from gesm.ops import spmm


def undirected(graph):
    edges = graph.edge_index
    weight = None if graph.weight is None else torch.cat([graph.weight, graph.weight])
    return Graph(torch.cat([edges, edges.flip(0)], 1), weight, graph.num_nodes)


@given(graphs())
def test_dirichlet_energy_is_the_trace_form(graph):
    graph = undirected(graph)
    x = torch.randn(graph.num_nodes, 3, dtype=torch.float64)
    a = dense(graph).fill_diagonal_(1)
    scale = a.sum(1).rsqrt()
    laplacian = torch.eye(len(a), dtype=a.dtype) - scale[:, None] * a * scale
    expected = torch.trace(x.t() @ laplacian @ x)
    assert_matches(dirichlet_energy(x, graph), expected, atol=1e-10)
    relative = expected / x.square().sum() if len(x) else expected
    assert_matches(dirichlet_energy(x, graph, relative=True), relative, atol=1e-10)
    assert_matches(dirichlet_energy(x * 7, graph, relative=True), relative, atol=1e-10)


@given(graphs())
def test_mean_average_distance_is_the_dense_one(graph):
    x = torch.randn(graph.num_nodes, 3)
    x[: len(x) // 4] = 0
    n, xd = len(x), x.double()
    distance = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            zero = [not xd[k].any() for k in (i, j)]
            distance[i, j] = float(zero[0] != zero[1]) if any(zero) else 1 - torch.cosine_similarity(xd[i], xd[j], dim=0)
    others = distance[~torch.eye(n, dtype=torch.bool)]
    assert_matches(mean_average_distance(x), others.mean() if n > 1 else torch.zeros((), dtype=torch.float64), atol=1e-10)
    count = torch.zeros(n, n, dtype=torch.float64)
    for j, i in graph.edge_index.t().tolist():
        count[i, j] += i != j
    rows = [(count[i] * distance[i]).sum() / count[i].sum() for i in range(n) if count[i].any()]
    expected = torch.stack(rows).mean() if rows else torch.zeros((), dtype=torch.float64)
    assert_matches(mean_average_distance(x, graph), expected, atol=1e-10)


def test_smoothing_lowers_both_and_a_collapse_is_zero(monkeypatch):
    edges = torch.randint(50, (2, 200))
    graph, x = Graph(torch.cat([edges, edges.flip(0)], 1), None, 50), torch.randn(50, 4)
    walk = graph.transition("sym")
    smooth = spmm(walk, x)
    whole = dirichlet_energy(x, graph), mean_average_distance(x, graph)
    assert dirichlet_energy(smooth, graph, relative=True) < dirichlet_energy(x, graph, relative=True)
    assert mean_average_distance(smooth, graph) < whole[1]
    monkeypatch.setattr(over_smoothing, "_ELEMENTS", 40)
    assert_matches(dirichlet_energy(x, graph), whole[0])
    assert_matches(mean_average_distance(x, graph), whole[1])
    degree = torch.bincount(graph.with_self_loops().target.long(), minlength=50)
    point = degree.sqrt().unsqueeze(1) * torch.ones(1, 4)
    assert dirichlet_energy(point, graph, relative=True) < 1e-12
    for tiny in (1e-30, 1.0):
        assert mean_average_distance(tiny * point, graph).abs() < 1e-12
        assert mean_average_distance(tiny * point).abs() < 1e-12
    assert dirichlet_energy(0 * point, graph, relative=True) == 0
    assert mean_average_distance(0 * point, graph) == 0


@pytest.mark.parametrize(
    ("x", "graph", "message"),
    [
        (torch.ones(3), Graph(torch.tensor([[0], [1]])), r"x must have one row a node, \[N, F\]; got \[3\]"),
        (torch.ones(3, 2), Graph(torch.tensor([[0], [1]])), "2 sources and 2 targets, but x has 3 and 3 rows"),
        (torch.ones(2, 2), Graph(torch.tensor([[0], [1]]), None, (3, 2)), "measured on one set of nodes"),
    ],
)
def test_bad_input_gets_clear_errors(x, graph, message):
    for measure in (dirichlet_energy, mean_average_distance):
        with pytest.raises(GesmError, match=message):
            measure(x, graph)
    with pytest.raises(GesmError, match="weights that are not negative"):
        dirichlet_energy(torch.ones(2, 2), Graph(torch.tensor([[0], [1]]), torch.tensor([-1.0])))
    with pytest.raises(GesmError, match=r"one row a node, \[N, F\]"):
        mean_average_distance(torch.ones(3))


def test_an_edge_index_will_do():
    x, edges = torch.randn(5, 2), torch.randint(5, (2, 9))
    graph = Graph.from_edge_index(edges, num_nodes=5)
    assert torch.equal(dirichlet_energy(x, edges), dirichlet_energy(x, graph))
    assert torch.equal(mean_average_distance(x, edges), mean_average_distance(x, graph))
