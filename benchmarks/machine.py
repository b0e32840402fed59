"""What a measurement ran on, and what wrote it down."""

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from gesm.training.result import versions

__all__ = ["command", "describe", "made", "new_file", "seconds"]

PLACES = ("--json", "--markdown", "--out")


def describe() -> dict:
    """CPU, memory, threads and versions; nothing that names the host or its user."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "versions": versions() | {name: version(name) for name in ("numpy", "pytest-benchmark")},
    }


def made(module: str, arguments: Sequence[str] | None = None) -> dict:
    """The head of a record: when, by which command, from which commit and on what it was made."""
    from pytest_benchmark.utils import get_commit_info  # here, for on a GPU machine it need not be installed

    commit = get_commit_info()
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(module, sys.argv[1:] if arguments is None else arguments),
        "commit": {key: commit[key] for key in ("id", "dirty")},
        "machine": describe(),
    }


def command(module: str, arguments: Sequence[str]) -> str:
    """The command line without the places of files, which are the reader's own business."""
    shown, skip = [], False
    for argument in arguments:
        if not (skip or argument.partition("=")[0] in PLACES):
            shown.append(argument)
        skip = argument in PLACES
    return shlex.join(["python", "-m", module, *shown])


def new_file(text: str) -> Path:
    """A file to write, as the type of an argument: refused before the work where its folder is missing."""
    if not Path(text).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder of {text} does not exist; make it first")
    return Path(text)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
