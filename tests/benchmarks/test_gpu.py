import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from interpreter import needs_interpreter

from benchmarks import gpu, gpu_cases
from benchmarks.gpu_graphs import SIZES, Size, make, power_law
from benchmarks.machine import describe

ROOT = Path(__file__).parents[2]


def test_smoke_run_checks_and_times_everything(tmp_path):
    needs_interpreter()
    file = tmp_path / "gpu.json"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1", "GESM_BACKEND": "triton"}
    command = [sys.executable, "-m", "benchmarks.gpu", "--smoke", "--device", "cpu", "--json", str(file)]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    record = json.loads(file.read_text())
    assert record["backend"] == "triton"
    assert set(record["versions"]) >= {"torch", "triton", "torch_geometric"} <= set(describe()["versions"]) | {"triton"}
    operators = [row["operator"] for row in record["rows"]]
    assert operators[0] == "attend 2 x 4 fp32 forward"
    assert operators[-1] == "GESM 2 x 4 training step"
    for row in record["rows"][:-1]:
        assert 0 < row["floor_mb"] < row["traffic_mb"]
        assert all(ms > 0 for ms in row["ms"].values())


def test_made_graphs_are_skewed_and_the_same_each_time():
    size = Size(1000, 50_000, 3, 2.0, hub=2000)
    edges = power_law(size, torch.device("cpu"))
    assert edges.equal(power_law(size, torch.device("cpu")))
    degree = edges[1].bincount(minlength=1000)
    assert edges.shape == (2, 52_000)
    assert degree[0] >= 2000
    assert degree[1:].max() > 10 * degree.float().mean()
    assert all(size.skew >= 1 for size in SIZES.values())


def test_a_failing_case_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def close(actual, expected, dtype):
        assert actual.dim() != 3, "relative RMS error 1.0e+00 beyond 1e-05"

    file = tmp_path / "gpu.json"
    monkeypatch.setattr(gpu_cases, "close", close)
    monkeypatch.setattr(sys, "argv", ["gpu", "--smoke", "--device", "cpu", "--json", str(file)])
    with pytest.raises(SystemExit, match="1"):
        gpu.main()
    rows = json.loads(file.read_text())["rows"]
    assert [row["operator"] for row in rows if "error" in row] == [
        "attend 2 x 4 fp32 forward",
        "attend 2 x 4 fp32 forward + backward",
    ]
    assert rows[-1]["operator"] == "GESM 2 x 4 training step"
    assert "beyond 1e-05" in capsys.readouterr().err


def test_a_peer_is_asked_for_the_gradients_of_its_own_inputs(monkeypatch):
    class Adjacency:
        from_edge_list = staticmethod(lambda edges, num_nodes: torch.ones(1))

    peer = ModuleType("turbo_gnn")
    peer.__spec__ = ModuleSpec("turbo_gnn", None)
    peer.AdjacencyForwardBackwardWithNodeBuckets = Adjacency
    peer.gatv2_aggr = lambda adjacency, x, x_neighbors, attention_weights, negative_slope: adjacency * x
    monkeypatch.setitem(sys.modules, "turbo_gnn", peer)
    graph, _ = make("tiny", torch.device("cpu"))
    made = {name: case() for name, case in gpu_cases.cases("tiny", graph) if name.startswith("attend")}
    (grad,) = made["attend 2 x 4 fp32 forward + backward"].calls["turbo-gnn GATv2"]()
    assert grad.shape == (graph.num_nodes, 2, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--graphs", "foo"], "no graph 'foo'; choose from cora"), (["--smoke", "--json", "none/x"], "make it first")],
)
def test_bad_arguments_are_refused_before_anything_is_measured(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(sys, "argv", ["gpu", *arguments])
    with pytest.raises(SystemExit):
        gpu.main()
    assert message in capsys.readouterr().err
