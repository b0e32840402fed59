"""The operator library and the choice of backend."""

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gesm.errors import GesmError

__all__ = ["INTERPRETED", "LIBRARY", "backend", "define", "kernel_dtype", "register", "use_backend"]


def _has_triton() -> bool:
    try:
        return importlib.util.find_spec("triton") is not None
    except (ImportError, ValueError):
        return False


LIBRARY = torch.library.Library("gesm", "FRAGMENT")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton reads it when a kernel is decorated
_ALLOWED = ("auto", "reference", "cpu", "triton")
_TRITON = _has_triton()  # found, not imported: only its first use imports it
_FAST = {"cpu": "cpu", "cuda": "triton"}  # device type -> fast backend
_TAGS = [tag for tag in [getattr(torch.Tag, "cudagraph_unsafe", None)] if tag is not None]
_probed: dict[str, str | None] = {}


def _triton_problem() -> str | None:
    """Why Triton cannot run on a GPU here; None if it can."""
    if not _TRITON:
        return "Triton is not installed; pip install 'gesm[triton]', or use auto"
    if not _probed and not torch.compiler.is_compiling():
        _probed["problem"] = _probe()
    return _probed.get("problem")


def _probe() -> str | None:
    """Starts Triton's driver, for which it compiles a few lines of C."""
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device; use auto"
    major, minor = torch.cuda.get_device_capability()
    if major < 7:
        return f"the device has compute capability {major}.{minor}, Triton needs 7.0; use auto"
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:  # no C compiler, no Python headers, no driver library: whatever it is, it cannot run
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return f"Triton cannot start here ({reason[0]}); install a C compiler and Python's headers, or use auto"
    return None


def backend(device: torch.device) -> str:
    """The backend for tensors on `device`: `GESM_BACKEND`, or for `auto` the fast one of the device, else the reference.

    Raises:
        GesmError: if `GESM_BACKEND` names an unknown backend, or one that cannot run on `device`.
    """
    choice = os.environ.get("GESM_BACKEND", "auto")
    fast = _FAST.get(device.type, "reference")
    if choice == "auto":
        return "reference" if fast == "triton" and _triton_problem() else fast
    _check_choice(choice)
    if choice == "triton" and (device.type == "cuda" or not _TRITON) and (problem := _triton_problem()):
        raise GesmError(f"GESM_BACKEND=triton was asked for, but {problem}")
    if choice in ("reference", fast):
        return choice
    if choice == "triton":
        if device.type == "cpu" and INTERPRETED:
            return choice
        if device.type == "cpu":
            raise GesmError(
                "GESM_BACKEND=triton was asked for, but the tensors are on cpu; move them to a GPU, use auto, or, to test the "
                "kernels without a GPU, set TRITON_INTERPRET=1 before Python starts"
            )
    raise GesmError(f"GESM_BACKEND={choice} was asked for, but the tensors are on {device}; move them or use auto")


def kernel_dtype(dtype: torch.dtype, name: str) -> torch.dtype:
    """The type in which the kernels of the backend `name` take x: only Triton's take half precisions as they are."""
    return torch.float32 if name != "triton" and dtype in (torch.float16, torch.bfloat16) else dtype


def define(schema: str) -> None:
    """Adds an operator; its first call on a structure waits for the device, so that a compiler must not capture it unseen."""
    LIBRARY.define(schema, tags=_TAGS)


def register(name: str, cpu: Callable, triton: str) -> None:
    """The kernels of `gesm::name`: `cpu` for the CPU, and for CUDA the function of that name in the module `triton`.

    That module, and Triton with it, is imported by the first call. Under Triton's interpreter CPU tensors go there too if
    `GESM_BACKEND` says so.
    """

    def on_triton(*args: Any) -> Any:
        return getattr(importlib.import_module(triton), name)(*args)

    def interpreted(*args: Any) -> Any:
        return (on_triton if backend(torch.device("cpu")) == "triton" else cpu)(*args)

    torch.library.impl(f"gesm::{name}", "CPU", torch.no_grad()(interpreted if INTERPRETED else cpu))
    torch.library.impl(f"gesm::{name}", "CUDA", torch.no_grad()(on_triton))


def _check_choice(name: str) -> None:
    if name not in _ALLOWED:
        raise GesmError(f"GESM_BACKEND must be one of {', '.join(_ALLOWED)}, got {name!r}")


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Runs a block with `GESM_BACKEND` set to `name`; compiled functions keep the backend that they were traced with."""
    _check_choice(name)
    before = os.environ.get("GESM_BACKEND")
    os.environ["GESM_BACKEND"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["GESM_BACKEND"]
        else:
            os.environ["GESM_BACKEND"] = before
