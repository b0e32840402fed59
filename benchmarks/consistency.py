"""HopConsistency on the public splits: a search on validation accuracy alone, then 20 runs of what it chose.

`python -m benchmarks.consistency search cora --out DIR` draws trials from SPACE (the first is near GRAND's), trains each
with the seeds 0 and 1 and writes one line a trial, without any test figure, to DIR/cora.jsonl; a killed search goes on where it
was. `python -m benchmarks.consistency best cora --out DIR` prints the recipe that won, which then is shipped:
`gesm train cora --model mixed_mlp --runs 20` gives the result.
"""

import argparse
import json
import random
import statistics
from pathlib import Path

import torch

from gesm.datasets import load
from gesm.training import Recipe, fit

SPACE = {
    "K": (4, 8, 16),
    "hidden_channels": (32, 64, 128),
    "input_dropout": (0.0, 0.5),
    "dropout": (0.2, 0.5, 0.7),
    "weight_decay": (5e-4, 1e-3, 5e-3),
    "normalization": ("sym", "row"),
    "consistency_draws": (2, 4),
    "consistency_weight": (0.5, 1.0, 1.5),
    "consistency_temperature": (0.3, 0.5),
}
FIXED = {"selection": "accuracy", "patience": 150, "epochs": 800, "lr": 0.01, "consistency_warmup": 50}
NARROW = {"pubmed": {"hidden_channels": (32,), "consistency_draws": (2,), "K": (4, 8)}}  # its epochs are long on two cores
TRIALS = {"cora": 10, "citeseer": 12, "pubmed": 6}
SEEDS = (0, 1)


def trials(dataset: str) -> list[Recipe]:
    """The recipes of a search, the same at every call."""
    draw = random.Random(0)
    base = Recipe.for_dataset(dataset, "mixed_mlp").replace(**FIXED)
    space = SPACE | NARROW.get(dataset, {})
    drawn = [{name: draw.choice(values) for name, values in space.items()} for _ in range(TRIALS[dataset] - 1)]
    start = {"K": 8, "hidden_channels": 64, "input_dropout": 0.5, "dropout": 0.5, "weight_decay": 5e-4, "normalization": "sym"}
    start |= {"consistency_draws": 4, "consistency_weight": 1.0, "consistency_temperature": 0.5}
    start |= {name: values[-1] for name, values in NARROW.get(dataset, {}).items()}
    return [base.replace(**changes) for changes in (start, *drawn)]


def search(dataset: str, file: Path) -> None:
    """Writes what is missing of the search."""
    done = len(file.read_text().splitlines()) if file.exists() else 0
    data = load(dataset)
    for number, recipe in list(enumerate(trials(dataset)))[done:]:
        results = [fit(recipe, data, seed) for seed in SEEDS]
        line = {
            "trial": number,
            "val": [r.val for r in results],
            "val_loss": [r.val_loss for r in results],
            "epochs": [r.epochs for r in results],
            "epoch_ms": [round(r.epoch_ms, 1) for r in results],
            "recipe": recipe.to_dict(),
        }
        with file.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
        print(dataset, number, f"val {100 * statistics.mean(line['val']):.2f}", line["epochs"], flush=True)


def best(file: Path) -> dict:
    """The trial of best mean validation accuracy, of these that of lowest loss."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return min(lines, key=lambda line: (-statistics.mean(line["val"]), statistics.mean(line["val_loss"])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["search", "best"])
    parser.add_argument("dataset", choices=list(TRIALS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{options.dataset}.jsonl"
    if options.what == "search":
        search(options.dataset, file)
    trial = best(file)
    print(f"# trial {trial['trial']}, validation {trial['val']}\n{Recipe.from_dict(trial['recipe']).to_yaml()}")


if __name__ == "__main__":
    main()
