import os
from collections.abc import Mapping
from numbers import Integral
from os import PathLike
from pathlib import Path

from torch_geometric.data import Data

from gesm.datasets import _download, _ogb, _planetoid, _raw
from gesm.datasets._home import home
from gesm.datasets._registry import Spec, find
from gesm.datasets._splits import SPLITS, few_labels
from gesm.errors import GesmError


def load(name: str, root: str | PathLike | None = None, protocol: str | None = None, seed: int = 0) -> Data:
    """Load a data set with its split: one graph, or for PPI one block-diagonal batch of graphs.

    Looked for below `root`, then in `GESM_HOME`, then among the sets bundled with the package, then downloaded. The
    first place that holds any of the files is used; every file is checked before it is parsed and the published counts
    are checked afterwards. Features are raw: normalising them is up to the recipe.

    Args:
        name: One of `registry()`, in any case.
        root: Folder laid out like `GESM_HOME`; downloads go there if it is given.
        protocol: Split; each set's first protocol is its default.
        seed: Number of the split; a public or official split has only one and ignores it.

    Returns:
        `x` float32 [N, F], `edge_index` int64 [2, E], `y` int64 [N] (float32 [N, C] if multilabel), bool [N]
        `train_mask`, `val_mask`, `test_mask`; and `name`, `task`, `num_classes`, `protocol`, `inductive`. Rows of PPI
        with NaN labels are in no mask.

    Raises:
        GesmError: Unknown name, protocol or seed; a file missing, truncated or altered; no download possible.
    """
    spec = find(name)
    protocol = spec.protocols[0] if protocol is None else protocol
    if protocol not in spec.protocols:
        raise GesmError(f"{spec.name} has no protocol {protocol!r}; choose {' or '.join(map(repr, spec.protocols))}")
    if not isinstance(seed, Integral) or seed < 0:
        raise GesmError(f"seed must be a whole number >= 0, not {seed!r}")

    data, place = _read(spec, root)
    _check_counts(spec, data, place)
    if protocol in SPLITS:
        data.update(SPLITS[protocol](data.y, seed))
    elif protocol.endswith("%"):
        known = data.x.any(1)  # CiteSeer's 15 nodes without features are fillers, labelled with the first class
        data.update(few_labels(data.y, data, known, float(protocol[:-1]) / 100, seed))
    for key in ("name", "task", "num_classes", "inductive"):
        data[key] = getattr(spec, key)
    data.protocol = protocol
    return data


def locate(name: str, root: str | PathLike | None = None) -> Path | None:
    """Folder, or file of the package, that `load` would read now; None if it would have to download."""
    spec = find(name)
    if not spec.folders:
        return _ogb.locate(spec.name, _bases(root))
    place = _holding(spec, root)
    if place:
        return place[0]
    return _bundled(spec) if spec.bundled else None


def _bases(root: str | PathLike | None) -> list[Path]:
    return [home()] if root is None else [Path(root).expanduser(), home()]


def _bundled(spec: Spec) -> Path:
    return Path(__file__).with_name(spec.bundled)


def _holding(spec: Spec, root: str | PathLike | None) -> tuple[Path, Mapping[str, str | None]] | None:
    for base in _bases(root):
        for folder, files in spec.folders.items():
            if any(os.path.exists(base / folder / file) for file in files):
                return base / folder, files
    return None


def _read(spec: Spec, root: str | PathLike | None) -> tuple[Data, Path]:
    if not spec.folders:
        return _ogb.read(spec.name, _bases(root))
    place = _holding(spec, root)
    if place is None and spec.bundled:
        bundled = _bundled(spec)
        try:
            return _planetoid.read_bundled(bundled), bundled
        except Exception as error:  # whatever a damaged file provokes in zipfile and numpy
            raise GesmError(f"{bundled}, a part of the package, cannot be read ({error!r}); reinstall gesm") from error
    first, files = next(iter(spec.folders.items()))
    folder, files = place or (_bases(root)[0] / first, files)
    if folder.match(first):
        _download.fetch(spec, folder)
    contents = _raw.read(folder, files)
    try:
        return spec.read(contents), folder
    except Exception as error:  # whatever a damaged file provokes in a parser
        reason = error if isinstance(error, GesmError) else repr(error)
        raise GesmError(
            f"{folder} cannot be read as {spec.name}, {', '.join(files)} truncated or altered? {reason}. "
            "Delete what is wrong and load again to download it, or put the original there."
        ) from error


def _check_counts(spec: Spec, data: Data, place: Path) -> None:
    classes = data.y.shape[1] if spec.task == "multilabel" else int(data.y.max()) + 1
    found = {
        "num_nodes": data.num_nodes,
        "num_edges": data.num_edges,
        "num_features": data.num_features,
        "num_classes": classes,
    }
    wrong = [f"{key} {value}, expected {getattr(spec, key)}" for key, value in found.items() if value != getattr(spec, key)]
    if wrong:
        raise GesmError(f"{place} does not hold the published {spec.name}: {'; '.join(wrong)}. Put the original there.")
