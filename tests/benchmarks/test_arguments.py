import sys

import pytest

from benchmarks import ahead, connected, kill_resume, recommend, sgc_setting


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (ahead, ["--workloads", "nope"], "no workload 'nope'; choose from 8 x 64 fp32"),
        (connected, ["--json", "none/x.json"], "make it first"),
        (connected, ["--json", "x.json", "--datasets", "cora"], "invalid choice: 'cora'"),
        (connected, ["--json", "x.json", "--workers", "0"], "--workers must be at least 1, got 0"),
        (kill_resume, ["--epochs", "1"], "--epochs 2"),
        (recommend, ["run", "--out", "x", "--origins", "x"], "takes numbers with commas between, got 'x'"),
        (recommend, ["drift", "--rates", "0,x"], "takes numbers with commas between, got '0,x'"),
        (recommend, ["drift", "--json", "none/x.json"], "make it first"),
        (sgc_setting, [], "--json"),
        (sgc_setting, ["--json", "none/x.json"], "make it first"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(module, arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    with pytest.raises(SystemExit, match="2"):
        module.main()
    assert message in capsys.readouterr().err


def test_ahead_says_that_it_needs_triton(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ahead"])
    monkeypatch.setattr(ahead, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        ahead.main()
    assert "pip install triton" in capsys.readouterr().err
