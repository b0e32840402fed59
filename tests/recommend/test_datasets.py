import dataclasses
import hashlib
import io
import zipfile

import numpy as np
import pooch
import pytest

from gesm import GesmError
from gesm.recommend import _tables, item_names, load, registry

ITEMS = "item\tis_product\ttitle\n0\t1\tLamp\n1\t0\tPostage\n"


def npz(**changes):
    stream = io.BytesIO()
    arrays = {"user": [0, 1, 1], "item": [0, 0, 1], "timestamp": [10, 20, 30], "rating": [5, 4, 3]} | changes
    np.savez(stream, **{key: np.array(value) for key, value in arrays.items()})
    return stream.getvalue()


def sha256(content):
    return hashlib.sha256(content if isinstance(content, bytes) else content.encode()).hexdigest()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A made table called tiny in GESM_HOME; returns its folder and a function that changes its row."""
    folder = tmp_path / "home" / "tiny"
    folder.mkdir(parents=True)
    (folder / "interactions.npz").write_bytes(npz())
    (folder / "items.tsv").write_text(ITEMS)
    monkeypatch.setenv("GESM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GESM_OFFLINE", "1")
    spec = dataclasses.replace(
        registry()["movietweetings"],
        name="tiny",
        folder="tiny",
        files={"interactions.npz": None, "items.tsv": sha256(ITEMS)},
        num_rows=3,
        num_users=2,
        num_items=2,
        start=10,
        end=30,
        titles=("item", "title"),
        products=True,
    )

    def change(**fields):
        monkeypatch.setattr(_tables, "_SPECS", (dataclasses.replace(spec, **fields),))

    change()
    return folder, change


def test_load(tiny):
    data = load("Tiny")
    assert (data.name, len(data), data.num_users, data.num_items) == ("tiny", 3, 2, 2)
    assert (data.time.tolist(), data.weight.tolist()) == ([10, 20, 30], [5, 4, 3])
    assert load("tiny", root=tiny[0].parent).user.equal(data.user)
    assert load("tiny", root="/none").user.equal(data.user)


def test_names_by_the_original_id(tiny):
    names = item_names("tiny")
    assert [names[i] for i in load("tiny").item_ids] == ["Lamp", "Postage"]
    (tiny[0] / "items.tsv").unlink()
    assert item_names("tiny") is None
    tiny[1](titles=None)
    assert item_names("tiny") is None


def test_products_and_core(tiny):
    data = load("tiny", products_only=True)
    assert (len(data), data.num_items, data.item_ids.tolist(), data.name) == (2, 1, [0], "tiny products")
    data = load("tiny", min_count=1)
    assert (len(data), data.name) == (3, "tiny 1-core")


def test_ml_100k_is_taken_out_of_its_zip(tiny, tmp_path, monkeypatch):
    folder, change = tiny
    archive = tmp_path / "ml.zip"
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("ml/u.data", "9\t7\t5\t30\n8\t7\t4\t10\n9\t6\t1\t20\n")
    monkeypatch.delenv("GESM_OFFLINE")
    monkeypatch.setattr(pooch, "retrieve", lambda url, known_hash, fname, path: str(archive))
    change(folder="ml", files={"u.data": None}, read=_tables._read_tabs, url="https://localhost/ml.zip")
    data = load("tiny")
    assert (data.user_ids.tolist(), data.user.tolist(), data.weight.tolist()) == ([8, 9], [0, 1, 1], [4, 1, 5])
    assert sorted(file.name for file in (folder.parent / "ml").iterdir()) == ["u.data"]
    (folder.parent / "ml" / "u.data").unlink()
    archive.write_bytes(b"no zip")
    with pytest.raises(GesmError, match=r"could not be downloaded from https://localhost/ml.zip.*Put u.data into"):
        load("tiny")


def test_every_row_is_complete():
    specs = registry()
    assert sorted(specs) == ["ciao", "ml-100k", "movietweetings", "online-retail-ii"]
    for spec in specs.values():
        assert spec.source
        assert spec.terms
        assert spec.file in spec.files


@pytest.mark.parametrize(
    ("fields", "files", "options", "message"),
    [
        ({}, {}, {"name": "netflix"}, "no table of interactions 'netflix'; choose one of tiny"),
        ({}, {}, {"name": 3}, "no table of interactions 3"),
        ({"products": False}, {}, {"products_only": True}, "leave products_only out"),
        ({}, {}, {"min_count": 3}, "has no 3-core"),
        ({"files": {"interactions.npz": "0" * 64}}, {}, {}, "truncated or altered"),
        ({}, {"interactions.npz": b"PK"}, {}, "cannot be read as tiny"),
        ({}, {"interactions.npz": npz(rating=[1])}, {}, "cannot be read as tiny.*weight 1"),
        ({"num_users": 5, "end": 31}, {}, {}, "num_users 2, expected 5; end 30, expected 31"),
        ({}, {"items.tsv": b"x"}, {"products_only": True}, "items.tsv: truncated or altered"),
        ({"folder": "elsewhere"}, {}, {}, "cannot be downloaded .*Put interactions.npz into .*elsewhere by hand"),
        ({"folder": "elsewhere", "url": "https://localhost/x.zip"}, {}, {}, "GESM_OFFLINE forbids the download"),
    ],
)
def test_errors(fields, files, options, message, tiny):
    folder, change = tiny
    change(**fields)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(GesmError, match=message):
        load(**{"name": "tiny"} | options)
