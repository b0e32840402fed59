"""Benchmark graphs with their splits, checked before use: `load("cora")`."""

from gesm.datasets._home import home
from gesm.datasets._load import load, locate
from gesm.datasets._registry import Spec, registry
from gesm.datasets._synthetic import synthetic

__all__ = ["Spec", "home", "load", "locate", "registry", "synthetic"]
