"""Every example runs on the synthetic graph, uses each flag it offers, and stays short."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from gesm import datasets

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NODES = ["--hidden_channels", "4", "--heads", "2", "--device", "cpu"]
SETTINGS = {
    "cora.py": [*NODES, "--runs", "2"],
    "custom_model.py": NODES,
    "ppi.py": [*NODES, "--batch_size", "3"],
    "recommender.py": ["--embedding_dim", "4", "--runs", "2"],
}
SMALL = ["--dataset", "synthetic", "--epochs", "2", "--K", "2", "--lr", "0.01", "--seed", "1"]


def test_all_examples_are_run():
    assert [path.name for path in EXAMPLES] == sorted(SETTINGS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_runs(path, tmp_path):
    out = tmp_path / "result.json"
    options = [*SMALL, *SETTINGS[path.name], "--json", str(out)]
    command = [sys.executable, "-W", "error::UserWarning", str(path), *options]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    result = json.loads(out.read_text())
    assert result["dataset"] == "synthetic"
    if path.name == "recommender.py":
        assert len(result["test"]) == 5
        return
    for split in ("val", "test"):
        score = result[split]["mean"] if isinstance(result[split], dict) else result[split]
        assert 0 <= score <= 1
    if path.name == "cora.py":
        assert len(result["test"]["runs"]) == 2


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cora.py", ["--epochs", "0"], "--epochs and --runs must be at least 1"),
        ("cora.py", ["--runs", "0"], "--epochs and --runs must be at least 1"),
        ("cora.py", ["--dataset", "ppi"], "see examples/ppi.py"),
        ("custom_model.py", ["--dataset", "ppi"], "see examples/ppi.py"),
        ("ppi.py", ["--epochs", "0"], "--epochs must be at least 1"),
        ("recommender.py", ["--K", "0"], "must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(ROOT / "examples" / name))
    assert message in capsys.readouterr().err


def test_runs_of_a_random_split_have_splits_of_their_own(monkeypatch):
    seeds = []
    monkeypatch.setattr(datasets, "load", lambda name, seed: seeds.append(seed) or datasets.synthetic(seed=seed))
    monkeypatch.setattr(sys, "argv", ["cora.py", *SMALL[2:], "--dataset", "photo", *SETTINGS["cora.py"]])
    runpy.run_path(str(ROOT / "examples" / "cora.py"))
    assert seeds == [1, 2]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_flag_is_used_and_the_file_is_short(path):
    source = path.read_text(encoding="utf-8")
    flags = re.findall(r'add_argument\("--(\w+)"', source)
    assert {option[2:] for option in [*SMALL, *SETTINGS[path.name]] if option.startswith("--")} <= set(flags)
    assert [flag for flag in flags if f"args.{flag}" not in source] == []
    assert source.count("\n") < 90
