"""Graph neural networks that mix random-walk steps, on sparse kernels that need no compiler."""

import importlib
from types import ModuleType

from gesm.adjacency import as_graph
from gesm.errors import GesmError
from gesm.graph import Graph

__version__ = "0.1.0"
__all__ = ["GesmError", "Graph", "__version__", "as_graph"]

_PACKAGES = ("datasets", "metrics", "models", "nn", "ops", "recommend", "training")


def __getattr__(name: str) -> ModuleType:
    # `import gesm; gesm.datasets.load(...)` works, and the command line does not wait for PyG to say --help.
    if name in _PACKAGES:
        return importlib.import_module(f"gesm.{name}")
    raise AttributeError(f"module 'gesm' has no attribute {name!r}")
