"""Training steps that launch as one CUDA graph or run compiled, where a recipe says `accelerate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from gesm.errors import GesmError
from gesm.graph import Graph
from gesm.training.recipe import Recipe
from gesm.training.task import Task

__all__ = ["CapturedStep", "check_accelerate", "compiled"]

WARM_UP = 3  # steps before the capture
BACKEND = "inductor"


def check_accelerate(recipe: Recipe, task: Task, device: torch.device) -> None:
    """Refuses what cannot be captured or compiled."""
    how = recipe.accelerate
    if how == "none":
        return
    if how == "cuda_graph" and device.type != "cuda":
        raise GesmError(f"accelerate=cuda_graph needs a CUDA device, got {device}; train with --device cuda or set it to none")
    if recipe.hop_sampling != "none":
        raise GesmError(
            f"accelerate={how} repeats one step, but hop_sampling={recipe.hop_sampling} draws another depth each time; "
            "set one of them to none"
        )
    if how == "cuda_graph" and recipe.lr_schedule != "constant":
        raise GesmError(
            f"accelerate=cuda_graph repeats one step with its lr, but lr_schedule={recipe.lr_schedule} changes it; set "
            "lr_schedule to constant or accelerate to none"
        )
    if len(task.train) > 1:
        raise GesmError(f"accelerate={how} needs one training graph, got {len(task.train)}; set accelerate to none")
    if how == "compile" and task.train[0].x.layout is not torch.strided:
        raise GesmError(
            "accelerate=compile needs dense features, but they are torch.sparse CSR, which torch.compile does not trace; "
            "set sparse_features to false, or accelerate to cuda_graph or none"
        )


def compiled(function: FunctionType, graph: Graph, normalizations: Iterable[str]) -> Callable[..., Any]:
    """The function through torch.compile, in one piece; what it derives from the graph is made before, not in each call."""
    for name in normalizations:
        graph.transition(name).csc_weight  # noqa: B018
    # Each recipe is another variant of one function, of which torch.compile takes eight; of a copy this is the first.
    copy = FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    return torch.compile(copy, fullgraph=True, backend=BACKEND)


class CapturedStep:
    """A training step that is one CUDA graph from its fourth call on.

    The first calls run plainly, on a stream of their own. They are steps of training like any other, and leave behind what a
    capture must not make: compiled kernels, work lists, the optimiser's state.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        self.device = optimizer.param_groups[0]["params"][0].device
        self.stream = torch.cuda.Stream(self.device)
        self.calls, self.graph, self.loss = 0, None, None

    def __call__(self, step: Callable[[], Tensor]) -> Tensor:
        """One step, at each call the same; its loss, which the next one overwrites."""
        if self.calls < WARM_UP:
            self.calls += 1
            return self._aside(step)
        if self.graph is None:
            self.optimizer.zero_grad()  # the gradients' memory shall be the graph's own
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.loss = step()
        self.graph.replay()
        return self.loss

    def _aside(self, step: Callable[[], Tensor]) -> Tensor:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            loss = step()
        current.wait_stream(self.stream)
        return loss
