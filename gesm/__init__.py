"""Graph neural networks that mix random-walk steps, on sparse kernels that need no compiler."""

from gesm.errors import GesmError
from gesm.graph import Graph

__version__ = "0.1.0"
__all__ = ["GesmError", "Graph", "__version__"]
