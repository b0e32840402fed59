"""Graph neural networks that mix random-walk steps, on sparse kernels that need no compiler."""

__version__ = "0.1.0"
