"""Timestamped interaction tables by name: `load("movietweetings")`."""

import os
import tempfile
import zipfile
from dataclasses import replace
from os import PathLike
from pathlib import Path

import pooch
import torch

from gesm.datasets import _raw, home
from gesm.datasets._home import offline
from gesm.errors import GesmError
from gesm.recommend._tables import InteractionSpec, find, registry
from gesm.recommend.core import k_core
from gesm.recommend.interactions import Interactions

__all__ = ["InteractionSpec", "item_names", "load", "registry"]

_ITEMS = "items.tsv"


def load(
    name: str, root: str | PathLike | None = None, *, products_only: bool = False, min_count: int | None = None
) -> Interactions:
    """Load a table of interactions by name, checked against its published counts.

    Looked for below `root`, then in `GESM_HOME`; MovieLens-100K is downloaded if it is in neither.

    Args:
        name: One of `registry()`, in any case.
        root: Folder laid out like `GESM_HOME`; a download goes there if it is given.
        products_only: Online Retail II: leave out postage, manual entries and other codes that are no products.
        min_count: Take the k-core of at least so many rows a user and an item, see `k_core` (Ciao: 5 is usual).

    Raises:
        GesmError: Unknown name, an option that does not apply, a file missing, truncated or altered.
    """
    spec = find(name)
    if products_only and not spec.products:
        raise GesmError(f"{spec.name} tells no products apart; leave products_only out")
    folder = _folder(spec, root)
    content = _raw.read(folder, {spec.file: spec.files[spec.file]})[spec.file]
    try:
        table = spec.read(spec, content)
    except Exception as error:  # whatever a damaged file provokes in a parser
        raise GesmError(f"{folder / spec.file} cannot be read as {spec.name}: {error!r}. Put the original there.") from error
    _check_counts(spec, table, folder)
    if products_only:
        products = [int(row["item"]) for row in _items(spec, folder) if row["is_product"] == "1"]
        table = table.select(torch.isin(table.item, torch.tensor(products))).compact()
    if min_count is not None:
        table = k_core(table, min_count)
    marks = ["products"] * products_only + [f"{min_count}-core"] * (min_count is not None)
    return replace(table, name=" ".join([spec.name, *marks]))


def item_names(name: str, root: str | PathLike | None = None) -> dict[int, str] | None:
    """Names of the items by their original id, so that `names[table.item_ids[i]]` is that of item i; None if unknown."""
    spec = find(name)
    if spec.titles is None:
        return None
    key, title = spec.titles
    folder = _folder(spec, root)
    return {int(row[key]): row[title] for row in _items(spec, folder)} if (folder / _ITEMS).is_file() else None


def _items(spec: InteractionSpec, folder: Path) -> list[dict[str, str]]:
    lines = _raw.read(folder, {_ITEMS: spec.files[_ITEMS]})[_ITEMS].decode().splitlines()
    header = lines[0].split("\t")
    return [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]


def _folder(spec: InteractionSpec, root: str | PathLike | None) -> Path:
    bases = [home()] if root is None else [Path(root).expanduser(), home()]
    for base in bases:
        if (base / spec.folder / spec.file).exists():
            return base / spec.folder
    folder = bases[0] / spec.folder
    by_hand = f"Put {spec.file} into {folder} by hand, or set GESM_HOME to a folder that holds {spec.folder}/{spec.file}."
    if spec.url is None:
        raise GesmError(f"{spec.name} is not on this machine and cannot be downloaded ({spec.source}). {by_hand}")
    if offline():
        raise GesmError(f"{spec.name} is not on this machine and GESM_OFFLINE forbids the download. {by_hand}")
    try:
        _download(spec, folder)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise GesmError(f"{spec.name} could not be downloaded from {spec.url}: {error}. {by_hand}") from error
    return folder


def _download(spec: InteractionSpec, folder: Path) -> None:
    """Take the table out of the zip; it appears whole or not at all, and its counts are checked when it is read."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = pooch.retrieve(spec.url, known_hash=None, fname="archive.zip", path=scratch)
        with zipfile.ZipFile(archive) as members:
            content = members.read(f"{spec.folder}/{spec.file}")
        part = Path(scratch) / spec.file
        part.write_bytes(content)
        os.replace(part, folder / spec.file)


def _check_counts(spec: InteractionSpec, table: Interactions, folder: Path) -> None:
    found = {
        "num_rows": len(table),
        "num_users": table.num_users,
        "num_items": table.num_items,
        "start": int(table.time[0]),
        "end": int(table.time[-1]),
    }
    wrong = [f"{key} {value}, expected {getattr(spec, key)}" for key, value in found.items() if value != getattr(spec, key)]
    if wrong:
        raise GesmError(
            f"{folder / spec.file} does not hold the published {spec.name}: {'; '.join(wrong)}. Put the original there."
        )
