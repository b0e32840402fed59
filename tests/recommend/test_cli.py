import csv
import json

import pytest
from typer.testing import CliRunner

from gesm.cli import app

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
    found, expected = (json.loads((tmp_path / f"{n}.json").read_text())["test"] for n in "et")
    assert found == expected


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
    assert "later than those of the training" not in out.output


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
