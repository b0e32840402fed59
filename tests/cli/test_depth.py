import json

import pytest
from typer.testing import CliRunner

from gesm.cli import app


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GESM_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["depth", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


TINY = ["citeseer", "--models", "sgc", "--depths", "1,2", "--epochs", "2", "--workers", "1", "--runs", "1"]


def test_depth_writes_what_it_promises_and_resumes(tmp_path):
    result = run(*TINY, "--out", tmp_path / "d", "--json", tmp_path / "d.json")
    assert "Depth on citeseer" in result.stdout
    assert "run 6/6  sgc dropedge K=1 seed 0  full" in result.stderr
    names = {p.name for p in (tmp_path / "d").iterdir()}
    assert names == {"study.json", "runs.jsonl", "depth.json", "depth.png", "depth.pdf"}
    summary = json.loads((tmp_path / "d.json").read_text())
    assert summary == json.loads((tmp_path / "d" / "depth.json").read_text())
    assert len(summary["cells"]) == 6
    again = run(*TINY[:-1], "2", "--arms", "hop", "--out", tmp_path / "d", "--resume")
    assert "run 4/4" in again.stderr
    assert len((tmp_path / "d" / "runs.jsonl").read_text().splitlines()) == 8


def test_without_a_folder_nothing_is_kept():
    assert "Nothing was kept" in run(*TINY, "--arms", "fixed").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cora2"], "cora2"),
        (["citeseer", "--depths", "2,x"], "--depths takes whole numbers, as in 2,4,8; got 'x'"),
        (["citeseer", "--models", "resnet"], "models: there is no 'resnet'"),
        (["citeseer", "--arms", ""], "arms must be a list without repetition"),
        (["citeseer", "--resume"], "resume needs out (--out)"),
    ],
)
def test_bad_input_gets_clear_errors(arguments, message):
    assert message in run(*arguments, code=2).stderr
