"""One run of the depth study: a model trained in one of three ways and read at every depth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.metrics import dirichlet_energy, mean_average_distance
from gesm.nn import HopSampling, StructureLoss
from gesm.training.recipe import Recipe, model_class
from gesm.training.run import Selection
from gesm.training.task import Task, score

__all__ = ["DROP_EDGE", "SETTINGS", "Cell", "Setting", "drop_edge", "run_cell"]

DROP_EDGE = 0.5  # share of the undirected edges that a training step leaves out, for every model and depth
EVAL_EVERY = 5  # epochs; of all models and arms
MEASURES = ("val", "test", "dirichlet", "mad", "mad_all")


@dataclass(frozen=True)
class Cell:
    """One run of the study."""

    model: str
    arm: str
    K: int
    seed: int


@dataclass(frozen=True)
class Setting:
    """How one model is built and optimised, the same in all arms and at all depths.

    Attributes:
        model: Name in :mod:`gesm.models`.
        depth: Name of the argument that gets K.
        options: Other arguments.
        lr: Adam's learning rate.
        weight_decay: L2 on the weights, not the biases, coupled as in Adam.
        structure_weight: Weight of :class:`gesm.nn.StructureLoss`.
        source: Where the figures come from.
    """

    model: str
    depth: str
    lr: float
    weight_decay: float
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    structure_weight: float = 0.0

    def build(self, in_channels: int, out_channels: int, K: int) -> nn.Module:
        """The model, drawn from torch's default generator."""
        return model_class(self.model)(in_channels=in_channels, out_channels=out_channels, **{self.depth: K}, **self.options)

    def about(self) -> dict[str, Any]:
        """What a study writes down of it."""
        return asdict(self)


_STACK = {"hidden_channels": 64, "dropout": 0.5}
SETTINGS = {
    # The best of 18 (lr 0.01, 0.05, 0.2; weight decay 5e-4, 5e-5, 5e-6; dropout 0, 0.5) by Cora's validation accuracy at K = 2,
    # the depth of its paper, over 3 seeds, fixed and hop together.
    "sgc": Setting("SGC", "K", 0.2, 5e-5, "validation at K = 2", {"dropout": 0.5}),
    "appnp": Setting("APPNP", "K", 0.01, 5e-4, "its paper, but no dropout of edges", {**_STACK, "alpha": 0.1}),
    "gsm": Setting("GSM", "K", 0.003, 0.003, "Cora's recipe, but width 64", {"hidden_channels": 64, "dropout": 0.3}),
    "gesm": Setting(
        "GESM",
        "K",
        0.003,
        0.003,
        "Cora's recipe, but width 8 x 16",
        {"hidden_channels": 16, "heads": 8, "dropout": 0.3, "attention_dropout": 0.7},
        structure_weight=1.0,
    ),
    "gcn": Setting("GCN", "num_layers", 0.01, 5e-4, "its paper", {"hidden_channels": 16, "dropout": 0.5}),
    "gcnii": Setting(
        "GCNII",
        "num_layers",
        0.01,
        5e-4,
        "its paper, but one weight decay",
        {"hidden_channels": 64, "dropout": 0.6, "alpha": 0.1, "theta": 0.5},
    ),
    "gat": Setting("GAT", "num_layers", 0.005, 5e-4, "its paper", {"hidden_channels": 8, "heads": 8, "dropout": 0.6}),
    "mixhop": Setting("MixHop", "num_layers", 0.01, 5e-4, "as GCN", _STACK),
}


def drop_edge(graph: Graph, p: float, generator: torch.Generator | None = None) -> Graph:
    """The graph with each undirected edge (all entries between two nodes) left out with probability p; self-loops stay.

    Normalising what is left is up to the model, as in `DropEdge <https://arxiv.org/abs/1907.10903>`_.
    """
    pair, num_pairs = graph._keep("pairs", lambda: _pairs(graph))
    keep = (torch.rand(num_pairs, generator=generator) >= p)[pair] | (graph.col == graph.target)
    weight = None if graph.weight is None else graph.weight[keep]
    return Graph(graph.edge_index[:, keep], weight, graph.num_nodes, validate=False)


def _pairs(graph: Graph) -> tuple[Tensor, int]:
    """The number of each entry's unordered pair of nodes, and how many there are."""
    ends = graph.edge_index
    pairs, pair = (ends.amin(0) * graph.num_nodes + ends.amax(0)).unique(return_inverse=True)
    return pair, pairs.numel()


