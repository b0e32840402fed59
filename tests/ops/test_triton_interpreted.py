"""The Triton kernels without a GPU: interpreted in a process of their own, compiled ahead of time, and not there at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from interpreter import needs_interpreter

from benchmarks.ahead import compile_all, launches
from gesm import GesmError
from gesm.ops import backend, use_backend

ROOT = Path(__file__).parent.parent.parent


def python(*arguments, **environment):
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    process = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_interpreted():
    needs_interpreter()
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ops/test_triton.py", "-k", "interpreted")
    assert " passed" in python(*arguments, TRITON_INTERPRET="1")


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")  # of Triton 3.9 alone
@pytest.mark.parametrize(("workload", "arch"), [("8 x 64 fp32", 90), ("1 x 128 fp16", 90), ("3 x 33 fp16", 80)])
def test_compiles_without_spilling(workload, arch):
    pytest.importorskip("triton")
    rows = list(compile_all(workload, arch))
    assert {row["kernel"] for row in rows} >= {"_spmm", "_sddmm", "_forward", "_merge", "_sources", "_targets"}
    for row in rows:
        assert row["local"] == 0, row
        assert row["shared"] < 48 * 1024, row


@pytest.mark.parametrize("workload", ["8 x 64 fp32", "1 x 7 fp32", "3 x 33 fp16"])
def test_the_size_of_the_graph_compiles_nothing_anew(workload):
    pytest.importorskip("triton")
    few, many = (set(launches(workload, nodes)) for nodes in (50, 91))
    assert few == many


def test_importing_gesm_does_not_import_triton():
    program = "import sys, gesm.nn, gesm.training; assert not any(m == 'gesm.ops.spmm.triton' for m in sys.modules)"
    python("-c", program)


def test_without_triton_the_reference_runs_and_a_request_is_refused():
    program = """
import sys
sys.modules["triton"] = None
import torch, gesm
from gesm.ops import backend, spmm, use_backend
assert backend(torch.device("cpu")) == "cpu"
assert backend(torch.device("cuda")) == "reference"
graph = gesm.Graph(torch.tensor([[0], [1]]), None, 2)
spmm(graph, torch.ones(2, 1))
for device in ("cpu", "cuda"):
    with use_backend("triton"):
        try:
            backend(torch.device(device))
        except gesm.GesmError as error:
            print(error)
"""
    lines = python("-c", program).splitlines()
    assert len(lines) == 2
    assert all("GESM_BACKEND=triton was asked for, but Triton is not installed" in line for line in lines)


def test_on_the_cpu_it_takes_the_interpreter():
    pytest.importorskip("triton")
    with use_backend("triton"), pytest.raises(GesmError, match=r"tensors are on cpu; .* TRITON_INTERPRET=1"):
        backend(torch.device("cpu"))
