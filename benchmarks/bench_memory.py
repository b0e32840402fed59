"""Peak memory of attend forward + backward, 8 heads of 16, on a random graph; each contender in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def _child(contender: str, nodes: int, edges: int) -> dict:
    command = [sys.executable, "-m", "benchmarks.memory", contender, "--nodes", str(nodes), "--edges", str(edges)]
    process = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("contender", ["gesm", "PyG gather-scatter"])
def test_memory(contender, smoke, benchmark):
    """The time column is that of the whole child process; `peak_bytes` is what counts."""
    nodes, edges = (2000, 22_000) if smoke else (200_000, 2_200_000)
    benchmark.group = f"attend peak memory[{nodes} nodes, {edges} edges]"
    benchmark.extra_info["contender"] = contender
    benchmark.extra_info |= benchmark.pedantic(_child, args=(contender, nodes, edges), rounds=1, iterations=1)
