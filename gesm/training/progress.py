"""Progress of training runs on a terminal; in a log, one line a run."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from gesm.training.result import Result
from gesm.training.run import Epoch

__all__ = ["Progress"]


class Progress:
    """A context whose :meth:`on_epoch` and :meth:`on_run` go to :func:`gesm.training.fit_many`.

    Args:
        epochs: Upper limit of a run.
        runs: Number of runs.
        console: Where to write; stderr by default.
    """

    def __init__(self, epochs: int, runs: int = 1, console: Console | None = None):
        self.console = console or Console(stderr=True)
        self.epochs, self.runs, self.done = epochs, runs, 0
        self.best, self.shown = 0.0, 0.0
        columns = "loss {task.fields[loss]}  val loss {task.fields[val_loss]}  best val {task.fields[best]} %"
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(columns),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=epochs, loss="-", val_loss="-", best="-")

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def on_epoch(self, epoch: Epoch) -> None:
        """Redraws the bar, at most ten times a second."""
        self.best = max(self.best, epoch.val_metric)  # a NaN second operand leaves the first
        now = time.monotonic()
        if self.bar.disable or now - self.shown < 0.1:
            return
        self.shown = now
        self.bar.update(
            self.task,
            completed=epoch.epoch,
            description=f"run {self.done + 1}/{self.runs}",
            loss=f"{epoch.train_loss:.4f}",
            val_loss=f"{epoch.val_loss:.4f}",
            best=f"{100 * self.best:.2f}",
        )

    def on_run(self, result: Result) -> None:
        """Writes the line of a finished run."""
        self.done, self.best = self.done + 1, 0.0
        self.console.print(
            f"run {self.done}/{self.runs}  seed {result.seed}  val {100 * result.val:.2f}  test {100 * result.test:.2f}"
            f"  epoch {result.selected_epoch} of {result.epochs}  {result.epoch_ms:.1f} ms/epoch",
            highlight=False,
        )
