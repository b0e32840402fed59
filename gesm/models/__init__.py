"""Whole models that the recipes train."""

from gesm.models.gesm import GESM
from gesm.models.gsm import GSM

__all__ = ["GESM", "GSM"]
