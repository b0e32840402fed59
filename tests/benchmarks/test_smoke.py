import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = {"PyG gather-scatter", "PyG sparse steps"}
POINTS = {"nodes": (1024, 2048), "degree": (2, 4), "K": (1, 2), "heads": (1, 2)}
CONTENDERS = {
    "attend forward[synthetic]": {"PyG gather-scatter"},
    "attend forward+backward[synthetic]": {"PyG gather-scatter"},
    "mix forward+backward[synthetic]": STEPS,
    "spmm forward+backward[synthetic]": STEPS,
    "EntityAttention[synthetic]": {"PyG layer"},
    "StepMixture[synthetic]": {"PyG TAGConv"},
    "epoch[synthetic]": {"gesm, K = 64", "PyG GESM", "PyG GESM, sparse steps", "PyG GAT 8x8", "PyG GCN 16"},
    "hop[synthetic]": {"wrapped, always K", "hop sampling", "hop sampling, 4 draws"},
    "attend peak memory[2000 nodes, 22000 edges]": {"PyG gather-scatter"},
    "training step peak memory[synthetic]": {"PyG GESM", "PyG GAT 8x8"},
    **{f"scaling {axis}[{value}]": {"PyG GESM"} for axis, values in POINTS.items() for value in values},
}


def run(*arguments, **environment):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_smoke_run_writes_ratios(tmp_path):
    file = tmp_path / "new" / "ratios.json"
    process = run("--smoke", "--json", str(file))
    assert process.returncode == 0, process.stdout + process.stderr
    assert "epoch[synthetic]" in process.stdout
    assert file.with_suffix(".png").exists()
    record = json.loads(file.read_text())
    assert set(record) == {"created", "command", "settings", "machine", "commit", "ratios", "measurements"}
    assert record["settings"] == {"datasets": ["synthetic"], "rounds": 1, "smoke": True, "only": ""}
    assert record["machine"]["threads"] == 1
    assert {"python", "gesm", "torch", "torch_geometric"} <= set(record["machine"]["versions"])
    assert "ratios.json" not in record["command"]

    peers = {}
    for row in record["ratios"]:
        peers.setdefault(row["group"], set()).add(row["peer"])
        assert row["ratio"] == pytest.approx(row["theirs"] / row["ours"])
        assert row["unit"] == ("bytes" if "memory" in row["group"] else "seconds")
    assert peers == CONTENDERS
    assert {group: set(names) - {"gesm"} for group, names in record["measurements"].items()} == CONTENDERS


def test_absent_data_is_skipped_with_a_reason(tmp_path):
    file = tmp_path / "ratios.json"
    process = run("--datasets", "cora", "--only", "epoch", "--json", str(file), GESM_HOME=str(tmp_path / "empty"))
    assert "cora is not on this machine: set GESM_HOME" in process.stdout
    assert not file.exists()


def test_unknown_data_set(tmp_path):
    process = run("--datasets", "corra", "--json", str(tmp_path / "ratios.json"))
    assert process.returncode == 2
    assert "there is no data set 'corra'" in process.stdout + process.stderr


@pytest.mark.parametrize("module", ["floor --datasets", "experiments --dataset"])
def test_commands_of_the_notes_run(module):
    name, option = module.split()
    command = [sys.executable, "-m", f"benchmarks.{name}", option, "synthetic", "--rounds", "1"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert process.returncode == 0, process.stderr
    assert "synthetic" in process.stdout
