import csv
import dataclasses
import json

import pytest
import torch
from typer.testing import CliRunner

from gesm.cli import app
from gesm.recommend import TrainedRecommender

TINY = ["--epochs", "3", "--dim", "4", "--K", "2"]


@pytest.fixture(autouse=True)
def _home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GESM_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["recommend", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def table(communities, tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "rows.csv"
    rows = zip(communities.user.tolist(), communities.item.tolist(), communities.time.tolist(), strict=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("who", "what", "time"), *rows])
    return path


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "r"
    run("train", table, "--user", "who", "--item", "what", *TINY, "--hops", "uniform", "--out", folder)
    return folder


def columns(table):
    return [table, "--user", "who", "--item", "what"]


def test_help():
    for command in ("train", "evaluate", "top"):
        assert command in run("--help").output
        assert run(command, "--help").output


def test_train_reports_the_last_rows(table, tmp_path):
    out = run("train", *columns(table), *TINY, "--test", "0.2", "-k", 5, "--json", tmp_path / "r.json")
    assert "trained on 720 rows of 40 users and 30 items" in out.stdout
    assert "ndcg@5" in out.stdout
    assert "cold 0; cold items 0" in out.stdout
    assert "Nothing was kept" in out.stdout
    summary = json.loads((tmp_path / "r.json").read_text())
    assert set(summary["test"]) == {"new", "repeat"}
    assert 0 < summary["test"]["new"]["ndcg@5"] < 1
    assert summary["settings"]["epochs"] == 3
    assert summary["test_share"] == 0.2
    assert "torch" in summary["versions"]


@pytest.mark.parametrize("model", ["mixture", "mf", "popularity"])
def test_every_model(model, table):
    assert f"{model} on" in run("train", *columns(table), "--model", model, "--epochs", 2, "--set", "lr=0.1").stdout


def test_train_without_test_or_times(table):
    out = run("train", *columns(table), "--time", "none", "--test", 0, *TINY)
    assert "trained on 900 rows" in out.stdout
    assert "ndcg" not in out.stdout


def test_evaluate_repeats_the_test(trained, table, tmp_path):
    out = run("evaluate", trained, *columns(table), "--json", tmp_path / "e.json")
    assert "90 of 900 rows are later than the training" in out.stdout
    again = run("train", *columns(table), *TINY, "--hops", "uniform", "--json", tmp_path / "t.json")
    assert again.stdout
    found, expected = (json.loads((tmp_path / f"{n}.json").read_text()) for n in "et")
    for key in ("test", "settings", "versions"):
        assert found[key] == expected[key]


def test_top_to_screen_and_file(trained, tmp_path):
    assert "items, best first" in run("top", trained, "--user", 3, "--user", 5, "-k", 4).stdout
    run("top", trained, "--user", 3, "--user", 77, "--cold", "popularity", "-k", 4, "--out", tmp_path / "top.csv")
    with (tmp_path / "top.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["user"] for row in rows] == ["3"] * 4 + ["77"] * 4
    assert [row["rank"] for row in rows[:4]] == list("1234")


def test_warm_start(trained, table, tmp_path):
    newer = tmp_path / "newer.csv"
    newer.write_text("who,what,time\n3,99,5000\n200,4,5001\n" + "".join(f"{u},{u % 30},{6000 + u}\n" for u in range(40)))
    out = run("train", *columns(newer), "--warm", trained, "--epochs", 2, "--test", 0.5, "--out", tmp_path / "w")
    assert "of 41 users and 31 items" in out.stdout
    assert "99" in run("top", tmp_path / "w", "--user", 200, "-k", 30).stdout
    after = TrainedRecommender.load(tmp_path / "w")
    assert (len(after.train), after.settings.epochs) == (810 + 21, 2)
    assert after.train.time.max() == 6018
    assert "ndcg@10" in out.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-k", 31], "k is 31, but only 30 items can be ranked"),
        (["--out", "/proc/none"], "--out /proc/none: cannot be written"),
        (["--user", "²", "--item", 1], "no column '²'"),
    ],
)
def test_what_cannot_be_reported_or_kept_is_said_before_training(options, message, table, monkeypatch):
    monkeypatch.setattr("gesm.recommend.fit", lambda *_: pytest.fail("it was trained"))
    out = run("train", *columns(table), *TINY, *options, code=2)
    assert message in " ".join(out.stderr.split())


