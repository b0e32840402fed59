import argparse

import pytest

from benchmarks.machine import command, made, new_file


def test_command_keeps_quotes_and_leaves_places_out():
    arguments = ["--only", "epoch or memory", "--json", "/a/b.json", "--markdown=/a/b.md", "--rounds=3"]
    assert command("benchmarks", arguments) == "python -m benchmarks --only 'epoch or memory' --rounds=3"


def test_head_of_a_record():
    head = made("benchmarks.x", [])
    assert head["command"] == "python -m benchmarks.x"
    assert set(head["commit"]) == {"id", "dirty"}
    assert "torch" in head["machine"]["versions"]
    assert head["created"].endswith("+00:00")


def test_a_file_in_a_missing_folder_is_refused(tmp_path):
    assert new_file(str(tmp_path / "x.json")) == tmp_path / "x.json"
    with pytest.raises(argparse.ArgumentTypeError, match="make it first"):
        new_file(str(tmp_path / "none" / "x.json"))
