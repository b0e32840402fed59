"""Files that are either whole or absent, and tensors in them that are either intact or refused."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from gesm.errors import GesmError

__all__ = ["load_tensors", "save_tensors", "write_atomic"]


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes to a neighbour, flushes it to the disk and renames: a kill leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes a safetensors file whose one metadata entry holds ``metadata`` and a CRC-32 of the tensors as JSON.

    One entry, since safetensors orders several at random and equal runs are to leave equal bytes.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    header = {"gesm": json.dumps({**metadata, "crc32": _crc32(tensors)})}
    write_atomic(path, safetensors.torch.save(tensors, header))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what :func:`save_tensors` wrote.

    Raises:
        GesmError: If the file is missing, truncated, altered or not ours.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise GesmError(f"{path} does not exist; pass a folder that `gesm train --out` has written") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise GesmError(f"{path} cannot be read ({error}): it is truncated or not safetensors. {_REMEDY}") from None
    if "gesm" not in header:
        raise GesmError(f"{path} was not written by gesm. {_REMEDY}")
    metadata = json.loads(header["gesm"])
    if metadata.pop("crc32") != _crc32(tensors):
        raise GesmError(f"{path} was altered after it was written (its checksum does not match). {_REMEDY}")
    return tensors, metadata


_REMEDY = "Restore it from a copy, or start again with --overwrite"


def _crc32(tensors: Mapping[str, Tensor]) -> str:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].view(-1).view(torch.uint8).numpy(), zlib.crc32(name.encode(), total))
    return f"{total:08x}"