def test_an_interruption_is_said(table, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gesm.recommend.fit", interrupt)
    assert "interrupted; gesm train" in run("train", *columns(table), *TINY, code=130).stderr


def test_a_named_table_and_a_file_go_together(tmp_path, table, communities, monkeypatch):
    weighted = dataclasses.replace(communities, weight=torch.ones(len(communities)))
    monkeypatch.setattr("gesm.recommend.load", lambda *_: weighted)
    run("train", "ml-100k", *TINY, "--out", tmp_path / "r")
    out = run("evaluate", tmp_path / "r", *columns(table))
    assert "are later than the training" in out.stdout


def newer_rows(path, last=6000):
    path.write_text("who,what,time\n" + "".join(f"{u},{u * 7 % 30},{last + u}\n" for u in range(40)))
    return path


def test_a_warm_start_is_read_as_its_settings_say(trained, tmp_path):
    newer = newer_rows(tmp_path / "newer.csv")
    now, later = tmp_path / "now.json", tmp_path / "later.json"
    warm = ["--warm", trained, "--epochs", 2, "--test", 0.5, "--set", "inference=1"]
    run("train", *columns(newer), *warm, "--out", tmp_path / "w", "--json", now)
    assert TrainedRecommender.load(tmp_path / "w").model.inference == 1
    run("evaluate", tmp_path / "w", *columns(newer), "--json", later)
    assert json.loads(now.read_text())["test"] == json.loads(later.read_text())["test"]


def test_a_warm_start_with_early_rows_ends_before_the_training(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("gesm.recommend.refit", lambda *_: pytest.fail("it was trained"))
    early = newer_rows(tmp_path / "early.csv", 100)
    out = run("train", *columns(early), "--warm", trained, "--epochs", 2, code=2)
    assert "the rows to predict must be later than those of the training" in " ".join(out.stderr.split())


def test_a_warm_start_with_the_whole_log_takes_its_new_rows(trained, table, tmp_path):
    whole = tmp_path / "whole.csv"
    whole.write_text(table.read_text() + "3,1,5000\n3,2,5001\n")
    first = ["--epochs", 1, "--test", 0, "--out", tmp_path / "w"]
    out = run("train", *columns(whole), "--warm", trained, *first)
    assert "92 of 902 rows are new" in out.stdout.replace("\n", " ")
    assert "trained on 902 rows" in out.stdout
    out = run("train", *columns(whole), "--warm", tmp_path / "w", "--epochs", 1, code=2)
    assert "was trained on all rows of" in " ".join(out.stderr.split())


def test_newer_rows_without_leading_zeros_belong_to_ids_with_them(tmp_path):
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("who,what,time\n" + "".join(f"{u % 20:02},{u * 7 % 30:02},{u}\n" for u in range(90)))
    second.write_text("who,what,time\n" + "".join(f"{u},{u + 10},{100 + u}\n" for u in range(10, 20)))
    run("train", *columns(first), *TINY, "--test", 0, "--out", tmp_path / "r")
    out = run("train", *columns(second), "--warm", tmp_path / "r", "--epochs", 1, "--test", 0)
    assert "trained on 100 rows of 20 users and 30 items" in out.stdout
    assert "10 of 10 rows are later" in run("evaluate", tmp_path / "r", *columns(second)).stdout
    assert "07" in run("top", tmp_path / "r", "--user", "07").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nothing"], "'nothing' is neither a file nor a data set; data sets: "),
        (["train", "nothing.csv"], "does not exist"),
        (["train", "TABLE"], "no column 'user', 'item'; there are 'who', 'what', 'time'"),
        (["train", "TABLE+", "--test", "1"], "must be shares >= 0"),
        (["train", "TABLE+", "--time", "none"], "read without times, and so has no last rows to test on"),
        (["train", "TABLE+", "--model", "svd"], "model must be one of lightgcn"),
        (["train", "TABLE+", "--set", "lr"], "expected KEY=VALUE"),
        (["train", "TABLE+", "--set", "lr=["], "is not a number, a word"),
        (["train", "TABLE+", "--set", "rate=1"], "options: no key 'rate'"),
        (["train", "TABLE+", "--out", "TRAINED"], "already holds a recommender"),
        (["train", "TABLE+", "--warm", "nowhere"], "nowhere holds no recommender"),
        (["train", "TABLE+", "--warm", "TRAINED", "--dim", "5"], "a warm start keeps the model; leave out embedding_dim"),
        (["train", "TABLE+", "--warm", "TRAINED", "--set", "edge_dropout=.5"], "keeps the model; leave out edge_dropout"),
        (["train", "TABLE+", "--json", "no/such/file.json"], "the folder does not exist"),
        (["evaluate", "nowhere", "TABLE+"], "nowhere holds no recommender"),
        (["evaluate", "TRAINED", "EARLY"], "is later than the training"),
        (["top", "TRAINED", "--user", "77"], "knows nothing of user 77"),
        (["top", "TRAINED", "--user", "3", "--out", "x.txt"], "recommendations go to .csv, got 'x.txt'"),
        (["top", "TRAINED", "--user", "3", "--cold", "no"], "cold must be 'error' or 'popularity'"),
    ],
)
def test_bad_input_is_one_message_and_code_2(arguments, message, table, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    early = table.parent / "early.csv"
    early.write_text("user,item,time\n1,2,3\n")
    names = {"TABLE": [table], "TABLE+": columns(table), "TRAINED": [trained], "EARLY": [early]}
    full = [part for argument in arguments for part in names.get(argument, [argument])]
    assert message in " ".join(run(*full, code=2).stderr.split())
    assert not list(tmp_path.iterdir())
