"""The operators and the training step on a GPU, checked and then timed: `python -m benchmarks.gpu --json FILE`.

Every case is checked before it is timed: results and gradients of sampled rows against the reference, mixtures against chains
of torch.sparse. Times are medians of CUDA events, the second-level cache flushed before each round and the device kept busy
while the first launches queue up. A case that fails is named, leaves the others alone, and makes the exit status 1.

Two bounds stand beside each time: the floor, every operand moved once, and the traffic, a row moved for each edge that gathers
it, both over the copy rate measured first; a graph whose rows stay in the cache may beat the second. `--smoke` runs all of it
on a tiny graph, on the CPU too.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import gesm
from benchmarks.gpu_cases import Case, cases, training_step
from benchmarks.gpu_graphs import SIZES, make
from benchmarks.machine import new_file, seconds
from gesm.ops import backend
from gesm.training import pick_device
from gesm.training.accelerate import WARM_UP, CapturedStep
from gesm.training.result import versions

GRAPHS = ("cora", "pubmed", "physics", "arxiv", "hub", "reddit", "products")
STEPS = {  # graph -> features, heads, width; and whether the step is captured
    "cora": (1433, 8, 64, True),
    "pubmed": (500, 8, 64, True),
    "products": (100, 4, 64, False),
    "tiny": (5, 2, 4, False),
}


SLEEP_CYCLES = 2_000_000  # about a millisecond, in which Python launches what is timed


class Clock:
    """Median seconds of a call; on CUDA by events, after the cache was flushed."""

    def __init__(self, device: torch.device, rounds: int):
        self.device, self.rounds = device, rounds
        self.flush = torch.empty(2**28 if device.type == "cuda" else 1, dtype=torch.int8, device=device)

    def __call__(self, call: Callable[[], object]) -> float:
        for _ in range(2):
            call()
        if self.device.type != "cuda":
            return statistics.median(seconds(call) for _ in range(self.rounds))
        spent, times = 0.0, []
        while len(times) < 3 or (len(times) < self.rounds and spent < 1.0):
            self.flush.zero_()
            torch.cuda._sleep(SLEEP_CYCLES)
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
            spent += times[-1]
        return statistics.median(times)


def copy_rate(device: torch.device, clock: Clock) -> float:
    """Bytes a second of a copy, read and written both counted."""
    source = torch.ones((2**31 if device.type == "cuda" else 2**22) // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / clock(lambda: target.copy_(source))


def measure(graph: str, case: Case, clock: Clock, rate: float) -> dict[str, Any]:
    """The row of a case; a peer that fails leaves a note."""
    case.check()
    times, notes = {"gesm": clock(case.calls["gesm"])}, dict(case.notes)
    for name, call in case.calls.items():
        if name != "gesm":
            try:
                times[name] = clock(call)
            except Exception as error:  # of other people's code
                notes[name] = "out of memory" if isinstance(error, torch.OutOfMemoryError) else _first_line(error)
                torch.cuda.empty_cache()
    ours = times["gesm"]
    return {
        "graph": graph,
        "operator": case.operator,
        "ms": {name: 1e3 * t for name, t in times.items()},
        "ratios": {name: t / ours for name, t in times.items() if name != "gesm"},
        "notes": notes,
        "floor_mb": case.floor_bytes / 1e6,
        "traffic_mb": case.traffic_bytes / 1e6,
        "share_of_copy_rate_floor": case.floor_bytes / rate / ours,
        "share_of_copy_rate_traffic": case.traffic_bytes / rate / ours,
    }


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def measure_step(name: str, graph: gesm.Graph, clock: Clock) -> dict[str, Any]:
    """The row of a training step: plain, and captured where that is asked for; on CUDA the peak memory it adds."""
    features, heads, hidden, captured = STEPS[name]
    cuda = graph.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()  # the graph, and what flushes the cache
    step, optimizer = training_step(graph, features, SIZES[name].classes, heads, hidden)
    times = {"plain": 1e3 * clock(step)}
    peak = (torch.cuda.max_memory_allocated() - before) / 2**30 if cuda else None
    if captured and cuda:
        whole = CapturedStep(optimizer)
        for _ in range(WARM_UP + 1):
            whole(step)
        times["captured"] = 1e3 * clock(lambda: whole(step))
    return {"graph": name, "operator": f"GESM {heads} x {hidden} training step", "ms": times, "peak_gib": peak}


def describe(device: torch.device, rate: float, arguments: str) -> dict[str, Any]:
    """Device, versions and the command."""
    triton = {"triton": __import__("triton").__version__} if find_spec("triton") else {}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.gpu {arguments}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "backend": backend(device),
        "versions": versions() | triton,
        "peers_not_installed": [name for name in ("torch_scatter", "turbo_gnn") if not find_spec(name)],
        "copy_rate_gb": rate / 1e9,
    }


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """Rows as a table; a ratio above 1 means that gesm is faster."""
    grid = Table("graph", "operator", title=title, title_justify="left")
    for column in ("gesm ms", "peers: ms (ratio)", "floor %", "traffic %", "peak GiB"):
        grid.add_column(column, justify="right")
    for row in rows:
        if "error" in row:
            grid.add_row(row["graph"], row["operator"], "failed", row["error"], "", "", "")
            continue
        if "ratios" not in row:
            times = ", ".join(f"{name} {ms:.3f}" for name, ms in row["ms"].items())
            grid.add_row(row["graph"], row["operator"], times, "", "", "", f"{row['peak_gib'] or 0:.1f}")
            continue
        peers = [f"{name} {row['ms'][name]:.3f} ({ratio:.1f})" for name, ratio in row["ratios"].items()]
        peers += [f"{name}: {note}" for name, note in row["notes"].items()]
        shares = [f"{100 * row[f'share_of_copy_rate_{bound}']:.0f}" for bound in ("floor", "traffic")]
        grid.add_row(row["graph"], row["operator"], f"{row['ms']['gesm']:.3f}", "\n".join(peers), *shares, "")
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="gesm's operators and training step on a GPU."
    )
    parser.add_argument("--json", type=new_file, help="file to write")
    parser.add_argument("--graphs", default=",".join(GRAPHS), help=f"comma-separated, of {', '.join(SIZES)}")
    parser.add_argument("--rounds", type=int, default=20, help="at most this many timed rounds a call")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--smoke", action="store_true", help="a tiny graph, one round: does it run at all?")
    options = parser.parse_args()
    device = pick_device(options.device)
    if device.type != "cuda" and not options.smoke:
        parser.error(f"this measures a CUDA device, got {device}; pass --smoke to see whether it runs")
    names = ["tiny"] if options.smoke else options.graphs.split(",")
    if unknown := [name for name in names if name not in SIZES]:
        parser.error(f"there is no graph {unknown[0]!r}; choose from {', '.join(SIZES)}")
    torch.manual_seed(0)
    clock = Clock(device, 1 if options.smoke else options.rounds)
    rate = copy_rate(device, clock)
    rows: list[dict[str, Any]] = []
    arguments = "--smoke" if options.smoke else f"--graphs {options.graphs} --rounds {options.rounds}"
    record = describe(device, rate, arguments) | {"rows": rows}

    def add(name: str, operator: str, kind: str, row: Callable[[], dict[str, Any]]) -> None:
        try:
            rows.append(row() | {"data": kind})
        except (AssertionError, RuntimeError, gesm.GesmError) as error:  # torch's out of memory is a RuntimeError
            rows.append({"graph": name, "operator": operator, "data": kind, "error": _first_line(error)})
            print(f"{name}, {operator}: {rows[-1]['error']}", file=sys.stderr, flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    for name in names:
        graph, kind = make(name, device)
        print(f"{name}: {kind}, {graph.num_nodes} nodes, {graph.num_edges} edges", flush=True)
        for operator, make_case in cases(name, graph):
            add(name, operator, kind, lambda make_case=make_case: measure(name, make_case(), clock, rate))  # noqa: B023
        if name in STEPS:
            add(name, "GESM training step", kind, lambda: measure_step(name, graph, clock))  # noqa: B023
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(rows, f"{record['device']}, {record['backend']}, copies {rate / 1e9:.0f} GB/s"))
    if any("error" in row for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
