"""SGC of the depth study at K = 64 with the settings that validation at K = 64 prefers.

`python -m benchmarks.sgc_setting --json FILE`. The study itself takes those that validation at K = 2 prefers; PLAN.md says why
both are run.
"""

import argparse
import json
from dataclasses import replace

from rich.console import Console

from benchmarks.machine import made, new_file
from gesm.datasets import load
from gesm.training import depth_run
from gesm.training.depth import depth_study
from gesm.training.depth_report import summarize_depth, table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sgc_setting", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=new_file, required=True, help="file for the figures")
    options = parser.parse_args(arguments)
    head = made("benchmarks.sgc_setting", arguments)
    sgc = depth_run.SETTINGS["sgc"]
    depth_run.SETTINGS["sgc"] = replace(sgc, weight_decay=5e-6, options={"dropout": 0.0}, source="validation at K = 64")
    data = load("cora")
    records = depth_study(data, ("sgc",), depths=(64,), runs=10, epochs=150)
    summary = summarize_depth(records, data, 150)
    Console().print(table(summary))
    options.json.write_text(json.dumps(head | summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
