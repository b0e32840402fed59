"""PPI without a model: labels looked up among the training nodes, by gene or by features, and all labels set.

`python -m benchmarks.accuracy.lookup --json FILE`. The same genes with the same labels recur in all 24 graphs of PPI: a test
node's labels stand in the training graphs already, and what a model reaches above the lookup by features may be learned by
heart. Gene numbers come with the recovered copy of PPI alone (`extra/*_gene_id.npy`), and most labels of that copy were
themselves carried from graph to graph by gene: there the lookup by gene is right by construction.
"""

import argparse
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gesm.datasets import load, locate
from gesm.training.task import score

__all__ = ["lookup", "measure"]


def lookup(keys: Sequence[Hashable], y: Tensor, train: Tensor, rows: Tensor) -> tuple[Tensor, float]:
    """Mean training label of each row's key, the mean of all where the key is new; and the share of rows whose key is known.

    Args:
        keys: One a node.
        y: [N, C].
        train: Indices of the training nodes.
        rows: Indices of the nodes to predict.
    """
    number: dict[Hashable, int] = {}
    code = torch.tensor([number.setdefault(key, len(number)) for key in keys])
    total = y.new_zeros(len(number), y.size(1)).index_add(0, code[train], y[train])
    count = code[train].bincount(minlength=len(number)).unsqueeze(1)
    mean = torch.where(count > 0, total / count.clamp(min=1), y[train].mean(0))
    return mean[code[rows]], (count[code[rows]] > 0).double().mean().item()


def measure(data: Any, genes: np.ndarray | None = None) -> dict[str, Any]:
    """Micro-F1 on the test nodes of each lookup, and how many of their labels occur verbatim among the training nodes."""
    train, test = data.train_mask.nonzero().view(-1), data.test_mask.nonzero().view(-1)
    y = torch.where(data.y.isnan(), 0.0, data.y)
    found: dict[str, Any] = {"all ones": {"micro_f1": score(torch.ones_like(y[test]), y[test]).item()}}
    by = {"features": [row.tobytes() for row in data.x.numpy()]}
    if genes is not None:
        by["gene"] = genes.tolist()
    for name, keys in by.items():
        mean, known = lookup(keys, y, train, test)
        found[f"lookup by {name}"] = {"micro_f1": score(mean - 0.5, y[test]).item(), "known": known, "keys": len({*keys})}
    seen = {row.tobytes() for row in y[train].numpy()}
    found["test labels found verbatim in training"] = sum(row.tobytes() in seen for row in y[test].numpy()) / len(test)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    data, place = load("ppi"), locate("ppi")
    files = [place.parent / "extra" / f"{split}_gene_id.npy" for split in ("train", "valid", "test")]
    genes = np.concatenate([np.load(file) for file in files]) if all(file.exists() for file in files) else None
    found = measure(data, genes)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
