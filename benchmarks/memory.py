"""Peak memory of one call in this process: `python -m benchmarks.memory attend gesm` or `... step gesm --dataset pubmed`.

The peak is the largest resident size during the call above the resident size just before it, when inputs, incoming gradient
and normalised graph are there and everything the call itself has to build (index structures too) is not. On Linux the kernel's
own high-water mark (VmHWM, reset by writing 5 to /proc/self/clear_refs) sees every page; elsewhere, and where the reset is
forbidden, `getrusage`, whose mark never falls and which therefore reads low if building the inputs took more than the call.
Freed memory that the C library still holds is given back first, and a call on a small graph pays for threads and libraries.
"""

import argparse
import contextlib
import ctypes
import json
import resource
import sys
from collections.abc import Callable

from benchmarks.workloads import attends, random_graph, step

__all__ = ["peak"]


def peak(call: Callable[[], object]) -> tuple[int, str]:
    """Bytes that `call` adds to the resident size at its worst moment, and how that was seen."""
    _release()
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = _status("VmRSS")
        call()
        return _status("VmHWM") - before, "VmHWM"
    except OSError:
        before = _max_rss()
        call()
        return _max_rss() - before, "getrusage"


def _release() -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def _max_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _attend(options: argparse.Namespace) -> Callable[[], object]:
    sizes = {"heads": options.heads, "width": options.width}
    attends(random_graph(500, 5000), 500, **sizes)  # checks that the contenders agree, and warms both up
    modes = attends(random_graph(options.nodes, options.edges), options.nodes, **sizes, check=False)
    return modes["forward+backward"][options.contender]


def _step(options: argparse.Namespace) -> Callable[[], object]:
    step("synthetic", options.contender)()  # warms up; `epochs` checks that the contenders agree
    return step(options.dataset, options.contender)


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of one call.")
    commands = parser.add_subparsers(required=True, metavar="attend | step")
    command = commands.add_parser("attend", help="attention forward + backward on a random graph")
    command.add_argument("contender")
    for name, default in (("nodes", 200_000), ("edges", 2_200_000), ("heads", 8), ("width", 16)):
        command.add_argument(f"--{name}", type=int, default=default)
    command.set_defaults(make=_attend)
    command = commands.add_parser("step", help="the first training step of a model: forward, backward and Adam")
    command.add_argument("contender")
    command.add_argument("--dataset", default="pubmed")
    command.set_defaults(make=_step)
    options = parser.parse_args()
    call = options.make(options)
    num_bytes, method = peak(call)
    print(json.dumps({"peak_bytes": num_bytes, "method": method}))


if __name__ == "__main__":
    main()
