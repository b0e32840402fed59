"""Whether Triton's interpreter can run here."""

import numpy as np
import pytest

__all__ = ["needs_interpreter"]


def needs_interpreter() -> None:
    """Skips a test without Triton, and with one whose interpreter does not know this NumPy."""
    triton = pytest.importorskip("triton")
    old = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7)
    if old and tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4):
        pytest.skip(f"the interpreter of Triton {triton.__version__} fails with NumPy {np.__version__}")
