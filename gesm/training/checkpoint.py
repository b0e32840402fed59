"""Files that are either whole or absent, and tensors in them that are either intact or refused."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
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
    """Writes a safetensors file whose one metadata entry is the CRC-32 of the whole file, then ``metadata`` as JSON.

    The checksum is that of the file with zeros in its place. One entry, since safetensors orders several at random and
    equal runs are to leave equal bytes.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    content = safetensors.torch.save(tensors, {"gesm": _ZEROS.decode() + json.dumps(metadata)})
    before, after = _split(content)
    write_atomic(path, before + _crc32(before, after) + after)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what :func:`save_tensors` wrote.

    Raises:
        GesmError: If the file is missing, truncated, altered in any byte or not ours.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise GesmError(f"{path} does not exist; pass a folder that `gesm train --out` has written") from None
    except OSError as error:
        raise GesmError(f"{path} cannot be read ({error.strerror})") from None
    before, after = _split(content)
    if content[len(before) : len(before) + len(_ZEROS)] != _crc32(before, after):
        raise GesmError(
            f"{path} cannot be read (its checksum does not match): it was truncated or altered, or this version of gesm "
            "did not write it. Restore it from a copy, or start again with --overwrite"
        )
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return safetensors.torch.load(content), json.loads(header["__metadata__"]["gesm"][len(_ZEROS) :])


_ZEROS = b"00000000"
_MARK = b'"gesm":"'


def _split(content: bytes) -> tuple[bytes, bytes]:
    before, mark, after = content.partition(_MARK)
    return before + mark, after[len(_ZEROS) :]


def _crc32(before: bytes, after: bytes) -> bytes:
    return b"%08x" % zlib.crc32(after, zlib.crc32(_ZEROS, zlib.crc32(before)))
