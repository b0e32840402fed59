from collections.abc import Iterable
from datetime import UTC, date, datetime
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gesm.errors import GesmError


def column(values: Any, what: str) -> np.ndarray:
    """One column of a table as a NumPy array [n]."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    array = np.asarray(values, dtype=object if isinstance(values, list | tuple) else None)  # lists may mix types
    if array.ndim != 1:
        raise GesmError(f"{what} must be one-dimensional, one value a row, got shape {list(array.shape)}")
    if array.size == 0:
        raise GesmError(f"{what} is empty; give at least one interaction")
    if array.dtype.kind == "O":
        array = _plain(array, what)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise GesmError(f"{what} holds NaN or infinity in {int((~np.isfinite(array)).sum())} rows; drop these rows first")
    if array.dtype.kind == "M" and np.isnat(array).any():
        raise GesmError(f"{what} holds no date (NaT) in {int(np.isnat(array).sum())} rows; drop these rows first")
    return array


def _plain(array: np.ndarray, what: str) -> np.ndarray:
    """An object array as one of strings or numbers."""
    kinds = {type(value) for value in array} - {type(None)}
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    if not all(issubclass(kind, str | Number | np.generic | date) for kind in kinds):
        raise GesmError(f"{what} holds {names}; use numbers or strings")
    missing = sum(value is None or value != value for value in array)
    if missing:
        raise GesmError(f"{what} holds None or NaN in {missing} rows; drop these rows first")
    if len({issubclass(kind, str) for kind in kinds}) > 1:
        raise GesmError(f"{what} mixes strings with other types ({names}); use one type")
    if all(issubclass(kind, date) for kind in kinds):
        return np.array([_utc(value) for value in array], dtype="datetime64[s]")
    plain = np.array(array.tolist())
    if plain.dtype.kind == "O":
        raise GesmError(f"{what} holds {names}; use whole numbers or strings")
    return plain


def _utc(value: date) -> date:
    aware = isinstance(value, datetime) and value.tzinfo is not None
    return value.astimezone(UTC).replace(tzinfo=None) if aware else value


def encode(values: Any, what: str) -> tuple[Tensor, np.ndarray]:
    """Number ids in their order: int64 codes [n] and the ids that these stand for."""
    array = column(values, what)
    if array.dtype.kind == "f" and (array == np.floor(array)).all():  # pandas turns integers with gaps into floats
        if (np.abs(array) >= 2**53).any():
            raise GesmError(f"{what} holds floats from 2^53 on, which are not exact; give whole numbers or strings")
        array = array.astype(np.int64)
    if array.dtype.kind in "iu":  # one type, so that ids of several tables compare
        if array.dtype.kind == "u" and (array > np.iinfo(np.int64).max).any():
            raise GesmError(f"{what} holds numbers from 2^63 on; give them as strings")
        array = array.astype(np.int64)
    if array.dtype.kind not in "iuUb":
        raise GesmError(f"{what} must hold whole numbers or strings, got {array.dtype}; convert it, e.g. with astype(str)")
    ids, codes = np.unique(array, return_inverse=True)
    return torch.from_numpy(codes.astype(np.int64)), ids


def seconds(values: Any) -> Tensor:
    """Times as int64 seconds: numbers are floored, dates (datetime64, datetime or ISO 8601 text) count from 1970."""
    array = column(values, "time")
    if array.dtype.kind == "U":
        try:  # digits are seconds
            array = array.astype(np.int64)
        except ValueError:
            array = _dates(array)
    if array.dtype.kind == "M":
        array = array.astype("datetime64[s]")
    elif array.dtype.kind == "f":
        array = np.floor(array)
    elif array.dtype.kind not in "iu":
        raise GesmError(f"time must hold numbers (seconds) or dates, got {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def _dates(texts: np.ndarray) -> np.ndarray:
    try:
        return np.array([_utc(datetime.fromisoformat(text)) for text in texts.tolist()], dtype="datetime64[s]")
    except ValueError as error:
        raise GesmError(
            f"time holds text that is no date ({error}); write dates as ISO 8601, such as 2013-02-28 17:05"
        ) from None


def weights(values: Any) -> Tensor:
    """Weights as float32, checked to be finite and not negative."""
    array = column(values, "weight")
    if array.dtype.kind not in "iufb":
        raise GesmError(f"weight must hold numbers, got {array.dtype}")
    if (array < 0).any():
        raise GesmError(f"weight is negative in {int((array < 0).sum())} rows (returned goods?); drop these rows first")
    return torch.from_numpy(array.astype(np.float32))


def position(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted id stands among `ids`, -1 where it does not."""
    order = np.argsort(ids, kind="stable")
    place = np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)
    return np.where(ids[order[place]] == wanted, order[place], -1)


def of_table(frame: Any, user: Any, item: Any, time: Any, weight: Any) -> list[np.ndarray | None]:
    """Four columns of a pandas frame or a dict of arrays, None where none was asked for."""
    there = list(frame.keys())
    if time == "time" and "time" not in there and "timestamp" in there:
        time = "timestamp"
    missing = [name for name in (user, item, time, weight) if name is not None and name not in there]
    if missing:
        hint = "; pass time=None (--time none) if the rows have no time" if time in missing else ""
        raise GesmError(f"no column {_listed(missing)}; there are {_listed(there)}{hint}")
    user, item, time, weight = (None if name is None else frame[name] for name in (user, item, time, weight))
    return [_array(user), _array(item), _array(time, is_time=True), _array(weight)]


def _listed(names: Iterable[Any]) -> str:
    names = list(map(repr, names))
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _array(series: Any, is_time: bool = False) -> np.ndarray | None:
    if series is None or isinstance(series, np.ndarray):
        return series
    import pandas as pd

    if series.isna().any():
        raise GesmError(f"{series.name!r} is missing (NaN) in {int(series.isna().sum())} rows; drop these rows first")
    if is_time and pd.api.types.is_datetime64_any_dtype(series):
        return pd.to_datetime(series, utc=True).dt.tz_localize(None).to_numpy("datetime64[s]")
    return series.to_numpy()
