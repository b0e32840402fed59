import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch_geometric.data import Batch

from gesm import GesmError, Graph
from gesm.datasets import synthetic
from gesm.models import GSM
from gesm.nn import HopSampling
from gesm.training import depth, depth_run
from gesm.training.depth import depth_study, plan
from gesm.training.depth_report import summarize_depth
from gesm.training.depth_run import SETTINGS, Cell, drop_edge, run_cell

TINY = {"models": ("sgc", "gcn"), "depths": (1, 3), "runs": 2, "epochs": 7}


def untimed(records):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


@pytest.fixture(scope="module")
def data():
    return synthetic()


@pytest.fixture(scope="module")
def records(data):
    return depth_study(data, **TINY)


def test_a_study_has_every_cell_and_the_plan_its_order(records):
    cells = plan(("sgc", "gcn"), depth.ARMS, (1, 3), 2, 0)
    assert [Cell(r["model"], r["arm"], r["K"], r["seed"]) for r in records] == cells
    assert len({*cells}) == 24
    assert [cell.K for cell in cells[:12]] == [3] * 6 + [1] * 6
    assert {cell.seed for cell in cells[:12]} == {0}


def test_what_a_record_holds(records):
    for record in records:
        assert record["depths"]["k"] == [*range(1, record["K"] + 1)]
        assert record["selected_epoch"] in (5, 7)
        for name in depth_run.MEASURES:
            values = record["depths"][name]
            assert len(values) == record["K"]
            assert values[-1] == pytest.approx(record["full"][name], abs=1e-6)
            if record["K"] == 1:
                assert record["expected"][name] == pytest.approx(record["full"][name], rel=1e-6)
    assert json.loads(json.dumps(records, allow_nan=False)) == records


def test_the_arms_start_alike_and_differ_in_training(records):
    of = {(r["model"], r["arm"], r["K"], r["seed"]): r["full"]["dirichlet"] for r in records}
    for model in ("sgc", "gcn"):
        assert len({of[model, arm, 3, 0] for arm in depth.ARMS}) == 3
        assert of[model, "fixed", 1, 0] == of[model, "hop", 1, 0]  # at K = 1 there is one depth to draw


@pytest.mark.parametrize("arm", ["hop", "dropedge"])
@pytest.mark.parametrize("model", SETTINGS)
def test_each_model_runs(model, arm, data):
    record = run_cell(Cell(model, arm, 2, 0), data, 5)
    assert 0 < record["full"]["test"] <= 1
    assert record["depths"]["k"] == [1, 2]


def test_expected_is_the_wrappers(data):
    hop = HopSampling(GSM(16, 8, 3, K=3)).eval()
    task = depth_run.Task(data, depth_run.Recipe(feature_normalization="row"))
    got = depth_run._read(hop, task)["expected"]
    sample = task.samples[0]
    with torch.no_grad(), hop.at("expected"):
        assert got == pytest.approx(depth_run._measure(hop(sample.x, sample.graph), task), rel=1e-4)


def test_drop_edge_drops_both_directions_and_keeps_loops():
    edges = torch.randint(200, (2, 3000))
    loops = torch.arange(50).expand(2, 50)
    edge_index = torch.cat([edges, edges.flip(0), loops], 1)
    graph = Graph(edge_index, torch.rand(6050), 200)
    dropped = drop_edge(graph, 0.5, torch.Generator().manual_seed(0))
    pairs = {tuple(pair) for pair in dropped.edge_index.t().tolist()}
    assert all((j, i) in pairs for i, j in pairs)
    before = {tuple(pair) for pair in graph.edge_index.t().tolist()}
    assert {(i, j) for i, j in before if i == j} <= pairs < before
    assert 0.45 < dropped.num_edges / graph.num_edges < 0.55
    weights = {}
    for (j, i), w in zip(graph.edge_index.t().tolist(), graph.weight.tolist(), strict=True):
        weights.setdefault((j, i), []).append(w)
    assert all(w in weights[j, i] for (j, i), w in zip(dropped.edge_index.t().tolist(), dropped.weight.tolist(), strict=True))
    assert drop_edge(graph, 0.0).num_edges == graph.num_edges


def test_workers_and_resuming_give_the_same_records(data, records, tmp_path):
    part = depth_study(data, **{**TINY, "models": ("sgc",), "runs": 1}, out=tmp_path / "study", workers=2)
    assert len(part) == 6
    runs = tmp_path / "study" / "runs.jsonl"
    with runs.open("a") as file:
        file.write('{"model": "gcn", "arm": "fix')  # a kill in the middle of a line
    seen = []
    with pytest.raises(GesmError, match="already holds a study"):
        depth_study(data, **TINY, out=tmp_path / "study")
    again = depth_study(data, **TINY, out=tmp_path / "study", resume=True, on_run=seen.append)
    assert untimed(again) == untimed(records)
    assert len(seen) == 24
    assert [record for record in again if record in part] == part
    lines = runs.read_text().splitlines()
    assert len(lines) == 24
    assert sorted(map(json.loads, lines), key=str) == sorted(again, key=str)


