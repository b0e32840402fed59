"""Peak memory, each contender in a process of its own: attend on a random graph (8 heads of 16), the first training step."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def _child(*arguments: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    process = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def _measure(benchmark, group: str, contender: str, *arguments: str) -> None:
    """The time column is that of the whole child process; `peak_bytes` is what counts."""
    benchmark.group = group
    benchmark.extra_info["contender"] = contender
    benchmark.extra_info |= benchmark.pedantic(_child, args=arguments, rounds=1, iterations=1)


@pytest.mark.parametrize("contender", ["gesm", "PyG gather-scatter"])
def test_attend(process, contender, smoke, benchmark):
    nodes, edges = (2000, 22_000) if smoke else (200_000, 2_200_000)
    group = f"attend peak memory[{nodes} nodes, {edges} edges]"
    _measure(benchmark, group, contender, "attend", contender, "--nodes", str(nodes), "--edges", str(edges))


@pytest.mark.parametrize("contender", ["gesm", "PyG GESM", "PyG GAT 8x8"])
def test_step(dataset, process, contender, benchmark):
    _measure(benchmark, f"training step peak memory[{dataset}]", contender, "step", contender, "--dataset", dataset)
