import sys

from benchmarks import experiments
from benchmarks.workloads import HEADS, load
from gesm import Graph
from gesm.ops import _sparse


def test_alternatives_agree_on_a_graph_of_several_blocks(monkeypatch, capsys):
    monkeypatch.setattr(_sparse, "BLOCK_ENTRIES", 100 * HEADS)
    data = load("synthetic")
    graph = Graph.from_edge_index(data.edge_index, num_nodes=data.num_nodes).transition()
    assert len(_sparse.blocks(graph.rowptr, graph.col, HEADS)) > 1
    monkeypatch.setattr(sys, "argv", ["experiments", "--dataset", "synthetic", "--rounds", "1"])
    experiments.main()
    assert "segment maximum" in capsys.readouterr().out
