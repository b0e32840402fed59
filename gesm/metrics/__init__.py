"""Measures of over-smoothing."""

from gesm.metrics.over_smoothing import dirichlet_energy, mean_average_distance

__all__ = ["dirichlet_energy", "mean_average_distance"]
