"""One training run: everything that changes while it goes on, its epochs, and its way to and from a checkpoint."""

from __future__ import annotations

import json
import math
import time
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gesm.errors import DivergedError, GesmError
from gesm.nn import HopConsistency, SparseLinear, StructureLoss
from gesm.training.accelerate import CapturedStep, check_accelerate, compiled
from gesm.training.checkpoint import load_tensors, save_tensors
from gesm.training.recipe import Recipe
from gesm.training.task import Sample, Task

__all__ = ["Epoch", "Run", "Selection"]


@dataclass(frozen=True)
class Epoch:
    """What one epoch yielded; validation figures are NaN in epochs that ``eval_every`` skips."""

    epoch: int
    train_loss: float
    val_loss: float
    val_metric: float
    seconds: float


@dataclass
class Selection:
    """Early stopping: the epoch kept so far and the bests that decide on the next one."""

    rule: str
    patience: int
    selected: int = 0
    improved: int = 0
    best_metric: float = -math.inf
    best_loss: float = math.inf

    def update(self, epoch: int, loss: float, metric: float) -> bool:
        """Whether the weights of ``epoch`` are to be kept."""
        if self.rule == "accuracy":
            keep = (-metric, loss) < (-self.best_metric, self.best_loss)
            if keep:
                self.best_metric, self.best_loss, self.improved = metric, loss, epoch
        else:
            keep = metric >= self.best_metric and loss <= self.best_loss
            if metric >= self.best_metric or loss <= self.best_loss:
                self.improved = epoch
            self.best_metric, self.best_loss = max(metric, self.best_metric), min(loss, self.best_loss)
        if keep:
            self.selected = epoch
        return keep

    def exhausted(self, epoch: int) -> bool:
        """Whether patience has run out after ``epoch``."""
        return epoch - self.improved >= self.patience


