"""Shared fixtures: poisoned allocations, fixed seeds."""

import os

# Threads that spin at a barrier wait for a whole time slice when another program has the core.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hypothesis import settings

settings.register_profile("gesm", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("gesm")


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_backend_from_outside(monkeypatch):
    if "GESM_BACKEND" in os.environ:
        monkeypatch.delenv("GESM_BACKEND")


@pytest.fixture
def poisoned(monkeypatch):
    """Every empty floating-point allocation holds NaN, so that an element that no kernel wrote is seen."""

    def poison(tensor):
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        make = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, _make=make, **kwargs: poison(_make(*args, **kwargs)))