def test_a_study_goes_on_after_a_kill(data, tmp_path):
    code = (
        "from gesm.datasets import synthetic\nfrom gesm.training.depth import depth_study\n"
        f"depth_study(synthetic(), ('sgc',), depths=(1, 3), runs=300, epochs=40, out={str(tmp_path / 'study')!r})"
    )
    runs = tmp_path / "study" / "runs.jsonl"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 60
    while time.monotonic() < until and not (runs.exists() and runs.read_text().count("\n") >= 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = runs.read_text().splitlines()[:3]
    after = depth_study(data, ("sgc",), depths=(1, 3), runs=1, epochs=40, out=tmp_path / "study", resume=True)
    assert len(after) == 6
    kept = [json.loads(line) for line in before]
    assert all(record in after for record in kept)
    assert untimed(kept[:1]) == untimed([run_cell(Cell("sgc", "fixed", 3, 0), data, 40)])


def test_one_thread_and_back(data):
    threads = torch.get_num_threads()
    depth_study(data, ("sgc",), ("fixed",), (1,), runs=1, epochs=1)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ("sgc", "transformer")}, "models: there is no 'transformer'; choose from sgc, appnp"),
        ({"arms": ("dropout",)}, "arms: there is no 'dropout'; choose from fixed, hop, dropedge"),
        ({"depths": (0,)}, "depths must be whole numbers from 1 up, got 0"),
        ({"depths": (2, 2)}, "depths must be a list without repetition"),
        ({"models": ()}, "models must be a list without repetition, at least one"),
        ({"runs": 0}, "runs must be a whole number from 1 up, got 0"),
        ({"seed": -1}, "seed must be a whole number from 0 up, got -1"),
        ({"epochs": 0}, "epochs must be a whole number from 1 up, got 0"),
        ({"workers": 1.5}, "workers must be a whole number from 1 up, got 1.5"),
        ({"resume": True}, r"resume needs out \(--out\)"),
        ({"data": synthetic(task="multilabel")}, "takes one graph with one class a node"),
        ({"data": Batch.from_data_list([synthetic()])}, "takes one graph with one class a node"),
    ],
)
def test_bad_input_gets_clear_errors(change, message, data):
    with pytest.raises(GesmError, match=message):
        depth_study(**{"data": data, **TINY, **change})


def test_a_folder_that_is_not_this_studys_gets_clear_errors(data, tmp_path):
    one = {"models": ("sgc",), "arms": ("fixed",), "depths": (1,), "runs": 1, "epochs": 1}
    (tmp_path / "file").write_text("")
    with pytest.raises(GesmError, match="is a file; pass a folder"):
        depth_study(data, **one, out=tmp_path / "file")
    folder = tmp_path / "study"
    depth_study(data, **one, out=folder)
    with pytest.raises(GesmError, match=r"another study, its epochs differ.*'epochs': 1.*'epochs': 2"):
        depth_study(data, **{**one, "epochs": 2}, out=folder, resume=True)
    with (folder / "runs.jsonl").open("a") as file:
        file.write('{"model": "sgc"}\n')
    with pytest.raises(GesmError, match="holds a line that is no run of a depth study"):
        depth_study(data, **one, out=folder, resume=True)
    (folder / "study.json").write_text("nonsense")
    with pytest.raises(GesmError, match=r"study\.json cannot be read"):
        depth_study(data, **one, out=folder, resume=True)


@pytest.mark.parametrize("key", ["train_mask", "test_mask", "y", "edge_index"])
def test_runs_of_other_data_of_the_same_name_are_not_mixed(key, data, tmp_path):
    one = {"models": ("sgc",), "arms": ("fixed",), "depths": (1,), "runs": 1, "epochs": 1, "out": tmp_path / "study"}
    first = depth_study(data, **one)
    assert depth_study(data.clone(), **one, resume=True) == first
    other = data.clone()
    other[key] = other[key].flip(-1)
    with pytest.raises(GesmError, match=r"another study, its data differ: {'data': \d+} -> {'data': \d+}"):
        depth_study(other, **one, resume=True)


def test_a_loss_that_is_not_finite_names_the_cell(data, monkeypatch):
    monkeypatch.setitem(SETTINGS, "gcn", depth_run.Setting("GCN", "num_layers", 1e38, 0.0, "test", {"hidden_channels": 8}))
    with pytest.raises(GesmError, match=r"Cell\(model='gcn', arm='fixed', K=3, seed=0\): the validation loss became"):
        run_cell(Cell("gcn", "fixed", 3, 0), data, 20)


def test_the_summary_counts_the_seeds(records, data):
    summary = summarize_depth(records, data, 7)
    assert all(cell["seeds"] == [0, 1] for cell in summary["cells"])
