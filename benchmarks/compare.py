"""A run of the suite against an earlier one: `python -m benchmarks.compare BASE [NEW]`; without NEW it is run as BASE was.

A ratio fails if the upper quartile of its turns lies more than 20 % below the lower quartile of the base's turns: it got worse
by more than 20 % beyond the spread. Of gesm against itself (K = 64 against 14) less is better, and the quartiles change places.
Times are not compared: ratios to a peer carry over from machine to machine, times do not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["compare"]

TOLERANCE = 0.2


def compare(base: list[dict], new: list[dict]) -> list[dict]:
    """A row for each group and peer of the base: both ratios, and a verdict: ok, worse or not measured."""
    found = {(row["group"], row["peer"]): row for row in new}
    rows = []
    for row in base:
        now = found.get((row["group"], row["peer"]))
        verdict = "not measured" if now is None else "worse" if _is_worse(row, now) else "ok"
        ratio = None if now is None else now["ratio"]
        rows.append({"group": row["group"], "peer": row["peer"], "base": row["ratio"], "new": ratio, "verdict": verdict})
    return rows


def _is_worse(base: dict, new: dict) -> bool:
    (base_low, base_high), (new_low, new_high) = base["ratio_quartiles"], new["ratio_quartiles"]
    if base["peer"].startswith("gesm"):
        return base_high < (1 - TOLERANCE) * new_low
    return new_high < (1 - TOLERANCE) * base_low


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description="Did a ratio get worse?")
    parser.add_argument("base", type=Path, help="JSON that `python -m benchmarks` wrote")
    parser.add_argument("new", type=Path, nargs="?", help="another; without it the suite is run with the settings of the base")
    options = parser.parse_args()
    base = _read(options.base, parser)
    if options.new:
        new = _read(options.new, parser)
    else:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "new.json"
            status = subprocess.run(_command(base["settings"], file), check=False).returncode
            if status or not file.exists():
                print("the suite failed; nothing is compared", file=sys.stderr)
                return status or 1
            new = json.loads(file.read_text())
    if base["machine"]["threads"] != new["machine"]["threads"]:
        threads = f"{base['machine']['threads']} and {new['machine']['threads']}"
        print(f"warning: these runs had {threads} threads; set OMP_NUM_THREADS, for ratios depend on it", file=sys.stderr)
    rows = compare(base["ratios"], new["ratios"])
    table = Table(title=f"against {options.base.name} of {base['created'][:10]}", title_justify="left")
    for name in ("group", "peer"):
        table.add_column(name)
    for name in ("base", "new", "verdict"):
        table.add_column(name, justify="right")
    for row in rows:
        ratio = "" if row["new"] is None else f"{row['new']:.2f}"
        style = "bold red" if row["verdict"] == "worse" else None
        table.add_row(escape(row["group"]), row["peer"], f"{row['base']:.2f}", ratio, row["verdict"], style=style)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    worse, missing = (sum(row["verdict"] == verdict for row in rows) for verdict in ("worse", "not measured"))
    print(f"{len(rows)} ratios: {worse} worse by more than {TOLERANCE:.0%} beyond the spread, {missing} not measured")
    return 1 if worse or missing == len(rows) else 0


def _read(file: Path, parser: argparse.ArgumentParser) -> dict:
    try:
        record = json.loads(file.read_text())
        record["ratios"], record["settings"], record["created"], record["machine"]["threads"]
        if not all("ratio_quartiles" in row for row in record["ratios"]):
            raise KeyError("ratio_quartiles")
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"{file} is not what `python -m benchmarks --json` of this version writes ({error!r}); run it once more")
    return record


def _command(settings: dict, file: Path) -> list[str]:
    command = [sys.executable, "-m", "benchmarks", "--json", str(file), f"--rounds={settings['rounds']}"]
    command += [f"--only={settings['only']}"] if settings["only"] else []
    return [*command, "--smoke"] if settings["smoke"] else [*command, f"--datasets={','.join(settings['datasets'])}"]


if __name__ == "__main__":
    sys.exit(main())
