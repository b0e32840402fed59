"""A trained run put to use: its model built again, scored on a data set, or applied to somebody's own graph."""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.training.checkpoint import load_tensors
from gesm.training.loop import pick_device
from gesm.training.recipe import Recipe
from gesm.training.task import SPLITS, Task, check_edge_weight, features

__all__ = ["Trained", "read_edges", "read_features", "write_predictions"]

_MISSING = ("", "na", "n/a", "nan", "null", "none")  # what tables write where a value is missing, in lower case


@dataclass(frozen=True)
class Trained:
    """The selected model of a run folder and what it was trained on."""

    model: torch.nn.Module
    recipe: Recipe
    info: dict[str, Any]
    device: torch.device

    @classmethod
    def load(cls, run_dir: str | Path, device: str | torch.device = "auto") -> Trained:
        """Builds the model of a single run's folder, in evaluation mode.

        Raises:
            GesmError: If the folder holds no finished run, or several.
        """
        path, device = Path(run_dir), pick_device(device)
        if not (path / "model.safetensors").exists():
            runs = sorted(p.parent.name for p in path.glob("run-*/model.safetensors"))
            hint = (
                f"it holds several runs; pass one of {path}/{{{', '.join(runs)}}}"
                if runs
                else ("pass a folder that `gesm train --out` has finished; --resume finishes an interrupted run")
            )
            raise GesmError(f"{path} holds no trained model: {hint}")
        weights, info = load_tensors(path / "model.safetensors")
        recipe = Recipe.from_dict(info["recipe"], str(path / "model.safetensors"))
        model = recipe.build_model(info["in_channels"], info["num_classes"])
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise GesmError(f"{path} does not fit this version of gesm ({error}); train it again") from None
        return cls(model.to(device).eval(), recipe, info, device)

    def evaluate(self, data: Any) -> dict[str, dict[str, float]]:
        """``{split: {metric, loss}}`` on a data set with the task, the features and the classes of the run's own."""
        task = Task(data, self.recipe, self.device)
        for key in ("task", "in_channels", "num_classes"):
            if task.identity[key] != self.info[key]:
                raise GesmError(
                    f"{task.name} has {key} {task.identity[key]}, the model was trained for {self.info[key]} "
                    f"({self.info['dataset']}); pass a data set of that form"
                )
        return {
            split: {task.metric: metric.item(), "loss": loss.item()}
            for split in SPLITS
            for loss, metric in [task.evaluate(self.model, split)]
        }

    @torch.no_grad()
    def predict(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Labels and probabilities of all nodes of a graph.

        Args:
            x: Raw features [N, F].
            edge_index: Source and target node of each edge [2, E].
            edge_weight: [E].

        Returns:
            Classes [N] and softmax probabilities [N, C], or for multi-label models 0/1 labels [N, C] and sigmoids.
        """
        if not isinstance(x, Tensor) or x.layout != torch.strided:
            found = x.layout if isinstance(x, Tensor) else type(x).__name__
            raise GesmError(f"features must be a dense tensor, got {found}; pass x.to_dense(), of NumPy torch.from_numpy(x)")
        if x.dim() != 2 or x.size(1) != self.info["in_channels"]:
            expected = f"[N, {self.info['in_channels']}], as in {self.info['dataset']}"
            raise GesmError(f"features must have the shape {expected}; got {list(x.shape)}")
        if not x.isfinite().all():
            row, column = (~x.isfinite()).nonzero()[0].tolist()
            raise GesmError(f"features must be finite; node {row} has {x[row, column]:g} in column {column}")
        graph = Graph.from_edge_index(edge_index, edge_weight, num_nodes=x.size(0)).to(self.device)
        check_edge_weight(edge_weight, edge_index)
        logits = self.model(features(x, self.recipe).to(self.device), graph).cpu()
        if self.info["task"] == "multilabel":
            return (logits > 0).long(), logits.sigmoid()
        return logits.argmax(-1), logits.softmax(-1)


def read_edges(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """Reads rows of [source, target] or [source, target, weight] from .csv, .tsv, .npy or .npz.

    Returns:
        edge_index [2, E] and the weights [E], or ``None`` without a third column.
    """
    table = _read_table(path, "edges")
    if table.ndim != 2 or table.shape[1] not in (2, 3):
        hint = "; transpose it" if table.ndim == 2 and table.shape[0] in (2, 3) else ""
        raise GesmError(f"{path}: edges must be rows of source, target[, weight]; got shape {list(table.shape)}{hint}")
    ends = table[:, :2]
    legal = ((ends >= 0) & (ends == np.floor(ends)) & (ends < 2**63)).all(1)
    if not legal.all():
        row = int(np.flatnonzero(~legal)[0])
        raise GesmError(f"{path}: node indices must be integers from 0 to 2^63 - 1; edge {row} is {ends[row].tolist()}")
    weight = torch.from_numpy(table[:, 2].astype(np.float32)) if table.shape[1] == 3 else None
    if weight is not None and not weight.isfinite().all():
        row = int((~weight.isfinite()).nonzero()[0])
        raise GesmError(f"{path}: edge weights must be finite; edge {row} has {weight[row]:g}")
    return torch.from_numpy(ends.astype(np.int64).T.copy()), weight


def read_features(path: str | Path) -> Tensor:
    """Reads a dense float matrix [N, F], one row per node, from .csv, .tsv, .npy or .npz."""
    table = _read_table(path, "features")
    if table.ndim != 2:
        raise GesmError(f"{path}: features must be a matrix, one row per node; got shape {list(table.shape)}")
    return torch.from_numpy(table.astype(np.float32))


def write_predictions(path: str | Path, labels: Tensor, probabilities: Tensor) -> None:
    """Writes arrays ``labels`` and ``probabilities`` (.npz), or columns node, label.., p0, p1, ... (.csv)."""
    path = Path(path)
    if path.suffix not in (".npz", ".csv"):
        raise GesmError(f"predictions go to .npz or .csv, got {path.name!r}")
    label, p = labels.numpy(), probabilities.numpy()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npz":
            np.savez_compressed(path, labels=label, probabilities=p)
            return
        names = ["label"] if label.ndim == 1 else [f"label{c}" for c in range(label.shape[1])]
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["node", *names, *(f"p{c}" for c in range(p.shape[1]))])
            for node, (row, chances) in enumerate(zip(label.reshape(len(p), -1).tolist(), p.tolist(), strict=True)):
                writer.writerow([node, *row, *(f"{chance:.6g}" for chance in chances)])
    except OSError as error:
        raise GesmError(f"cannot write {path}: {error.strerror}") from None


def _read_table(path: str | Path, what: str) -> np.ndarray:
    path = Path(path)
    try:
        if path.suffix in (".csv", ".tsv"):
            return _read_text(path, "," if path.suffix == ".csv" else "\t")
        if path.suffix not in (".npy", ".npz"):
            raise GesmError(f"{what} are read from .csv, .tsv, .npy or .npz, got {path.name!r}")
        array = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            with array:
                if what not in array and len(array.files) != 1:
                    raise GesmError(f"{path}: expected an array {what!r} or a single array, found {array.files}")
                array = array[what if what in array else array.files[0]]
        if array.dtype.kind not in "fiub":
            raise GesmError(f"{path}: {what} must be numbers, got {array.dtype}")
        return array
    except OSError as error:
        raise GesmError(f"cannot read {what} from {path}: {error.strerror or error}") from None
    except GesmError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds on a damaged file
        raise GesmError(f"{path}: {what} cannot be read ({error}); is the file whole?") from None


def _read_text(path: Path, delimiter: str) -> np.ndarray:
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
        more = any(line.strip() for line in file)
    cells = [cell.strip() for cell in first.split(delimiter)]
    header = not any(map(_is_number, cells)) and not all(cell.lower() in _MISSING for cell in cells)
    if header and first.strip() and not more:
        return np.empty((0, first.count(delimiter) + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an empty file
        return np.loadtxt(path, delimiter=delimiter, skiprows=int(header), ndmin=2, encoding="utf-8-sig")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