class Run:
    """All that changes while training, and its passage to and from a checkpoint."""

    def __init__(self, recipe: Recipe, task: Task, seed: int, device: torch.device):
        check_accelerate(recipe, task, device)
        torch.manual_seed(seed)
        self.recipe, self.task, self.seed, self.device = recipe, task, seed, device
        self.identity = {**task.identity, "seed": seed, "recipe": recipe.to_dict()}
        self.model = recipe.build_model(task.in_channels, task.num_classes).to(device)
        groups, captured = _parameter_groups(self.model, recipe), recipe.accelerate == "cuda_graph"
        self.optimizer = torch.optim.Adam(groups, lr=recipe.lr, fused=True, capturable=captured)
        self.structure = StructureLoss(beta=recipe.structure_beta, ratio=recipe.structure_ratio)
        self.consistency = HopConsistency(
            recipe.consistency_weight, recipe.consistency_temperature, recipe.consistency_alignment
        )
        self.order = torch.Generator().manual_seed(seed)
        self.weights = self.model.state_dict()  # views of the live parameters
        self.best = {name: t.clone() for name, t in self.weights.items()}
        self.selection = Selection(recipe.selection, recipe.patience)
        self.history: list[Epoch] = []
        self._captured = CapturedStep(self.optimizer) if captured else None
        self._compiled = None
        if recipe.accelerate == "compile":
            self._compiled = compiled(Run._loss, task.train[0].graph, _normalizations(recipe))

    def step(self) -> Tensor:
        """One pass over the training graphs; their mean loss, still on the device."""
        return self._captured(self._step) if self._captured else self._step()

    def _step(self) -> Tensor:
        self.model.train()
        batch, samples = self.recipe.graphs_per_step, self.task.train
        losses = []
        order = torch.randperm(len(samples), generator=self.order).tolist() if len(samples) > 1 else [0]
        for start in range(0, len(order), batch):
            chunk = [samples[i] for i in order[start : start + batch]]
            rows = sum(len(sample.y["train"]) for sample in chunk)
            self.optimizer.zero_grad()
            for sample in chunk:
                loss = self._compiled(self, sample) if self._compiled else self._loss(sample)
                loss = loss if len(chunk) == 1 else loss * (len(sample.y["train"]) / rows)
                loss.backward()
                losses.append(loss.detach())
            self.optimizer.step()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum() / math.ceil(len(order) / batch)

    def _loss(self, sample: Sample) -> Tensor:
        recipe, inputs, rows, y = self.recipe, (sample.x, sample.graph), sample.rows["train"], sample.y["train"]
        several = recipe.consistency_draws > 1
        model = partial(self.model.sample, recipe.consistency_draws) if several else self.model
        out, z = model(*inputs, return_embedding=True) if recipe.structure_weight else (model(*inputs), None)
        if several:
            warmup = recipe.consistency_warmup
            self.consistency.weight = recipe.consistency_weight * min((len(self.history) + 1) / max(warmup, 1), 1.0)
            loss = self.consistency(out, y, rows)
        else:
            loss = self.task.loss(out.index_select(0, rows), y)
        if recipe.structure_weight:
            z = z[0] if z.dim() == 3 else z  # a stack computes it anew for each draw
            loss = loss + recipe.structure_weight * self.structure(z, sample.graph)
        return loss

    def epoch(self) -> Epoch:
        """One training pass and, when due, one evaluation; a single transfer from the device."""
        number, start = len(self.history) + 1, time.perf_counter()
        if self.recipe.lr_schedule == "cosine":
            lr = self.recipe.lr * (1 + math.cos(math.pi * (number - 1) / self.recipe.epochs)) / 2
            for group in self.optimizer.param_groups:
                group["lr"] = lr
        figures = [self.step()]
        due = number % self.recipe.eval_every == 0 or number == self.recipe.epochs
        if due:
            figures += self.task.evaluate(self.model, "val")
        train_loss, *val = torch.stack([f.double() for f in figures]).tolist()
        done = Epoch(number, train_loss, *(val or (math.nan, math.nan)), time.perf_counter() - start)
        if not all(map(math.isfinite, (train_loss, *val))):
            raise DivergedError(
                f"the loss became {train_loss:g} (training) and {done.val_loss:g} (validation) at epoch {number}; try "
                f"a smaller lr (now {self.recipe.lr:g}), feature_normalization: row, or look for huge values in x"
            )
        self.history.append(done)
        if due and self.selection.update(number, *val):
            torch._foreach_copy_(list(self.best.values()), list(self.weights.values()))
        return done

    @property
    def finished(self) -> bool:
        """Whether the limit or patience ends the run here."""
        return len(self.history) >= self.recipe.epochs or self.selection.exhausted(len(self.history))

    def save(self, path: Path) -> None:
        """Writes all of this run's state."""
        tensors = {f"model.{name}": t for name, t in self.weights.items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": t for name, t in state.items()}
        tensors |= {"rng.cpu": torch.get_rng_state(), "rng.order": self.order.get_state()}
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        tensors["history"] = torch.tensor([list(asdict(e).values()) for e in self.history], dtype=torch.float64)
        save_tensors(path, tensors, {**self.identity, "selection": asdict(self.selection), "place": self._place()})

    def restore(self, path: Path) -> None:
        """Puts this run, and torch's generators, where :meth:`save` found them.

        Warns if the device, the number of threads or torch is another one: sums may then be rounded in another order.
        """
        tensors, saved = load_tensors(path)
        self.check_same(saved, path)
        if "place" not in saved:
            raise GesmError(f"{path} is not a checkpoint; put the right file there, or start again with --overwrite")
        for key, now in self._place().items():
            if saved["place"][key] != now:
                warnings.warn(
                    f"{path} was written with {key} {saved['place'][key]}, now it is {now}: the run goes on, but its outcome "
                    "will not equal that of an uninterrupted one bit by bit",
                    stacklevel=2,
                )
        self.selection = Selection(**saved["selection"])
        self.history = [Epoch(int(row[0]), *row[1:]) for row in tensors["history"].tolist()]
        self.model.load_state_dict(_part(tensors, "model."))
        for name, t in _part(tensors, "best.").items():
            self.best[name].copy_(t)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, t in _part(tensors, "optimizer.").items():
            i, _, name = key.partition(".")
            if name != "step":  # a fused Adam pairs elements by their place in memory
                t = torch.empty_like(parameters[int(i)]).copy_(t)
            state.setdefault(int(i), {})[name] = t
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.order.set_state(tensors["rng.order"])
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)

    def _place(self) -> dict[str, Any]:
        return {"device": self.device.type, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}

    def check_same(self, saved: dict, path: Path) -> None:
        """Refuses metadata of a run with other data, seed or recipe."""
        old, new = _flat(saved), _flat(self.identity)
        for key, now in new.items():
            if key == "data_crc32" and key not in old:  # written before there was one
                continue
            if old.get(key) != now:
                raise GesmError(
                    f"{path} belongs to another run: its {key} is {old.get(key)}, now it is {now}; "
                    "resume with the same settings, or use --overwrite or another folder"
                )

    def keep(self, path: Path) -> None:
        """Writes the selected weights with all that is needed to build the model again."""
        save_tensors(path, self.best, {**self.identity, "selected_epoch": self.selection.selected})

    def line(self, epoch: Epoch) -> str:
        """The epoch's line of metrics.jsonl; no timings, so that equal runs leave equal files."""
        record = {"epoch": epoch.epoch, "train_loss": epoch.train_loss}
        if not math.isnan(epoch.val_loss):
            record |= {"val_loss": epoch.val_loss, f"val_{self.task.metric}": epoch.val_metric}
        return json.dumps(record) + "\n"


def _flat(identity: dict) -> dict[str, Any]:
    """The recipe's keys beside the others; those that came after it was saved have their defaults."""
    recipe = Recipe.from_dict(identity.get("recipe") or {}).to_dict()
    return {**identity, **{f"recipe's {key}": value for key, value in recipe.items()}, "recipe": None}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _normalizations(recipe: Recipe) -> set[str]:
    """Of the transitions that a training step takes: the model's, and the structure loss's."""
    own = recipe.normalization if "normalization" in recipe.to_dict() else "sym"
    return {own, "col"} if recipe.structure_weight else {own}


def _parameter_groups(model: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Adam's groups by weight decay: weights, those with the input's if that is another, and biases."""
    named = list(model.named_parameters())
    maps = [module.weight for module in model.modules() if isinstance(module, SparseLinear)]
    own = maps if recipe.model == "gcnii" else maps[:1]  # its authors take one decay for its layers, one for both other maps
    inputs = own if recipe.input_weight_decay is not None else []
    weights = [p for name, p in named if "bias" not in name.rpartition(".")[2] and not any(p is i for i in inputs)]
    biases = [p for name, p in named if "bias" in name.rpartition(".")[2]]
    decays = ((weights, recipe.weight_decay), (inputs, recipe.input_weight_decay), (biases, 0.0))
    return [{"params": params, "weight_decay": decay} for params, decay in decays if params]
