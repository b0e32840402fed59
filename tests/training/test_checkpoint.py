import pytest
import safetensors.torch
import torch

from gesm.errors import GesmError
from gesm.training.checkpoint import load_tensors, save_tensors, write_atomic

TENSORS = {"a": torch.randn(3, 4), "b": torch.tensor(2, dtype=torch.uint8), "empty": torch.zeros(0)}


def test_round_trip(tmp_path):
    save_tensors(tmp_path / "c.safetensors", {**TENSORS, "t": TENSORS["a"].T}, {"epoch": 3})
    tensors, metadata = load_tensors(tmp_path / "c.safetensors")
    assert metadata == {"epoch": 3}
    assert torch.equal(tensors["t"], TENSORS["a"].T)
    assert all(torch.equal(tensors[name], t) for name, t in TENSORS.items())
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_truncated(tmp_path, keep):
    path = tmp_path / "c.safetensors"
    save_tensors(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(GesmError, match="truncated or not safetensors"):
        load_tensors(path)


def test_altered(tmp_path):
    path = tmp_path / "c.safetensors"
    save_tensors(path, TENSORS, {})
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(GesmError, match="was altered"):
        load_tensors(path)


def test_foreign_and_missing(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "f.safetensors")
    with pytest.raises(GesmError, match="not written by gesm"):
        load_tensors(tmp_path / "f.safetensors")
    with pytest.raises(GesmError, match="does not exist"):
        load_tensors(tmp_path / "none.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
