"""The suite as tables, JSON and a plot of scaling: `python -m benchmarks [--datasets cora,pubmed] [--rounds 5]`.

The JSON: `created`, `command`, `settings` (datasets, rounds, smoke, only), `machine` (with `threads` and `versions`), `commit`,
`ratios` (a row for each group and peer: group, peer, unit, ours, theirs, ratio, ratio_range, ratio_quartiles, turns, rounds,
spread) and `measurements` (group -> contender -> turn -> seconds or bytes). The plot lies beside it, with the ending .png.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.machine import command

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="gesm against its peers, as one table of ratios.")
    parser.add_argument("--json", type=Path, help="file to write (results/latest.json, or results/latest-smoke.json)")
    parser.add_argument("--datasets", default="cora,pubmed", help="comma-separated names (cora,pubmed)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender, alternating with its rivals' (5)")
    parser.add_argument(
        "--only",
        default="",
        help="pytest's -k: a part of the suite, such as 'epoch or memory'; parts: operator, layer, epoch, hop, memory, scaling",
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny made graph, one round: does the suite run at all?")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")

    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        arguments = [str(HERE), "--benchmark-only", "--benchmark-quiet", f"--benchmark-json={raw}", "-q"]
        arguments += ["-p", "no:cacheprovider", f"--datasets={options.datasets}", f"--rounds={options.rounds}"]
        arguments += ["-W", "ignore:Not saving anything"]  # where all was skipped, which pytest reports
        arguments += ["--smoke"] if options.smoke else []
        arguments += ["-k", options.only] if options.only else []
        status = pytest.main(arguments)
        if not raw.exists() or not raw.stat().st_size:
            print("nothing was measured", file=sys.stderr)
            return 2 if status == pytest.ExitCode.USAGE_ERROR else int(status) or 1
        result = json.loads(raw.read_text())

    groups = report.measurements(result["benchmarks"])
    rows = report.ratios(groups)
    machine = {key: result["machine_info"][key] for key in ("processor", "cores", "memory_gb", "system", "threads")}
    machine |= {key: result["machine_info"][key] for key in ("load", "versions")}
    record = {
        "created": result["datetime"],
        "command": command("benchmarks", sys.argv[1:]),
        "settings": {
            "datasets": ["synthetic"] if options.smoke else options.datasets.split(","),
            "rounds": 1 if options.smoke else options.rounds,
            "smoke": options.smoke,
            "only": options.only,
        },
        "machine": machine,
        "commit": {key: result["commit_info"].get(key) for key in ("id", "dirty")},
        "ratios": rows,
        "measurements": groups,
    }
    file = options.json or HERE / "results" / ("latest-smoke.json" if options.smoke else "latest.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")
    title = f"{machine['processor']}, {machine['threads']} threads, torch {machine['versions']['torch']}"
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(report.table(rows, title))
    if curves := report.curves(rows):
        report.plot(curves, file.with_suffix(".png"))
        console.print(report.scaling_table(curves))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
