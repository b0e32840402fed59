"""Recipes, the training loop, run folders that survive a kill, and trained models put to use."""

from gesm.training.loop import fit, fit_many, pick_device
from gesm.training.predict import Trained
from gesm.training.recipe import Recipe
from gesm.training.result import Result, summarize
from gesm.training.run import Epoch
from gesm.training.task import Task

__all__ = ["Epoch", "Recipe", "Result", "Task", "Trained", "fit", "fit_many", "pick_device", "summarize"]
