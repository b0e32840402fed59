"""Layers: entity attention, step mixture, their composition GESMConv, hop sampling and the regularisers."""

from gesm.nn import functional
from gesm.nn.entity_attention import EntityAttention
from gesm.nn.gesm_conv import GESMConv
from gesm.nn.hop_consistency import HopConsistency
from gesm.nn.hop_sampling import HopSampling
from gesm.nn.linear import SparseLinear
from gesm.nn.step_mixture import StepMixture
from gesm.nn.structure_loss import StructureLoss

__all__ = [
    "EntityAttention",
    "GESMConv",
    "HopConsistency",
    "HopSampling",
    "SparseLinear",
    "StepMixture",
    "StructureLoss",
    "functional",
]