def run_cell(cell: Cell, data: Any, epochs: int) -> dict[str, Any]:
    """Trains and reads one cell.

    Returns:
        The cell, ``selected_epoch``, ``seconds``, and five measures of the logits, the only representation that all models
        have: ``val`` and ``test`` accuracy, relative Dirichlet energy, mean average distance of neighbours and of all pairs;
        ``full`` and ``expected`` hold one number each, ``depths`` a list for the depths ``k``, 1 ... K.

    Raises:
        GesmError: If the loss is not finite.
    """
    start, setting = time.perf_counter(), SETTINGS[cell.model]
    torch.manual_seed(cell.seed)
    task = Task(data, Recipe(feature_normalization="row"))
    model = setting.build(task.in_channels, task.num_classes, cell.K)
    hop = HopSampling(model, generator=torch.Generator().manual_seed(cell.seed))
    selected = _train(cell, setting, task, hop, epochs)
    readings = _read(hop, task)
    figures = {name: {measure: readings[name][measure] for measure in MEASURES} for name in ("full", "expected")}
    return {
        **asdict(cell),
        "selected_epoch": selected,
        "seconds": round(time.perf_counter() - start, 2),
        **figures,
        "depths": {"k": readings["k"], **readings["depths"]},
    }


def _train(cell: Cell, setting: Setting, task: Task, hop: HopSampling, epochs: int) -> int:
    """Leaves the selected weights in the module; their epoch."""
    sample, model = task.samples[0], hop.module
    weights = [p for name, p in model.named_parameters() if "bias" not in name.rpartition(".")[2]]
    biases = [p for name, p in model.named_parameters() if "bias" in name.rpartition(".")[2]]
    groups = [{"params": weights, "weight_decay": setting.weight_decay}, {"params": biases}]
    optimizer = torch.optim.Adam([g for g in groups if g["params"]], lr=setting.lr, fused=True)
    structure, selection = StructureLoss(), Selection("accuracy", epochs)
    live = model.state_dict()
    best = {name: t.clone() for name, t in live.items()}
    trained: Callable[..., Any] = hop if cell.arm == "hop" else model
    for epoch in range(1, epochs + 1):
        model.train()
        hop.train()
        graph = drop_edge(sample.graph, DROP_EDGE) if cell.arm == "dropedge" else sample.graph
        optimizer.zero_grad()
        if setting.structure_weight:
            out, z = trained(sample.x, graph, return_embedding=True)
            penalty = setting.structure_weight * structure(z, graph)
        else:
            out, penalty = trained(sample.x, graph), 0.0
        loss = task.loss(out.index_select(0, sample.rows["train"]), sample.y["train"]) + penalty
        loss.backward()
        optimizer.step()
        if epoch % EVAL_EVERY and epoch != epochs:
            continue
        val_loss, val = (figure.item() for figure in task.evaluate(model, "val"))
        if not math.isfinite(val_loss):
            raise GesmError(f"{cell}: the validation loss became {val_loss:g} at epoch {epoch}; leave this cell out")
        if selection.update(epoch, val_loss, val):
            torch._foreach_copy_(list(best.values()), list(live.values()))
    model.load_state_dict(best)
    return selection.selected


@torch.no_grad()
def _read(hop: HopSampling, task: Task) -> dict[str, Any]:
    """Measures at every depth with a probability; of "full", the last, and of "expected", the mean of the logits."""
    hop.eval()
    sample, depths = task.samples[0], hop.probabilities.nonzero().view(-1).tolist()
    rows, expected = [], 0.0
    for k in depths:
        with hop.at(k):
            logits = hop(sample.x, sample.graph)
        expected = expected + logits.double() * hop.probabilities[k]
        rows.append(_measure(logits, task))
    by_measure = {name: [round(row[name], 6) for row in rows] for name in MEASURES}
    return {"full": rows[-1], "expected": _measure(expected, task), "k": depths, "depths": by_measure}


def _measure(logits: Tensor, task: Task) -> dict[str, float]:
    sample = task.samples[0]
    accuracy = {split: score(logits[sample.rows[split]], sample.y[split]).item() for split in ("val", "test")}
    return accuracy | {
        "dirichlet": dirichlet_energy(logits, sample.graph, relative=True).item(),
        "mad": mean_average_distance(logits, sample.graph).item(),
        "mad_all": mean_average_distance(logits).item(),
    }
