"""The `gesm` command: train, evaluate, predict, datasets, depth, recommend."""

from gesm.cli import depth, recommend, training  # noqa: F401  registers the commands
from gesm.cli._shared import app

__all__ = ["app"]
