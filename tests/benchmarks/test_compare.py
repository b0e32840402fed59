import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.compare import compare

ROOT = Path(__file__).parents[2]


def row(ratio, low, high, peer="PyG GESM"):
    return {"group": "epoch[cora]", "peer": peer, "ratio": ratio, "ratio_quartiles": [low, high]}


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        (row(10.0, 9.5, 10.5), "ok"),
        (row(30.0, 29.0, 31.0), "ok"),
        (row(7.5, 7.3, 7.7), "ok"),  # 25 % worse, but the quartiles of base and new are not 20 % apart
        (row(7.0, 6.9, 7.1), "worse"),
        (row(7.0, 5.0, 9.0), "ok"),
        (row(1.0, 1.0, 1.0, peer="PyG GAT 8x8"), "not measured"),
    ],
)
def test_worse_means_by_a_fifth_beyond_the_spread(new, verdict):
    (found,) = compare([row(10.0, 9.0, 11.0)], [new])
    assert found["verdict"] == verdict


def test_of_gesm_against_itself_less_is_better():
    base = [row(1.6, 1.5, 1.7, peer="gesm, K = 64")]
    assert compare(base, [row(2.4, 2.3, 2.5, peer="gesm, K = 64")])[0]["verdict"] == "worse"
    assert compare(base, [row(0.8, 0.8, 0.8, peer="gesm, K = 64")])[0]["verdict"] == "ok"


def run(*files):
    command = [sys.executable, "-m", "benchmarks.compare", *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def write(file, *rows, threads=2):
    settings = {"datasets": ["synthetic"], "rounds": 1, "smoke": True, "only": "spmm"}
    file.write_text(
        json.dumps({"created": "2026-11-23T00:00:00", "settings": settings, "machine": {"threads": threads}, "ratios": rows})
    )
    return file


def test_two_files(tmp_path):
    base = write(tmp_path / "base.json", row(10.0, 9.0, 11.0))
    process = run(base, write(tmp_path / "new.json", row(10.0, 9.0, 11.0)))
    assert (process.returncode, "0 worse" in process.stdout) == (0, True), process.stderr
    assert "threads" not in process.stderr
    process = run(base, write(tmp_path / "new.json", row(5.0, 4.0, 6.0)))
    assert (process.returncode, "1 worse" in process.stdout) == (1, True), process.stderr
    process = run(base, write(tmp_path / "new.json", threads=1))
    assert "these runs had 2 and 1 threads" in process.stderr
    assert (process.returncode, "1 not measured" in process.stdout) == (1, True), process.stderr


def test_without_a_second_file_the_suite_runs_as_the_base_did(tmp_path):
    peers = ("PyG gather-scatter", "PyG sparse steps")
    rows = [{**row(1e-6, 1e-6, 1e-6, peer), "group": "spmm forward+backward[synthetic]"} for peer in peers]
    process = run(write(tmp_path / "base.json", *rows))
    assert process.returncode == 0, process.stdout + process.stderr
    assert "2 ratios: 0 worse by more than 20% beyond the spread, 0 not measured" in process.stdout


def test_a_file_of_another_kind_gets_one_clear_error(tmp_path):
    (tmp_path / "base.json").write_text("{}")
    process = run(tmp_path / "base.json")
    assert process.returncode == 2
    assert "is not what `python -m benchmarks --json` of this version writes" in process.stderr
