"""Interaction tables from files: csv, tsv, parquet and npz."""

import re
import warnings
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from gesm.errors import GesmError
from gesm.recommend import _columns
from gesm.recommend.interactions import Interactions

__all__ = ["read_interactions"]

_SEPARATOR = {".csv": ",", ".tsv": "\t", ".data": "\t"}
_SUFFIXES = (*_SEPARATOR, ".parquet", ".npz")
_WHOLE = re.compile(r"\s*(0|-?[1-9][0-9]{0,17})\s*")  # of at most 18 digits: it fits into int64


def read_interactions(
    path: str | PathLike,
    user: str | int = "user",
    item: str | int = "item",
    time: str | int | None = "time",
    weight: str | int | None = None,
    name: str | None = None,
) -> Interactions:
    """Read a table of interactions.

    Ids of a text file are whole numbers if all of their column are written as such; one leading zero ("007"), decimal point or
    letter, and the whole column is text, as it stands in the file.

    Args:
        path: A .csv, .tsv, .data (tabs), each also with .gz, .parquet or .npz file. All but .npz need pandas:
            `pip install gesm[recsys]`.
        user: Column with the users' ids. Columns are given by name, or all by number (from 0) if the text file has no
            header line, as MovieLens' u.data has none: `user=0, item=1, time=3`.
        item: Column with the items' ids.
        time: Column with times or dates, by default "time" or else "timestamp"; None to do without.
        weight: Column with weights, if any.
        name: Of the data; by default that of the file.

    Raises:
        GesmError: No such file, another type of file, a package missing, a column that is not there, and what
            `Interactions.from_arrays` refuses.
    """
    path = Path(path).expanduser()
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    allowed = tuple(_SEPARATOR) if path.suffix == ".gz" else _SUFFIXES
    if suffix not in allowed:
        raise GesmError(f"{path} is no table that can be read; give one of {', '.join(_SUFFIXES)} (text also with .gz)")
    if not path.is_file():
        raise GesmError(f"{path} does not exist; give the path of a table of interactions")
    wanted = [column for column in (user, item, time, weight) if column is not None]
    numbered = all(isinstance(column, int) for column in wanted)
    if not numbered and any(isinstance(column, int) for column in wanted):
        raise GesmError(f"columns must be all names or all numbers, got {', '.join(map(repr, wanted))}")
    if numbered and suffix not in _SEPARATOR:
        raise GesmError(f"columns of {path} have names; numbers, got {', '.join(map(repr, wanted))}, are for text files")
    frame = _npz(path) if suffix == ".npz" else _frame(path, suffix, numbered, {user, item})
    try:
        return Interactions.from_arrays(*_columns.of_table(frame, user, item, time, weight), name=name or path.name)
    except GesmError as error:
        raise GesmError(f"{path}: {error}") from None


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, AttributeError, TypeError, BadZipFile) as error:
        raise GesmError(f"{path} cannot be read as npz without pickles: {error}") from error


def _frame(path: Path, suffix: str, numbered: bool, ids: set[str | int]) -> Any:
    try:
        import pandas as pd

        if suffix == ".parquet":
            return pd.read_parquet(path)
        header = None if numbered else "infer"
        with warnings.catch_warnings():  # a row with more fields than the header would shift or lose columns
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=_SEPARATOR[suffix],
                header=header,
                index_col=False,
                dtype=dict.fromkeys(ids, str),
                keep_default_na=False,  # "NA" and "null" may be ids
                na_values=[""],
                encoding="utf-8-sig",
            )
        for column in ids & {*frame.columns}:
            if all(map(_WHOLE.fullmatch, frame[column].dropna().unique())):
                frame[column] = pd.to_numeric(frame[column])
        return frame
    except ImportError as error:
        need = "pandas and pyarrow" if suffix == ".parquet" else "pandas"
        raise GesmError(f"{path} is read by {need}, not installed ({error}): pip install gesm[recsys]") from error
    except pd.errors.ParserWarning:
        quote = f"name all columns, or quote fields that hold a {_SEPARATOR[suffix]!r}"
        raise GesmError(f"{path}: rows have more fields than the header; {quote}") from None
    except (OSError, ValueError) as error:  # the parsers of pandas and pyarrow raise subclasses of these
        raise GesmError(f"{path} cannot be read as {suffix}: {error}") from error
