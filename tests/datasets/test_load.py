import stat

import numpy as np
import pytest
import torch

from gesm.datasets import _npz, _planetoid, home, load, locate, registry
from gesm.datasets._raw import sha256
from gesm.errors import GesmError


@pytest.fixture
def tiny(register, npz_file):
    register(folders={"made/raw": {"a.npz": sha256(npz_file)}}, read=_npz.read)


def test_citeseer_needs_no_files(home):
    data = load("CiteSeer")
    assert (data.num_nodes, data.num_edges, data.num_features, data.num_classes) == (3327, 9104, 3703, 6)
    assert [int(data[f"{part}_mask"].sum()) for part in ("train", "val", "test")] == [120, 500, 1000]
    assert (data.name, data.task, data.protocol, data.inductive) == ("citeseer", "multiclass", "public", False)
    assert (data.x.dtype, data.edge_index.dtype, data.y.dtype) == (torch.float32, torch.int64, torch.int64)
    assert data.x.unique().tolist() == [0, 1]
    assert int((data.x.sum(dim=1) == 0).sum()) == 15
    assert data.is_undirected()
    assert not data.has_self_loops()
    assert data.has_isolated_nodes()
    assert locate("citeseer").name == "citeseer.npz"
    assert not any(home.iterdir())


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"", lambda b: b[:5000] + b"x" + b[5001:]])
def test_damaged_bundled_file_says_reinstall(home, tmp_path, monkeypatch, damage):
    path = tmp_path / "citeseer.npz"
    path.write_bytes(damage(locate("citeseer").read_bytes()))
    monkeypatch.setattr("gesm.datasets._load._bundled", lambda _: path)
    with pytest.raises(GesmError, match=r"citeseer\.npz, a part of the package, cannot be read .*reinstall gesm"):
        load("citeseer")


def test_root_wins_over_home_and_home_over_download(home, tmp_path, tiny, npz_file, write):
    assert locate("tiny") is None
    write(home / "made/raw", {"a.npz": npz_file})
    assert locate("tiny") == locate("tiny", tmp_path / "nothing") == home / "made/raw"
    write(tmp_path / "root/made/raw", {"a.npz": npz_file})
    assert locate("tiny", tmp_path / "root") == tmp_path / "root/made/raw"
    assert load("tiny", tmp_path / "root").num_nodes == load("tiny").num_nodes == 5


def test_home_wins_over_the_bundled_copy(home, write):
    write(home / "planetoid/CiteSeer/raw", {"ind.citeseer.x": b"not the file"})
    assert locate("citeseer") == home / "planetoid/CiteSeer/raw"
    with pytest.raises(GesmError, match=r"citeseer is not on this machine.*ind\.citeseer\.tx"):
        load("citeseer")


def test_read_only_folder_is_enough(home, tiny, npz_file, write):
    folder = write(home / "made/raw", {"a.npz": npz_file})
    for path in (folder / "a.npz", folder, folder.parent, home):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        assert load("tiny").num_nodes == 5
        assert sorted(path.name for path in home.rglob("*")) == ["a.npz", "made", "raw"]
    finally:
        for path in (home, folder.parent, folder):
            path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b"", lambda b: bytes([b[0] ^ 1]) + b[1:]])
def test_truncated_or_altered_file_is_named(home, tiny, npz_file, write, damage):
    folder = write(home / "made/raw", {"a.npz": damage(npz_file)})
    with pytest.raises(GesmError, match=f"{folder / 'a.npz'}: truncated or altered.*expected {sha256(npz_file)}.*Delete"):
        load("tiny")


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b"", lambda b: b"<html>", lambda b: b[:80] + b[81:]])
def test_damage_is_found_without_a_known_hash(home, register, npz_file, write, damage):
    register(folders={"made/raw": {"a.npz": None}}, read=_npz.read)
    folder = write(home / "made/raw", {"a.npz": damage(npz_file)})
    with pytest.raises(GesmError, match=f"{folder} cannot be read as tiny, a.npz truncated or altered.*Delete"):
        load("tiny")


def test_file_that_is_a_folder_is_named(home, tiny):
    (home / "made/raw/a.npz").mkdir(parents=True)
    with pytest.raises(GesmError, match=r"a\.npz: cannot be read \(Is a directory\)"):
        load("tiny")


def test_published_counts_are_checked(home, register, npz_file, write):
    register(folders={"made/raw": {"a.npz": None}}, read=_npz.read, num_edges=6, num_classes=3)
    write(home / "made/raw", {"a.npz": npz_file})
    with pytest.raises(GesmError, match=r"published tiny: num_edges 4, expected 6; num_classes 2, expected 3"):
        load("tiny")


def test_second_folder_is_never_downloaded_to(home, register, npz_file, write):
    folders = {"made/raw": {"a.npz": None}, "other/raw": {"a.npz": None, "b.npz": None}}
    register(folders=folders, read=_npz.read)
    write(home / "other/raw", {"a.npz": npz_file})
    with pytest.raises(GesmError, match=r"other/raw/b\.npz: cannot be read \(No such file"):
        load("tiny")


def test_malicious_pickle_is_an_error(home, register, planetoid_files, write):
    register(folders={"made/raw": dict.fromkeys(planetoid_files)}, read=_planetoid.read)
    planetoid_files["ind.tiny.graph"] = b"cos\nsystem\n(S'exit 1'\ntR."
    write(home / "made/raw", planetoid_files)
    with pytest.raises(GesmError, match=r"asks for os\.system.*do not trust"):
        load("tiny")


@pytest.mark.parametrize("name", ["corra", "", None, 3])
def test_unknown_name_lists_the_known(name):
    with pytest.raises(GesmError, match=r"no data set .*choose one of cora, citeseer, pubmed, computers, photo, cs, phys"):
        load(name)


def test_unknown_protocol_lists_the_known():
    with pytest.raises(GesmError, match="computers has no protocol 'public'; choose 'shchur' or '60/20/20'"):
        load("computers", protocol="public")


@pytest.mark.parametrize("seed", [-1, 1.5, "0"])
def test_bad_seed(seed):
    with pytest.raises(GesmError, match="seed must be a whole number >= 0"):
        load("citeseer", seed=seed)


def test_seed_and_protocol_choose_the_split(home, tiny, npz_file, write):
    write(home / "made/raw", {"a.npz": npz_file})
    splits = {tuple(load("tiny", seed=np.int64(seed)).train_mask.tolist()) for seed in range(20)}
    assert len(splits) > 3
    assert load("tiny").protocol == "60/20/20"
    with pytest.raises(GesmError, match="a class has 2 nodes"):
        load("tiny", protocol="shchur")


def test_home_defaults_to_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GESM_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home().name == "gesm"
    monkeypatch.setenv("GESM_HOME", "~/data")
    assert "~" not in str(home())


def test_registry_rows_are_complete():
    for name, spec in registry().items():
        assert name == spec.name == name.lower()
        assert spec.url.startswith("https://")
        for files in spec.folders.values():
            assert all(known is None or len(known) == 64 for known in files.values())
