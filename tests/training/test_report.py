import io
import json
import math

import pytest
import scipy.stats
from rich.console import Console

from gesm.datasets import synthetic
from gesm.errors import GesmError
from gesm.training import Epoch, Recipe, Result, Task, summarize
from gesm.training.progress import Progress
from gesm.training.report import curves, table
from gesm.training.result import interval


def result(seed=0, test=0.8, **other):
    values = {
        "dataset": "cora",
        "model": "gesm",
        "protocol": "public",
        "metric": "accuracy",
        "device": "cpu",
        "selected_epoch": 7,
        "epochs": 9,
        "val": 0.79,
        "val_loss": 1.0,
        "epoch_ms": 3.0 + seed,
        "peak_memory_mb": 100.0 + seed,
    }
    return Result(seed=seed, test=test, **{**values, **other})


def text(renderable):
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return console.file.getvalue()


def test_interval_is_students():
    runs = [0.80, 0.82, 0.81, 0.85]
    got = interval(runs)
    low, high = scipy.stats.t.interval(0.95, 3, loc=got["mean"], scale=scipy.stats.sem(runs))
    assert (got["mean"] - got["ci95"], got["mean"] + got["ci95"]) == pytest.approx((low, high))
    assert got["std"] == pytest.approx(scipy.stats.tstd(runs))
    assert interval([0.5]) == {"mean": 0.5, "std": None, "ci95": None, "runs": [0.5]}


def test_summary_is_json_with_the_promised_fields():
    summary = summarize([result(0, 0.80), result(1, 0.82), result(2, 0.84)], Recipe())
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert {"dataset", "model", "protocol", "metric", "val", "test", "epoch_ms", "peak_memory_mb", "versions"} <= {*summary}
    assert summary["recipe"] == Recipe().to_dict()
    assert summary["test"]["runs"] == [0.80, 0.82, 0.84]
    assert summary["test"]["mean"] == pytest.approx(0.82)
    assert (summary["seed"], summary["epoch_ms"], summary["peak_memory_mb"]) == ([0, 1, 2], 4.0, 102.0)
    assert {"gesm", "python", "torch", "torch_geometric"} == {*summary["versions"]}


def test_versions_are_those_of_the_runs(tmp_path):
    old = {"torch": "2.9"}
    assert summarize([result(0, 0.8, versions=old)], Recipe())["versions"] == old
    (tmp_path / "result.json").write_text(json.dumps(summarize([result(0, 0.8, versions=old)], Recipe())))
    read = Result.load(tmp_path / "result.json")
    assert summarize([read, result(1, 0.8)], Recipe())["versions"] == [old, result(1, 0.8).versions]


def test_a_result_reads_back(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(summarize([result(3)], Recipe())))
    assert Result.load(path) == result(3)
    path.write_text("{}")
    with pytest.raises(GesmError, match="is not the result of a gesm run"):
        Result.load(path)


def test_table():
    shown = text(table(summarize([result(0, 0.80), result(1, 0.82), result(2, 0.84, selected_epoch=8)], Recipe())))
    for part in (
        "gesm on cora, public split: accuracy in %",
        "82.00 ± 2.00",
        "77.03 to 86.97",
        "4.0",
        "102",
        "seed 0 to 2, selected epoch 7 to 8",
    ):
        assert part in shown
    assert "80.00 ±" not in text(table(summarize([result(peak_memory_mb=None)], Recipe())))


def test_curves_are_a_repeatable_png(recipe):
    history = [Epoch(i, 2 / i, 3 / i if i % 2 else math.nan, 0.1 * i if i % 2 else math.nan, 0.01) for i in range(1, 6)]
    task = Task(synthetic(), recipe)
    image = curves(history, 3, task)
    assert image.startswith(b"\x89PNG")
    assert image == curves(history, 3, task)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=160)
    with Progress(9, 2, console) as progress:
        for i in range(1, 10):
            progress.on_epoch(Epoch(i, 1.0, math.nan if i % 2 else 2.0, math.nan if i % 2 else 0.5, 0.01))
        assert progress.best == 0.5
        progress.on_run(result())
    shown = console.file.getvalue()
    assert "run 1/2  seed 0  val 79.00  test 80.00  epoch 7 of 9  3.0 ms/epoch" in shown
    assert terminal or shown.count("\n") == 1
