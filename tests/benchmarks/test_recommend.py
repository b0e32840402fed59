import json

import numpy as np
import pytest

from benchmarks import recommend, recommend_cells, recommend_drift, recommend_report
from benchmarks.recommend_cells import Dataset, origin, run_cell, settings_of
from gesm.errors import GesmError
from gesm.recommend import rolling_origins, simulate, targets

ARMS = ["popularity", "popularity-recent", "mf", "fixed-3", "hop-3"]
TINY = {"embedding_dim": 4, "lr": 0.05, "weight_decay": 1e-3, "batch_size": 200}


@pytest.fixture
def world(monkeypatch):
    table = simulate(40, 60, 10, 0.1, 0.1, 80)
    monkeypatch.setattr(recommend, "loaded", lambda name: table)
    monkeypatch.setitem(recommend_cells.DATASETS, "made", Dataset({}, TINY, TINY, 6))
    return table


class Here:
    """A pool that runs everything at once in this process, which knows the made data set."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, **_):
        pass


@pytest.fixture
def study(world, monkeypatch, tmp_path):
    monkeypatch.setattr(recommend, "ProcessPoolExecutor", Here)
    recommend.run_study(["made"], [0.5, 0.8], 2, ARMS, tmp_path, 1)
    return tmp_path


def test_origin_is_the_window_without_what_is_cold(world):
    place, window = origin(world, 0.8), rolling_origins(world, [0.8])[0]
    for kind in ("new", "repeat"):
        goal, whole = place.goals[kind], targets(window, kind)
        assert goal.user.numel() == whole.user.numel()
        np.testing.assert_array_equal(place.users[kind], whole.users.numpy())
        ids = place.train.item_ids[goal.item.numpy()]
        np.testing.assert_array_equal(np.sort(ids), np.sort(world.item_ids[whole.item.numpy()]))
    assert place.recent == 0  # of the last window before the origin, one step of time, from its first row to its last
    assert place.shares["cold_users"] == targets(window).cold_users


def test_steps_are_equal_whatever_the_number_of_pairs(world):
    assert settings_of("made", "hop-3", 1, 1000, 0).epochs == 2  # 5 batches a pass
    assert settings_of("made", "hop-3", 1, 150, 0).epochs == 6
    assert settings_of("made", "hop-3", 1, 150, 0, longer=2).epochs == 12
    assert settings_of("made", "popularity-recent", 0, 150, 7).recent == 7


def test_readings_of_a_cell(world):
    place = origin(world, 0.8)
    found, arrays = run_cell(place, settings_of("made", "hop-3", 0, place.shares["pairs"], 0))
    assert {"new/full", "new/expected", "new/1", "new/2", "repeat/full", "repeat/expected"} == set(arrays)
    assert arrays["new/full"].shape == (3, len(place.users["new"]))
    assert arrays["new/full"][0].mean() == pytest.approx(found["means"]["new/full"]["ndcg@20"], abs=1e-5)


def test_study_resumes_and_reports(study, capsys):
    cells = recommend.read_cells(study)
    assert [cell["seed"] for cell in cells] == [0] * 10 + [1] * 6  # popularity has no second seed
    lines = (study / "cells.jsonl").read_text().splitlines()
    (study / "cells.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:30])  # a killed writer
    recommend.run_study(["made"], [0.5, 0.8], 2, ARMS, study, 1)
    again = recommend.read_cells(study)
    assert again[:-1] == cells[:-1]
    assert again[-1]["means"] == cells[-1]["means"]

    capsys.readouterr()
    files = [study / "r.json", study / "r.md"]
    recommend.main(
        ["report", "--out", str(study), "--repetitions", "100", "--json", str(files[0]), "--markdown", str(files[1])]
    )
    record = json.loads(files[0].read_text())
    assert record["command"] == "python -m benchmarks.recommend report --repetitions 100"
    assert record["plan"]["made"]["steps"] == 6
    assert (record["plan"]["longer"], record["longer"]) == (1, 1)
    assert set(record) >= {"created", "commit", "machine"}
    data = record["datasets"]["made"]
    assert data["seeds"] == [0, 1]
    row = next(r for r in data["means"] if (r["kind"], r["arm"], r["reading"]) == ("new", "hop-3", "expected"))
    assert row["ndcg"]["interval"][0] <= row["ndcg"]["mean"] <= row["ndcg"]["interval"][1]
    pairs = {(tuple(d["a"]), tuple(d["b"])) for d in data["differences"]}
    assert set(recommend_report.PRIMARY) <= pairs
    assert "smallest detectable" in files[1].read_text()
    assert files[1].read_text().strip() == capsys.readouterr().out.strip()


def test_report_leaves_out_seeds_that_are_not_complete(study):
    cells = recommend.read_cells(study)[:-1]
    record = recommend_report.study(cells, lambda cell: recommend.array_file(study, cell), 100)
    assert record["datasets"]["made"]["seeds"] == [0]


def test_comparisons_are_over_the_origins_that_both_have(study):
    cells = [c for c in recommend.read_cells(study) if (c["arm"], c["q"]) != ("popularity", 0.8)]
    record = recommend_report.study(cells, lambda cell: recommend.array_file(study, cell), 100)
    found = {(d["a"][0], d["b"][0]): d["origins"] for d in record["datasets"]["made"]["differences"]}
    assert found["fixed-3", "popularity"] == [0.5]
    assert found["fixed-3", "popularity-recent"] == [0.5, 0.8]
    text = recommend_report.markdown(record)
    assert "| fixed-3 full | popularity full (1 of 2 origins) |" in text
    assert "| popularity (1 of 2 origins) | full |" in text


def test_a_study_of_more_steps_has_no_primary_comparisons(study, monkeypatch):
    monkeypatch.setattr(recommend_report, "PRIMARY_DATASETS", ("made",))
    cells, file = recommend.read_cells(study), lambda cell: recommend.array_file(study, cell)
    planned, longer = (recommend_report.study(cells, file, 100, factor) for factor in (1, 2))
    count = lambda record: sum(d["primary"] for d in record["datasets"]["made"]["differences"])  # noqa: E731
    assert (count(planned), count(longer)) == (2, 0)
    assert "(primary)" in recommend_report.markdown(planned)
    assert "With 2 times the steps of the plan" in recommend_report.markdown(longer)
    assert "(primary)" not in recommend_report.markdown(longer)


def test_drift(monkeypatch):
    monkeypatch.setattr(recommend_drift, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(recommend_drift, "SIZE", {"num_users": 30, "num_items": 40, "interactions_per_step": 60})
    monkeypatch.setattr(recommend_drift, "SETTINGS", {"embedding_dim": 4, "epochs": 2})
    record = recommend_drift.study([0.0, 0.5], 2, 1)
    assert len(record["rows"]) == 4
    assert "interest_drift" in recommend_drift.markdown(record)


def test_drift_pays_from_the_rate_after_which_all_intervals_are_above_zero():
    rows = [
        {"rate": r, "differences": {"d": {"interval": [low, 1]}}} for r, low in ((0, 0.1), (0.1, -0.1), (0.2, 0.1), (0.4, 0.2))
    ]
    assert recommend_drift._onset(rows, "d") == 0.2
    assert recommend_drift._onset(rows[:2], "d") is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda out: recommend.run_study(["x"], [0.5], 1, ["mf"], out, 1), "no data set x; choose from"),
        (lambda out: recommend.run_study(["made"], [0.5], 1, ["x"], out, 1), "no arm x; choose from"),
        (lambda out: recommend.run_study(["made"], [0.95], 1, ["mf"], out, 1), "origins in"),
        (lambda out: recommend.run_study(["made"], [0.5], 0, ["mf"], out, 1), "seeds, workers and longer"),
        (lambda out: recommend.read_cells(out), "holds no cells"),
        (lambda out: settings_of("made", "x", 0, 1, 0), "no arm 'x'"),
        (lambda out: recommend_drift.study([0.0], 1, 1), "seeds must be at least 2"),
    ],
)
def test_errors(world, tmp_path, call, message):
    with pytest.raises(GesmError, match=message):
        call(tmp_path)


def test_cells_of_other_settings_are_not_mixed(study, monkeypatch):
    monkeypatch.setitem(recommend_cells.DATASETS, "made", Dataset({}, TINY | {"lr": 0.1}, TINY, 6))
    with pytest.raises(GesmError, match="other settings of made"):
        recommend.run_study(["made"], [0.5], 1, ["mf"], study, 1)
