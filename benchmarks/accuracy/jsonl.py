"""Files of one JSON object a line, appended as work is done."""

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["append", "read"]


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, none if it is missing; a last one that was cut off is left out."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line, on a line of its own whatever a killed program left behind."""
    whole = not path.exists() or path.stat().st_size == 0 or path.read_bytes()[-1:] == b"\n"
    if not whole:
        lines = read(path)
        path.write_text("".join(json.dumps(kept) + "\n" for kept in lines))
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())
