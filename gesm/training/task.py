"""A data set made ready for training: graphs built and features converted once, labels and masks checked."""

from __future__ import annotations

import itertools
import operator
import warnings
import zlib
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.training.recipe import Recipe

__all__ = ["METRICS", "SPLITS", "Sample", "Task", "check_edge_weight", "crc32", "features", "score"]

SPLITS = ("train", "val", "test")
METRICS = {"multiclass": "accuracy", "multilabel": "micro_f1"}


@dataclass
class Sample:
    """One graph on the device: inputs, labels and the labelled rows of each split it takes part in."""

    x: Tensor
    graph: Graph
    rows: dict[str, Tensor] = field(default_factory=dict)
    y: dict[str, Tensor] = field(default_factory=dict)


class Task:
    """The samples of one data set, with its loss and its metric.

    Args:
        data: PyG ``Data`` or ``Batch`` with x [N, F], edge_index, perhaps edge_weight [E], y [N] (classes) or [N, C] (0/1
            labels), of any type that holds whole numbers, and boolean train_mask, val_mask, test_mask [N]. A ``Batch``
            is trained graph by graph.
        recipe: Decides what becomes of x.
        device: Where the samples live.

    Raises:
        GesmError: On data of another type, a missing attribute, one that is no dense tensor, a wrong shape, a feature that
            is not finite, an edge weight that is not finite or negative, an unknown task, masks that are empty or share nodes,
            or a masked label that is not finite or out of range.
    """

    def __init__(self, data: Any, recipe: Recipe, device: torch.device | str = "cpu"):
        if not isinstance(data, Data):  # a Batch is one
            hint = "; make one of the graphs with Batch.from_data_list" if isinstance(data, (list, tuple)) else ""
            raise GesmError(f"data must be a torch_geometric.data.Data or Batch, got {type(data).__name__}{hint}")
        self.name = getattr(data, "name", "data")
        self.protocol = getattr(data, "protocol", "custom")
        for key in ("x", "edge_index", "edge_weight", "y", *(f"{split}_mask" for split in SPLITS)):
            value = getattr(data, key, None)
            if value is None:
                if key == "edge_weight":
                    continue
                raise GesmError(f"{self.name} has no {key}; training needs x, edge_index, y and the three masks")
            if not isinstance(value, Tensor):
                kind = type(value).__name__
                raise GesmError(f"{self.name}: {key} must be a tensor, got {kind}; convert it with torch.as_tensor")
            if value.layout != torch.strided:
                raise GesmError(f"{self.name}: {key} must be dense, got {value.layout}; pass {key}.to_dense()")
            if value.dtype in (torch.uint16, torch.uint32, torch.uint64):  # which PyTorch does not compare
                raise GesmError(f"{self.name}: {key} must not be {value.dtype}; pass {key}.long()")
        if data.x.dim() != 2 or not data.x.size(1) or data.x.is_complex():
            found = f"{list(data.x.shape)} of {data.x.dtype}"
            raise GesmError(f"{self.name}: x must have one row of real features a node, [N, F]; got {found}")
        self._check_finite(data)
        if data.y.dim() not in (1, 2) or data.y.size(0) != data.x.size(0):
            nodes = data.x.size(0)
            raise GesmError(f"{self.name}: y must have one row a node, [{nodes}] or [{nodes}, C]; got {list(data.y.shape)}")
        kind = "multiclass" if data.y.dim() == 1 else "multilabel"
        self.kind = getattr(data, "task", kind)
        if self.kind != kind:
            allowed = f"{kind!r}, or leave it out"
            raise GesmError(f"{self.name}: task is {self.kind!r}; with y {list(data.y.shape)} pass {allowed}")
        self.metric = METRICS[kind]
        self.in_channels = data.x.size(1)
        self._check(data)
        classes = getattr(data, "num_classes", None) or _count_classes(data)
        try:
            self.num_classes = operator.index(classes)
        except TypeError:
            raise GesmError(f"{self.name}: num_classes must be an int, got {classes!r}; leave it out to count them") from None
        self._check_range(data)
        self.identity = {
            "dataset": self.name,
            "protocol": self.protocol,
            "task": self.kind,
            "in_channels": self.in_channels,
            "num_classes": self.num_classes,
            "num_nodes": data.x.size(0),
            "num_edges": data.edge_index.size(1),
            "data_crc32": crc32(data),
        }
        graphs = data.to_data_list() if hasattr(data, "to_data_list") else [data]
        self.samples = [self._sample(graph, recipe, device) for graph in graphs]
        self.train = [sample for sample in self.samples if "train" in sample.rows]
        self._parts = {split: [s for s in self.samples if split in s.rows] for split in SPLITS}
        self._targets = {split: torch.cat([s.y[split] for s in self._parts[split]]) for split in SPLITS}

    def _sample(self, data: Any, recipe: Recipe, device: torch.device | str) -> Sample:
        weight = getattr(data, "edge_weight", None)
        weight = None if weight is None else weight.detach()
        graph = Graph.from_edge_index(data.edge_index, weight, num_nodes=data.x.size(0)).to(device)
        sample = Sample(features(data.x.detach(), recipe).to(device), graph)
        for split in SPLITS:
            rows = data[f"{split}_mask"].nonzero().view(-1)
            if rows.numel():
                sample.rows[split] = rows.to(device)
                sample.y[split] = data.y[rows].to(device, torch.long if self.kind == "multiclass" else torch.float32)
        return sample

    def _check_finite(self, data: Any) -> None:
        # isfinite makes copies of x, its extremes make none
        if data.x.numel() and not torch.stack(data.x.aminmax()).isfinite().all():
            row, column = (~data.x.isfinite()).nonzero()[0].tolist()
            raise GesmError(f"{self.name}: x must be finite; node {row} has {data.x[row, column]:g} in column {column}")
        check_edge_weight(getattr(data, "edge_weight", None), data.edge_index, f"{self.name}: ")

    def _check(self, data: Any) -> None:
        for split in SPLITS:
            mask = data[f"{split}_mask"]
            if mask.dtype != torch.bool or mask.shape != data.x.shape[:1]:
                shape = f"{mask.dtype} {list(mask.shape)}"
                raise GesmError(f"{self.name}: {split}_mask must be torch.bool [{data.x.size(0)}], got {shape}")
            y = data.y[mask]
            if not y.numel():
                raise GesmError(f"{self.name}: {split}_mask is empty; mark at least one labelled node in it")
            bad = ~y.isfinite()
            if bad.any():
                count = int(bad.view(len(y), -1).any(1).sum())
                raise GesmError(f"{self.name}: {count} nodes of {split}_mask have a NaN or infinite label; take them out of it")

        for split, other in itertools.combinations(SPLITS, 2):
            if both := int((data[f"{split}_mask"] & data[f"{other}_mask"]).sum()):
                raise GesmError(f"{self.name}: {both} nodes are in both {split}_mask and {other}_mask; take them out of one")

    def _check_range(self, data: Any) -> None:
        classes = self.num_classes
        if self.kind == "multilabel" and classes != data.y.size(1):
            raise GesmError(f"{self.name}: num_classes is {classes}, but y has {data.y.size(1)} columns; leave it out")
        for split in SPLITS:
            y = data.y[data[f"{split}_mask"]]
            if self.kind == "multilabel" and not ((y == 0) | (y == 1)).all():
                hint = "; one class a node is y of shape [N]" if classes == 1 else ""
                raise GesmError(f"{self.name}: multi-label targets must be 0 or 1 in {split}_mask{hint}")
            if self.kind == "multiclass" and not ((y >= 0) & (y < classes) & (y.long() == y)).all():
                found = f"{y.dtype} in [{y.min():g}, {y.max():g}]"
                raise GesmError(f"{self.name}: labels must be integers in [0, {classes - 1}], got {found}")

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy over rows, or binary cross-entropy over rows and labels."""
        if self.kind == "multiclass":
            return F.cross_entropy(logits, y)
        return F.binary_cross_entropy_with_logits(logits, y)

    @torch.no_grad()
    def evaluate(self, model: torch.nn.Module, split: str) -> tuple[Tensor, Tensor]:
        """Loss and metric of one split, one forward per graph; scalar tensors, still on the device."""
        model.eval()
        logits = torch.cat([model(s.x, s.graph).index_select(0, s.rows[split]) for s in self._parts[split]])
        y = self._targets[split]
        return self.loss(logits, y), score(logits, y)


def check_edge_weight(weight: Tensor | None, edge_index: Tensor, what: str = "") -> None:
    """Edge weights, if any, are finite and, but for self-loops, which a walk replaces, not negative."""
    if not isinstance(weight, Tensor) or weight.is_complex() or not weight.dim():  # the Graph refuses it
        return
    bad = ~weight.isfinite()
    if edge_index.shape == (2, len(weight)):
        loop = (edge_index[0] == edge_index[1]).view(-1, *[1] * (weight.dim() - 1))
        bad |= (weight < 0) & ~loop
    if not bad.any():
        return
    edge = int(bad.view(len(weight), -1).any(1).nonzero()[0])
    raise GesmError(f"{what}edge_weight must be finite and not negative; edge {edge} has {weight[edge].tolist()}")


def crc32(data: Any) -> int:
    """CRC-32 of all that training reads: names and sizes alone do not tell splits apart."""
    crc = 0
    for key in ("x", "edge_index", "edge_weight", "y", *(f"{split}_mask" for split in SPLITS)):
        value = getattr(data, key, None)
        if isinstance(value, Tensor) and value.layout == torch.strided:  # others are refused later
            crc = zlib.crc32(value.detach().cpu().flatten().view(torch.uint8).numpy(), crc)
    return crc


def score(logits: Tensor, y: Tensor) -> Tensor:
    """Accuracy for classes y [n]; micro-F1 = 2 TP / (predicted + true) at logit 0 for 0/1 labels y [n, C]."""
    if y.dim() == 1:
        return (logits.argmax(-1) == y).double().mean()
    predicted, true = logits > 0, y > 0
    return 2 * (predicted & true).sum().double() / (predicted.sum() + true.sum()).clamp(min=1)


def features(x: Tensor, recipe: Recipe) -> Tensor:
    """Features as the recipe wants them: float32, row-normalised or not, dense or torch.sparse CSR."""
    x = x.to(torch.float32)
    if recipe.feature_normalization == "row":
        x = F.normalize(x, p=1, dim=1)
    sparse = recipe.sparse_features
    if sparse is True or (sparse == "auto" and x.numel() and x.count_nonzero() < 0.15 * x.numel()):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
            x = x.to_sparse_csr()
    return x


def _count_classes(data: Any) -> int:
    if data.y.dim() == 2:
        return data.y.size(1)
    return 1 + max(int(data.y[data[f"{split}_mask"]].max()) for split in SPLITS)
