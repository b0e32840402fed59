"""Whole models that the recipes train."""

from gesm.models.gesm import GESM
from gesm.models.gsm import GSM
from gesm.models.mixed_mlp import MixedMLP

__all__ = ["GESM", "GSM", "MixedMLP"]
