import io
import zipfile

import pytest

from gesm.datasets import _npz, _ppi, load, locate
from gesm.datasets._raw import sha256
from gesm.errors import GesmError


@pytest.fixture
def tiny(home, serve, register, npz_file):
    def add(expected=None, **fields):
        return register(folders={"made/raw": {"a.npz": expected}}, url=serve.url, read=_npz.read, **fields)

    return add


def test_missing_file_is_downloaded_once(home, serve, tiny, npz_file, monkeypatch):
    tiny(sha256(npz_file))
    (serve.folder / "a.npz").write_bytes(npz_file)
    assert load("tiny").num_nodes == 5
    monkeypatch.setenv("GESM_OFFLINE", "1")
    assert load("tiny").num_nodes == 5
    assert [path.name for path in (home / "made/raw").iterdir()] == ["a.npz"]


def test_download_goes_to_root(home, serve, tiny, npz_file, tmp_path):
    tiny()
    (serve.folder / "a.npz").write_bytes(npz_file)
    load("tiny", root=tmp_path / "root")
    assert locate("tiny", tmp_path / "root") == tmp_path / "root/made/raw"
    assert not any(home.iterdir())


def test_wrong_content_is_refused_and_not_kept(home, serve, tiny):
    tiny("0" * 64)
    (serve.folder / "a.npz").write_bytes(b"<html>moved</html>")
    with pytest.raises(GesmError, match=r"could not be downloaded: .*hash.*Put a\.npz .* into .*made/raw by hand"):
        load("tiny")
    assert not any((home / "made/raw").iterdir())


def test_answer_404_and_no_server(serve, tiny, register):
    tiny()
    with pytest.raises(GesmError, match=r"404.*Put a\.npz \(from http.*\) into .*made/raw by hand, or set GESM_HOME"):
        load("tiny")
    register(name="gone", folders={"made/raw": {"b.npz": None}}, url="http://127.0.0.1:9", read=_npz.read)
    with pytest.raises(GesmError, match=r"gone could not be downloaded.*Put b\.npz"):
        load("gone")


def test_offline_asks_nobody(serve, tiny, npz_file, monkeypatch):
    tiny()
    (serve.folder / "a.npz").write_bytes(npz_file)
    monkeypatch.setenv("GESM_OFFLINE", "1")
    with pytest.raises(GesmError, match=r"tiny is not on this machine and GESM_OFFLINE forbids the download. Put a\.npz"):
        load("tiny")
    monkeypatch.setenv("GESM_OFFLINE", "0")
    assert load("tiny").num_nodes == 5


def test_folder_that_cannot_be_made(home, tiny):
    tiny()
    (home / "made").write_text("a file")
    with pytest.raises(GesmError, match=r"could not be downloaded: .*(Not a directory|File exists)"):
        load("tiny")


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def ppi(home, serve, register):
    def add(content, archive=None):
        (serve.folder / "ppi.zip").write_bytes(content)
        counts = {"num_nodes": 9, "num_edges": 10, "num_features": 2, "num_classes": 3}
        register(
            **counts,
            task="multilabel",
            protocols=("public",),
            inductive=True,
            folders={"tiny/raw": dict.fromkeys(_ppi.FILES)},
            url=f"{serve.url}/ppi.zip",
            archive=archive or sha256(content),
            read=_ppi.read,
        )

    return add


def test_archive_is_checked_and_only_the_files_are_taken(home, ppi, ppi_files):
    ppi(zipped(ppi_files | {"../../evil": b"", "__MACOSX": b""}))
    data = load("tiny")
    assert (data.num_graphs, data.inductive, data.task) == (4, True, "multilabel")
    assert len(data.to_data_list()) == 4
    assert {path.name for path in (home / "tiny/raw").iterdir()} == set(_ppi.FILES)


def test_interrupted_unpacking_is_completed(home, ppi, ppi_files):
    ppi(zipped(ppi_files))
    load("tiny")
    (home / "tiny/raw/test_feats.npy").unlink()
    assert load("tiny").num_nodes == 9


def test_archives_that_are_wrong(ppi, ppi_files):
    ppi(zipped(ppi_files), archive="0" * 64)
    with pytest.raises(GesmError, match=r"hash.*Put train_feats\.npy"):
        load("tiny")


@pytest.mark.parametrize("content", [b"no zip", zipped({"train_feats.npy": b""})], ids=["no zip", "lacks files"])
def test_archives_that_lack_the_files(ppi, content):
    ppi(content)
    with pytest.raises(GesmError, match=r"tiny could not be downloaded: .*(not a zip file|no item named)"):
        load("tiny")
