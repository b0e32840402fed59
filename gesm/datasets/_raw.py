import hashlib
from collections.abc import Mapping
from pathlib import Path

from gesm.errors import GesmError


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 of the bytes."""
    return hashlib.sha256(content).hexdigest()


def check(path: Path | str, content: bytes, expected: str | None) -> None:
    """Raise GesmError unless the content has the expected SHA-256 (None: unknown, nothing to check)."""
    if expected and (found := sha256(content)) != expected:
        raise GesmError(
            f"{path}: truncated or altered ({len(content)} bytes, SHA-256 {found}, expected {expected}). "
            "Delete it and load again to download it, or put the original there."
        )


def read(folder: Path, files: Mapping[str, str | None]) -> dict[str, bytes]:
    """Read the files of one data set whole, so that what is checked is what is parsed.

    Args:
        folder: Folder with the files.
        files: File name to expected SHA-256, or None where it is not known.

    Raises:
        GesmError: A file is missing, unreadable, or has another SHA-256.
    """
    contents = {}
    for name, expected in files.items():
        path = folder / name
        try:
            contents[name] = path.read_bytes()
        except OSError as error:
            raise GesmError(f"{path}: cannot be read ({error.strerror}). Put the file there.") from error
        check(path, contents[name], expected)
    return contents
