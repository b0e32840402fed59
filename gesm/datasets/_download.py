import os
import tempfile
import zipfile
from pathlib import Path

import pooch

from gesm.datasets._home import offline
from gesm.datasets._registry import Spec
from gesm.errors import GesmError


def fetch(spec: Spec, folder: Path) -> None:
    """Download the files of a data set that are missing in a folder.

    TLS is verified, SHA-256 checked where it is known, and a file appears whole or not at all.

    Raises:
        GesmError: Offline, no connection, wrong content, no right to write; says which file belongs where.
    """
    files = next(iter(spec.folders.values()))
    missing = [name for name in files if not os.path.exists(folder / name)]
    if not missing:
        return
    by_hand = (
        f"Put {', '.join(missing)} (from {spec.url}) into {folder} by hand, or set GESM_HOME to a folder "
        f"that holds {next(iter(spec.folders))}."
    )
    if offline():
        raise GesmError(f"{spec.name} is not on this machine and GESM_OFFLINE forbids the download. {by_hand}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if spec.archive:
            _from_zip(spec, folder, missing)
        else:
            for name in missing:
                pooch.retrieve(f"{spec.url}/{name}", known_hash=files[name], fname=name, path=folder)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise GesmError(f"{spec.name} could not be downloaded: {error}. {by_hand}") from error


def _from_zip(spec: Spec, folder: Path, names: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = pooch.retrieve(spec.url, known_hash=spec.archive, fname="archive.zip", path=scratch)
        with zipfile.ZipFile(archive) as members:
            for name in names:
                part = Path(scratch) / name
                part.write_bytes(members.read(name))
                os.replace(part, folder / name)
