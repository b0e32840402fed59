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
    with pytest.raises(GesmError, match=r"cannot be read .* truncated or altered"):
        load_tensors(path)


def test_a_flipped_bit_anywhere(tmp_path):
    path = tmp_path / "c.safetensors"
    save_tensors(path, TENSORS, {"dataset": "cora", "num_classes": 7})
    content = bytearray(path.read_bytes())
    for position in range(len(content)):
        for bit in (1, 128):
            content[position] ^= bit
            path.write_bytes(content)
            with pytest.raises(GesmError, match="checksum does not match"):
                load_tensors(path)
            content[position] ^= bit
    path.write_bytes(content)
    assert load_tensors(path)[1] == {"dataset": "cora", "num_classes": 7}


def test_foreign_and_missing(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "f.safetensors")
    with pytest.raises(GesmError, match="gesm did not write it"):
        load_tensors(tmp_path / "f.safetensors")
    with pytest.raises(GesmError, match="does not exist"):
        load_tensors(tmp_path / "none.safetensors")
    with pytest.raises(GesmError, match="Is a directory"):
        load_tensors(tmp_path)


def test_safetensors_reads_it_too(tmp_path):
    save_tensors(tmp_path / "c.safetensors", TENSORS, {})
    tensors = safetensors.torch.load_file(tmp_path / "c.safetensors")
    assert all(torch.equal(tensors[name], t) for name, t in TENSORS.items())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
