"""The `gesm` command: train, evaluate, predict, datasets."""

from gesm.cli import training  # noqa: F401  registers the commands
from gesm.cli._shared import app

__all__ = ["app"]
