"""The splits of 20 labels a class as Shchur et al. draw them, within the largest connected component.

`python -m benchmarks.connected --json FILE`. The accuracy table takes these graphs whole, as PyG users do; here its recipes,
which were searched on the whole graphs, are trained on the component alone.
"""

import argparse
import json
from dataclasses import replace
from functools import partial

from torch_geometric.transforms import LargestConnectedComponents

from benchmarks.accuracy.columns import MODELS, SHCHUR
from benchmarks.accuracy.workers import pool
from benchmarks.machine import made, new_file
from gesm.datasets import load
from gesm.datasets._splits import per_class
from gesm.training import Recipe, Result, fit, summarize

RUNS = 10


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.connected", description=__doc__.splitlines()[0])
    names = [column.dataset for column in SHCHUR]
    parser.add_argument("--datasets", nargs="+", choices=names, default=["photo"], help="(photo)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["mixed_mlp", "gcn"], help="(mixed_mlp gcn)")
    parser.add_argument("--workers", type=int, default=2, help="processes, each with one thread (2)")
    parser.add_argument("--json", type=new_file, required=True, help="file for the figures")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"--workers must be at least 1, got {options.workers}")
    record = made("benchmarks.connected", arguments) | {"cells": {}}
    with pool(options.workers) as executor:
        for dataset in options.datasets:
            for model in options.models:
                recipe = Recipe.for_dataset(dataset, name=model, protocol="shchur")
                cell = summarize(list(executor.map(partial(train, dataset, recipe), range(RUNS))), recipe)
                record["cells"][f"{dataset}-{model}"] = cell
                options.json.write_text(json.dumps(record, indent=1) + "\n")
                test = cell["test"]
                print(f"{dataset} {model}: test {100 * test['mean']:.2f} +- {100 * test['std']:.2f}", flush=True)


def train(dataset: str, recipe: Recipe, seed: int) -> Result:
    """One run within the largest connected component."""
    data = LargestConnectedComponents()(load(dataset, protocol="shchur"))
    data.update(per_class(data.y, seed))
    return replace(fit(recipe, data, seed, device="cpu"), module=None)


if __name__ == "__main__":
    main()
