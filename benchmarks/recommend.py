"""Recommenders under drift: `python -m benchmarks.recommend run --out DIR`, then `report --out DIR`; and `drift`.

The plan is in PLAN.md. A cell is a data set, an origin, an arm and a seed; `DIR/cells.jsonl` has a line for each, and
`DIR/arrays/` its values for every user. Cells that are there are not run again. All cells of seed 0 come first, then those of
seed 1, and so on, so that a study that was stopped is balanced.
"""

import argparse
import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import jsonl, recommend_drift, recommend_report
from benchmarks.machine import made, new_file
from benchmarks.recommend_cells import ARMS, DATASETS, loaded, origin, run_cell, settings_of
from gesm.errors import GesmError
from gesm.training.workers import end_with_parent

__all__ = ["Group", "main", "read_cells", "run_group", "run_study"]

ORIGINS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Group:
    """The cells that one worker runs together: the arms of a data set, an origin and a seed."""

    dataset: str
    q: float
    seed: int
    arms: tuple[str, ...]
    longer: int = 1


def read_cells(out: Path) -> list[dict[str, Any]]:
    """The lines of a study; a last one that was cut off is left out.

    Raises:
        GesmError: if there is none.
    """
    lines = jsonl.read(out / "cells.jsonl")
    cells = list({(cell["dataset"], cell["q"], cell["arm"], cell["seed"]): cell for cell in lines}.values())
    if not cells:
        raise GesmError(f"{out} holds no cells; `python -m benchmarks.recommend run --out {out}` makes them")
    return cells


def array_file(out: Path, cell: dict[str, Any]) -> Path:
    """Where the values for the users of a cell are."""
    return out / "arrays" / f"{cell['dataset']}-{cell['q']:g}-{cell['arm']}-{cell['seed']}.npz"


