"""The floor of each operator: the bytes it cannot avoid moving over the measured copy rate. `python -m benchmarks.floor`.

Compulsory bytes: every operand read once, every result written once, index arrays once however often they are walked (a cache
could hold them), nothing for intermediate values. Float32 values, int32 indices.
"""

import argparse
from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe, seconds
from benchmarks.workloads import HEADS, HIDDEN, K, attends, load
from gesm import Graph, as_graph
from gesm.ops import mix, spmm

__all__ = ["copy_rate"]


def _timed(call: Callable[[], object], rounds: int) -> float:
    """Median wall time of a call, after two that do not count."""
    call(), call()
    return median(seconds(call) for _ in range(rounds))


def copy_rate(num_bytes: int = 2**29, rounds: int = 5) -> float:
    """Bytes a second, read and written both counted, of a copy too large for a cache."""
    source = torch.ones(num_bytes // 4)
    target = torch.empty_like(source)
    return 2 * num_bytes / _timed(lambda: target.copy_(source), rounds)


def _bytes(num_nodes: int, num_edges: int, features: int, classes: int, nonzeros: int) -> dict[str, int]:
    wide, narrow, scores = (4 * num_nodes * width for width in (HEADS * HIDDEN, classes, HEADS))
    matrix = 8 * num_edges + 4 * num_nodes
    x, weight = 8 * nonzeros + 4 * num_nodes, 4 * features * HEADS * HIDDEN
    attend = 2 * wide + 3 * scores + matrix  # x, out; two scores and the log-sum-exp
    attend_backward = 4 * wide + 5 * scores + 2 * matrix + 4 * num_edges  # x, out, grad, grad_x; P, its transpose, the map
    chain = (K + 2) * narrow + matrix
    product = x + weight + wide
    return {
        "attend forward": attend,
        "attend forward+backward": attend + attend_backward,
        "mix forward": chain,
        "mix forward+backward": 2 * chain,
        "X W forward": product,
        "X W forward+backward": 2 * product,
    }


def _calls(name: str) -> tuple[dict[str, int], dict[str, Callable[[], object]]]:
    data = load(name)
    num_nodes, classes, x = data.num_nodes, data.num_classes, data.x.to_sparse_csr()
    graph = Graph.from_edge_index(data.edge_index, num_nodes=num_nodes).transition()
    num_bytes = _bytes(num_nodes, graph.num_edges, x.size(1), classes, x.values().numel())
    steps = torch.randn(num_nodes, (K + 1) * classes).requires_grad_()
    weight = torch.randn(x.size(1), HEADS * HIDDEN).requires_grad_()
    calls = {f"attend {mode}": rounds["gesm"] for mode, rounds in attends(data.edge_index, num_nodes).items()}
    for operator, forward, leaf in (
        ("mix", lambda: mix(graph, steps, K), steps),
        ("X W", lambda: spmm(as_graph(x), weight), weight),
    ):
        gradient = torch.randn_like(forward())
        calls[f"{operator} forward"] = torch.no_grad()(forward)
        calls[f"{operator} forward+backward"] = lambda f=forward, w=leaf, g=gradient: torch.autograd.grad(f(), w, g)
    return num_bytes, calls


def main() -> None:
    parser = argparse.ArgumentParser(description="Compulsory bytes, the floor they set, and what the operators take.")
    parser.add_argument("--datasets", default="cora,pubmed")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rate, about = copy_rate(rounds=min(options.rounds, 5)), describe()
    title = f"{about['processor']}, {about['threads']} threads, load {about['load'][0]}: copies {rate / 1e9:.1f} GB/s"
    table = Table("data set", "operator", title=title, title_justify="left")
    for column in ("compulsory MB", "floor ms", "gesm ms", "times the floor"):
        table.add_column(column, justify="right")
    for name in options.datasets.split(","):
        num_bytes, calls = _calls(name)
        for operator, call in calls.items():
            floor, taken = num_bytes[operator] / rate, _timed(call, options.rounds)
            row = (f"{num_bytes[operator] / 1e6:.1f}", f"{floor * 1e3:.2f}", f"{taken * 1e3:.2f}", f"{taken / floor:.1f}")
            table.add_row(name, operator, *row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
