"""The operator library and the choice of backend."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gesm.errors import GesmError

__all__ = ["LIBRARY", "backend", "use_backend"]

LIBRARY = torch.library.Library("gesm", "FRAGMENT")
_ALLOWED = ("auto", "reference", "cpu", "triton")
_FAST = {"cpu": "cpu"}  # device type -> fast backend


def backend(device: torch.device) -> str:
    """The backend for tensors on `device`: `GESM_BACKEND`, or for `auto` the fast one of the device, else the reference.

    Raises:
        GesmError: if `GESM_BACKEND` names an unknown backend, or one that cannot run on `device`.
    """
    choice = os.environ.get("GESM_BACKEND", "auto")
    if choice == "auto":
        return _FAST.get(device.type, "reference")
    if choice not in _ALLOWED:
        raise GesmError(f"GESM_BACKEND must be one of {', '.join(_ALLOWED)}, got {choice!r}")
    if choice != "reference" and choice not in _FAST.values():
        raise GesmError(f"GESM_BACKEND={choice} was asked for, but this installation has no {choice} kernels; use auto")
    if choice != "reference" and _FAST.get(device.type) != choice:
        raise GesmError(f"GESM_BACKEND={choice} was asked for, but the tensors are on {device}; move them or use auto")
    return choice


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Runs a block with `GESM_BACKEND` set to `name`."""
    before = os.environ.get("GESM_BACKEND")
    os.environ["GESM_BACKEND"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["GESM_BACKEND"]
        else:
            os.environ["GESM_BACKEND"] = before