def run_group(group: Group, out: Path) -> int:
    """Runs the cells of a group and keeps each as soon as it is there; returns how many."""
    place = origin(loaded(group.dataset), group.q)
    for arm in group.arms:
        settings = settings_of(group.dataset, arm, group.seed, place.shares["pairs"], place.recent, group.longer)
        found, arrays = run_cell(place, settings)
        cell = {"dataset": group.dataset, "q": group.q, "arm": arm, "seed": group.seed}
        users = {f"users/{kind}": numbers for kind, numbers in place.users.items()}
        file = array_file(out, cell)
        part = file.with_suffix(".part")
        with part.open("wb") as stream:
            np.savez_compressed(stream, **users, **arrays)
        part.replace(file)
        cell |= {"settings": settings.to_dict(), "shares": place.shares, **found}
        # One write to a file opened for appending: the lines of two workers do not mix.
        handle = os.open(out / "cells.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, (json.dumps(cell) + "\n").encode())
        os.close(handle)
    return len(group.arms)


def run_study(
    datasets: Iterable[str],
    qs: Iterable[float],
    seeds: int,
    arms: Iterable[str],
    out: Path,
    workers: int,
    longer: int = 1,
) -> None:
    """Runs what is missing of a study, with `longer` times the steps.

    Raises:
        GesmError: for an unknown name, an origin out of range, or cells in `out` that other settings have made.
    """
    datasets, qs, arms = list(datasets), list(qs), list(arms)
    for names, allowed, what in ((datasets, DATASETS, "data set"), (arms, ARMS, "arm")):
        if unknown := [name for name in names if name not in allowed]:
            raise GesmError(f"no {what} {', '.join(unknown)}; choose from {', '.join(allowed)}")
    if min(seeds, workers, longer) < 1 or not all(0 < q <= 0.9 for q in qs):
        raise GesmError(
            f"seeds, workers and longer must be >= 1, origins in (0, 0.9], got {seeds}, {workers}, {longer} and {qs}"
        )
    (out / "arrays").mkdir(parents=True, exist_ok=True)
    plan = {name: json.loads(json.dumps(vars(DATASETS[name]))) for name in datasets} | {"arms": {a: ARMS[a] for a in arms}}
    plan["longer"] = longer
    _check_plan(out / "plan.json", plan)
    _cut_torn_line(out / "cells.jsonl")
    done = set()
    if (out / "cells.jsonl").exists() and (out / "cells.jsonl").stat().st_size:
        done = {(cell["dataset"], cell["q"], cell["arm"], cell["seed"]) for cell in read_cells(out)}
    groups = []
    for seed in range(seeds):
        own = [arm for arm in arms if seed == 0 or not arm.startswith("popularity")]  # which has nothing random
        for dataset in datasets:
            for q in qs:
                missing = tuple(arm for arm in own if (dataset, q, arm, seed) not in done)
                groups += [Group(dataset, q, seed, missing, longer)] if missing else []
    total, ready = sum(len(group.arms) for group in groups), 0
    print(f"{len(done)} cells are there, {total} to run", flush=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        futures = {pool.submit(run_group, group, out): group for group in groups}
        try:
            for future in as_completed(futures):
                ready += future.result()
                group = futures[future]
                print(f"{ready}/{total}: {group.dataset} {group.q:g} seed {group.seed}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _check_plan(file: Path, plan: dict[str, Any]) -> None:
    """Keeps the settings beside the cells, and refuses to add cells of others."""
    old = json.loads(file.read_text()) if file.exists() else {}
    flat_old, flat = old | old.get("arms", {}), plan | plan["arms"]
    changed = [key for key in flat if key != "arms" and key in flat_old and flat_old[key] != flat[key]]
    if changed:
        raise GesmError(f"{file.parent} holds cells of other settings of {', '.join(changed)}; choose another folder")
    file.write_text(json.dumps(old | plan | {"arms": old.get("arms", {}) | plan["arms"]}, indent=1) + "\n")


def _cut_torn_line(file: Path) -> None:
    """Cuts off what a killed worker left of a last line."""
    if file.exists():
        content = file.read_bytes()
        if not content.endswith(b"\n"):
            file.write_bytes(content[: content.rfind(b"\n") + 1])


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes numbers with commas between, got {text!r}") from None


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recommend", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and read the cells that are missing")
    run.add_argument("--datasets", default=",".join(DATASETS), help="comma-separated names")
    run.add_argument("--origins", type=_numbers, default=ORIGINS, help="comma-separated quantiles of time")
    run.add_argument("--arms", default=",".join(ARMS), help="comma-separated names")
    run.add_argument("--longer", type=int, default=1, help="factor of the number of steps, to see whether they suffice (1)")
    report = commands.add_parser("report", help="the tables")
    report.add_argument("--repetitions", type=int, default=2000, help="bootstrap samples (2000; primary comparisons 10000)")
    drift = commands.add_parser("drift", help="made worlds that drift at set rates")
    drift.add_argument("--rates", type=_numbers, default="0,.05,.1,.2,.4,.8", help="comma-separated rates of drift")
    for command, seeds in ((run, 5), (drift, 10)):
        command.add_argument("--seeds", type=int, default=seeds, help=f"number of seeds ({seeds})")
        command.add_argument("--workers", type=int, default=2, help="processes of one thread (2)")
    for command in (run, report):
        command.add_argument("--out", type=Path, required=True, help="folder of the study, not for git")
    for command in (report, drift):
        command.add_argument("--json", type=new_file, help="file for the figures")
        command.add_argument("--markdown", type=new_file, help="file for the tables")
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            names, arms = (re.split(r",\s*", text) for text in (options.datasets, options.arms))
            run_study(names, options.origins, options.seeds, arms, options.out, options.workers, options.longer)
            return
        head = made("benchmarks.recommend", arguments)
        if options.command == "report":
            cells, plan = read_cells(options.out), json.loads((options.out / "plan.json").read_text())
            values = lambda cell: array_file(options.out, cell)  # noqa: E731
            record = {"plan": plan} | recommend_report.study(cells, values, options.repetitions, plan["longer"])
            text = recommend_report.markdown(record)
        else:
            record = recommend_drift.study(options.rates, options.seeds, options.workers)
            text = recommend_drift.markdown(record)
    except GesmError as error:
        parser.error(str(error))
    print(text)
    if options.json:
        options.json.write_text(json.dumps(head | record, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
