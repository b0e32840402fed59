import errno
import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import gesm
from gesm.cli import app
from gesm.datasets import load, registry, synthetic
from gesm.training import Recipe, fit

TINY = ["--epochs", "3", "--set", "hidden_channels=4", "--set", "heads=2", "--set", "K=2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GESM_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def fails(*arguments):
    return run(*arguments, code=2).stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    run("train", "citeseer", *TINY, "--out", folder)
    return folder


def test_version_and_help():
    assert run("--version").output == f"gesm {gesm.__version__}\n"
    command = [sys.executable, "-m", "gesm", "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == f"gesm {gesm.__version__}\n"
    for command in ("train", "evaluate", "predict", "datasets"):
        assert command in run("--help").output
        assert run(command, "--help").output


def test_starting_is_quick():
    code = "import sys, gesm.cli; sys.exit('torch_geometric' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_train_writes_what_it_promises(trained, tmp_path):
    files = {p.name for p in trained.iterdir()}
    assert files == {"recipe.yaml", "metrics.jsonl", "model.safetensors", "curves.png", "result.json"}
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
    assert (recipe["model"], recipe["epochs"], recipe["hidden_channels"], recipe["lr"]) == ("gesm", 3, 4, recipe["lr"])


def test_train_several_runs_to_json_resumed(tmp_path):
    arguments = ["train", "CiteSeer", "--model", "gsm", *TINY[:4], "--set", "K=1", "--runs", "2", "--seed", "4"]
    out = run(*arguments, "--out", tmp_path / "r", "--json", tmp_path / "r.json")
    assert "gsm on citeseer" in out.stdout
    assert "run 2/2  seed 5" in out.stderr
    summary = json.loads((tmp_path / "r.json").read_text())
    assert summary["seed"] == [4, 5]
    assert summary == json.loads((tmp_path / "r" / "result.json").read_text())
    run(*arguments, "--out", tmp_path / "r", "--resume", "--json", tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["test"] == summary["test"]
    assert "already holds a run" in fails(*arguments, "--out", tmp_path / "r")
    run(*arguments, "--out", tmp_path / "r", "--overwrite")


def test_train_with_a_recipe_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("model: gsm\nK: 1\nhidden_channels: 4\nepochs: 2\n")
    assert "gsm on citeseer" in run("train", "citeseer", "--recipe", tmp_path / "mine.yaml").stdout
    assert "for gsm, --model says gesm" in fails("train", "citeseer", "--recipe", tmp_path / "mine.yaml", "--model", "gesm")


def test_protocol_and_seed_reach_the_split(monkeypatch, tmp_path):
    asked = []

    def fake(name, root=None, protocol=None, seed=0):
        asked.append((name, root, protocol, seed))
        return synthetic(seed=seed)

    monkeypatch.setattr("gesm.datasets.load", fake)
    run("train", "photo", "--protocol", "60/20/20", "--runs", 2, "--seed", 3, "--root", tmp_path, *TINY)
    assert asked == [("photo", tmp_path, "60/20/20", 3), ("photo", tmp_path, "60/20/20", 4)]


def test_evaluate_repeats_the_test_figure(trained):
    summary = json.loads((trained / "result.json").read_text())
    shown = run("evaluate", trained).stdout
    assert f"{100 * summary['test']['mean']:.2f}" in shown
    assert f"{summary['val_loss']['mean']:.4f}" in shown


def test_predict_for_data_set_and_own_graph_agree(trained, tmp_path):
    data = load("citeseer")
    np.save(tmp_path / "edges.npy", data.edge_index.T.numpy())
    np.savez(tmp_path / "features.npz", features=data.x.numpy())
    run("predict", trained, "--out", tmp_path / "a.npz")
    own = ["--edges", tmp_path / "edges.npy", "--features", tmp_path / "features.npz"]
    run("predict", trained, *own, "--out", tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert a["probabilities"].shape == (3327, 6)
        assert np.array_equal(a["labels"], b["labels"])
        assert np.array_equal(a["probabilities"], b["probabilities"])
    run("predict", trained, "--dataset", "citeseer", "--out", tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text().startswith("node,label,p0,p1,p2,p3,p4,p5\n0,")


def test_predict_refuses_bad_graphs(trained, tmp_path):
    np.save(tmp_path / "edges.npy", np.array([[0, 1], [1, 7]]))
    np.save(tmp_path / "narrow.npy", np.zeros((3, 5)))
    np.save(tmp_path / "x.npy", np.zeros((3, 3703), dtype=np.float32))
    to = ["--out", tmp_path / "p.npz"]
    edges = ["--edges", tmp_path / "edges.npy"]
    assert "[N, 3703], as in citeseer; got [3, 5]" in fails(
        "predict", trained, *edges, "--features", tmp_path / "narrow.npy", *to
    )
    assert "7" in fails("predict", trained, *edges, "--features", tmp_path / "x.npy", *to)
    assert "No such file" in fails("predict", trained, "--edges", "no.csv", "--features", tmp_path / "x.npy", *to)
    assert "--edges and --features together" in fails("predict", trained, *edges, *to)
    assert "go to .npz or .csv" in fails("predict", trained, "--out", tmp_path / "p.txt")
    assert not (tmp_path / "p.npz").exists()


def test_datasets_lists_all():
    shown = run("datasets").stdout
    for name in registry():
        assert name in shown
    assert "citeseer.npz" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "Missing argument"),
        (["train", "reddit5k"], "no data set 'reddit5k'; choose one of cora, citeseer"),
        (["train", "citeseer", "--json", "."], "--json .: is a folder; pass another file"),
        (["train", "citeseer", "--seed", str(2**63)], "seed must be a whole number from 0 to 2^63 - 1"),
        (["train", "citeseer", "--seed", str(2**63 - 1), "--runs", "2"], "to 2^63 - 2 (of 2 runs)"),
        (["train", "citeseer", "--device", "meta"], "device 'meta' cannot be used here"),
        (["train", "citeseer", "--root", "none"], "--root none: there is no such folder"),
        (["datasets", "--root", "none"], "--root none: there is no such folder"),
        (["train", "citeseer", "--runs", "0"], "--runs"),
        (["train", "citeseer", "--runs", "many"], "--runs"),
        (["train", "citeseer", "--seed", "-1"], "--seed"),
        (["train", "ppi", "--model", "mixhop"], "recipes of ppi: best, gat, gcnii, gesm, gsm"),
        (["train", "citeseer", "--recipe", "none.yaml"], "cannot read recipe 'none.yaml'"),
        (["train", "citeseer", "--protocol", "random"], "protocol 'random'"),
        (["train", "citeseer", "--device", "tpu"], "device 'tpu' cannot be used here"),
        (["train", "citeseer", "--set", "lr"], "expected KEY=VALUE"),
        (["train", "citeseer", "--set", "lr=[", "--epochs", "3"], "is not a number, a word"),
        (["train", "citeseer", "--set", "hidden=8"], "did you mean 'hidden_channels'"),
        (["train", "citeseer", "--epochs", "0"], "epochs must be an integer in [1, inf), got 0"),
        (["train", "citeseer", "--resume"], "resume needs run_dir (--out)"),
        (["train", "citeseer", "--overwrite"], "--overwrite needs --out"),
        (
            ["train", "citeseer", "--model", "gesm_consistency"],
            "for a recipe of that name pass --recipe gesm_consistency",
        ),
        (["train", "ogbn-arxiv"], "no recipe is shipped for 'ogbn-arxiv'; pass the path of a YAML file"),
        (["train", "citeseer", "--resume", "--overwrite", "--out", "x"], "exclude each other"),
        (["train", "citeseer", "--json", "no/such/folder.json"], "the folder does not exist"),
        (["train", "cora", "--no-such"], "--no-such"),
        (["evaluate", "nowhere"], "nowhere holds no trained model"),
        (["predict", "nowhere", "--out", "p.npz"], "nowhere holds no trained model"),
        (["predict", "nowhere"], "--out"),
        (["fly"], "fly"),
    ],
)
def test_bad_input_is_one_message_and_code_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = fails(*arguments)
    assert message in error
    assert not list(tmp_path.iterdir())


def test_unwritable_json_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "cannot be written; pass another file" in fails("train", "citeseer", "--json", tmp_path / "r.json")


def test_a_full_disk_is_one_message(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "checkpoint.safetensors")

    monkeypatch.setattr("gesm.training.loop.write_atomic", full)
    result = CliRunner().invoke(app, ["train", "citeseer", "--epochs", "2", "--out", str(tmp_path / "r")])
    assert result.exit_code == 1
    assert result.output.endswith("No space left on device (checkpoint.safetensors); gesm train --out goes on with --resume\n")


def test_predict_without_edges(trained, tmp_path):
    (tmp_path / "edges.csv").write_text("source,target\n")
    np.save(tmp_path / "x.npy", np.ones((3, 3703), dtype=np.float32))
    run("predict", trained, "--edges", tmp_path / "edges.csv", "--features", tmp_path / "x.npy", "--out", tmp_path / "p.csv")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 4


def test_a_run_on_data_of_its_own(tmp_path):
    data = synthetic()
    del data.name, data.protocol
    fit(Recipe(hidden_channels=4, heads=2, K=2, epochs=2), data, run_dir=tmp_path / "run")
    for arguments in (["evaluate"], ["predict", "--out", tmp_path / "p.csv"]):
        assert "on data of its own, 'data'; name a --dataset, predict with --edges" in " ".join(
            fails(*arguments, tmp_path / "run").split()
        )
    np.save(tmp_path / "edges.npy", data.edge_index.T.numpy())
    np.save(tmp_path / "x.npy", data.x.numpy())
    own = ["--edges", tmp_path / "edges.npy", "--features", tmp_path / "x.npy"]
    assert (
        f"Predictions for {data.num_nodes} nodes" in run("predict", tmp_path / "run", *own, "--out", tmp_path / "p.csv").output
    )


def test_damaged_and_unfitting_runs(trained, tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:-1])
    assert "cannot be read" in fails("evaluate", tmp_path)
    monkeypatch.setattr("gesm.datasets.load", lambda *_: synthetic())
    assert "synthetic has in_channels 16, the model was trained for 3703 (citeseer)" in fails("evaluate", trained)
