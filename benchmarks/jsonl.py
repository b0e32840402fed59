"""Files of one JSON object a line, appended as work is done."""

import json
import os
from pathlib import Path
from typing import Any

from gesm.training.checkpoint import write_atomic

__all__ = ["append", "read"]


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, none if it is missing; a last one that was cut off is left out."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line, on a line of its own whatever a killed program left behind."""
    if path.exists() and path.read_bytes()[-1:] not in (b"\n", b""):
        write_atomic(path, "".join(json.dumps(kept) + "\n" for kept in read(path)))
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())
