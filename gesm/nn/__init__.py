"""Layers: entity attention, step mixture, their composition GESMConv, and the structure regulariser."""

from gesm.nn.entity_attention import EntityAttention
from gesm.nn.gesm_conv import GESMConv
from gesm.nn.linear import SparseLinear
from gesm.nn.step_mixture import StepMixture
from gesm.nn.structure_loss import StructureLoss

__all__ = ["EntityAttention", "GESMConv", "SparseLinear", "StepMixture", "StructureLoss"]
