import json
import re
import shutil
import sys
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from benchmarks import jsonl
from benchmarks.accuracy import __main__ as program
from benchmarks.accuracy import ablation, cells, costs, lookup, search, spaces, table, workers
from benchmarks.accuracy.columns import COLUMNS, LOW_LABELS, MODELS, OWN, PPI, Column, parse
from gesm.datasets import registry
from gesm.errors import DivergedError, GesmError
from gesm.training import Recipe

CITESEER = Column("citeseer", "public")


class Here:
    """An executor that runs everything at once in this process."""

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except GesmError as error:
            future.set_exception(error)
        return future


def record(recipe, seed, read_test):
    """A made run: validation likes little dropout, and the test set the opposite."""
    if recipe["lr"] == 0.03:
        raise DivergedError("the loss became nan")
    made = {
        "dataset": "citeseer",
        "model": recipe["model"],
        "protocol": "public",
        "metric": "accuracy",
        "device": "cpu",
        "seed": seed,
        "selected_epoch": 3,
        "epochs": 9,
        "val": 0.8 - recipe["dropout"] / 10 + seed / 1000,
        "val_loss": 1.0,
        "epoch_ms": 2.0,
        "peak_memory_mb": 100.0,
    }
    return made | {"test": recipe["dropout"] + seed / 1000} if read_test else made


@pytest.fixture
def trained(monkeypatch):
    """Counts made runs instead of making real ones; `left` of them, then the machine is switched off."""
    seen = []

    def train(dataset, protocol, recipe, seed, read_test):
        if len(seen) == train.left:
            raise KeyboardInterrupt
        seen.append((recipe["dropout"], seed))
        return record(recipe, seed, read_test)

    train.left, train.seen = 10**6, seen
    monkeypatch.setattr(search, "train", train)
    monkeypatch.setattr(cells, "train", train)
    return train


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("column", [c for c in (*COLUMNS, *LOW_LABELS) if c != PPI], ids=lambda column: column.slug)
def test_every_space_holds_recipes_and_the_first(column, model):
    choices, first = spaces.space(column, model), spaces.first(column, model)
    assert set(first) == set(choices)
    assert all(first[key] in values for key, values in choices.items())
    base = spaces.base_recipe(column, model)
    for key, values in choices.items():
        for value in values:
            base.replace(**{key: value})


def test_the_budget_of_a_column_is_that_of_all_its_models():
    few, photo, shares = Column("cora", "1%"), Column("photo", "shchur"), Column("photo", "60/20/20")
    assert [spaces.trials(column) for column in (few, CITESEER, photo, shares)] == [20, 20, 8, 8]
    assert [spaces.seeds(column) for column in (few, CITESEER, photo, shares)] == [4, 2, 2, 1]
    recipes = [spaces.base_recipe(photo, model) for model in MODELS]
    assert {(recipe.epochs, recipe.patience, recipe.eval_every) for recipe in recipes} == {(500, 50, 2)}


def test_a_search_keeps_no_test_figure_and_chooses_by_validation(tmp_path, trained):
    file = tmp_path / "gcn.jsonl"
    recipe = search.search(CITESEER, "gcn", file, Here(), 6, 2)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert "test" not in file.read_text()
    assert [line["trial"] for line in lines[:6]] == list(range(6))
    assert len(lines) == 6 + 3
    assert lines[0]["params"] == spaces.first(CITESEER, "gcn")
    assert [line["seeds"] for line in lines] == [[0, 1]] * 6 + [[2, 3]] * 3
    tried = {line["params"]["dropout"] for line in lines if line["val"] != [0.0, 0.0]}
    assert recipe.dropout == min(tried)
    assert recipe == search.chosen(file)
    assert len({json.dumps(line["params"], sort_keys=True) for line in lines[:6]}) == 6
    file.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    with pytest.raises(GesmError, match="holds no finished search"):
        search.chosen(file)


def test_what_is_shipped_won_its_search():
    searched = [(c, m) for c in (*COLUMNS, *LOW_LABELS) for m in MODELS if program.search_file(program.RESULTS, c, m).exists()]
    assert searched
    for column, model in searched:
        file = program.search_file(program.RESULTS, column, model)
        assert program.shipped(column, model) == search.chosen(file)
        trials = len({line["trial"] for line in jsonl.read(file)})
        if model == "mixed_mlp" and column in (Column("cora", "public"), CITESEER):
            continue  # its first trial was a random one (docs/accuracy.md)
        own = program.own_file(program.RESULTS, column, model).exists()
        search.search(column if own else column.searched, model, file, None, trials, spaces.seeds(column))  # goes on: done


def test_the_readme_has_the_table_of_the_committed_cells(tmp_path):
    folder, readme = tmp_path / "accuracy", tmp_path / "README.md"
    shutil.copytree(program.RESULTS, folder)
    shutil.copy(program.README, readme)
    table.write_table(folder, readme)
    assert readme.read_text() == program.README.read_text()
    assert (folder / "accuracy.md").read_text() == (program.RESULTS / "accuracy.md").read_text()


@pytest.mark.parametrize(
    ("model", "switch", "off", "idle"),
    [
        ("gsm", {"structure_weight": [0.0, 1.0]}, 0.0, {"structure_beta": [0.5, 1.0]}),
        ("mixed_mlp", {"hop_sampling": ["none", "uniform"]}, "none", {"hop_per": ["forward", "node"]}),
    ],
)
def test_no_setting_is_tried_twice_in_effect(tmp_path, trained, monkeypatch, model, switch, off, idle):
    small = switch | idle | {"dropout": [0.3, 0.5]}
    monkeypatch.setattr(search, "space", lambda *_: small)
    monkeypatch.setattr(search, "first", lambda *_: {key: values[0] for key, values in small.items()})
    search.search(CITESEER, model, tmp_path / "s.jsonl", Here(), 6, 1)
    tried = [line["params"] for line in jsonl.read(tmp_path / "s.jsonl") if line["seeds"] == [0]]
    (key,), (other,) = switch, idle
    assert len({(p[key], p[key] != off and p[other], p["dropout"]) for p in tried}) == 6


def test_finalists_differ_in_effect():
    same = {"structure_weight": 0.0, "lr": 0.1}
    params = [same | {"structure_beta": 0.5}, same | {"structure_beta": 1.0}, *(same | {"lr": lr} for lr in (1, 2, 3, 4, 5, 6))]
    lines = [{"trial": i, "val": [1 - i / 10], "val_loss": [1.0], "params": p} for i, p in enumerate(params)]
    assert [line["trial"] for line in search._finalists(lines)] == [0, 2, 3, 4]


def test_a_killed_search_goes_on(tmp_path, trained):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    search.search(CITESEER, "sgc", whole, Here(), 4, 1)
    done = len(trained.seen)
    trained.left = done + 2
    with pytest.raises(KeyboardInterrupt):
        search.search(CITESEER, "sgc", broken, Here(), 4, 1)
    with pytest.raises(GesmError, match="holds no finished search"):
        search.chosen(broken)
    kept = broken.read_text()
    trained.left = 10**6
    search.search(CITESEER, "sgc", broken, Here(), 4, 1)
    assert kept
    assert broken.read_text() == whole.read_text()


def test_a_line_that_was_cut_off_is_made_again(tmp_path, trained):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    search.search(CITESEER, "sgc", whole, Here(), 4, 1)
    broken.write_text(whole.read_text()[:-40])
    search.search(CITESEER, "sgc", broken, Here(), 4, 1)
    assert broken.read_text() == whole.read_text()


def test_the_table_leaves_out_starting_values(tmp_path, monkeypatch):
    assert program.was_chosen(tmp_path, CITESEER, "gesm")
    assert program.was_chosen(tmp_path, Column("citeseer", "1%"), "gesm")
    assert program.was_chosen(tmp_path, PPI, "gesm")
    assert not program.was_chosen(tmp_path, PPI, "sgc")
    monkeypatch.setattr(program, "RESULTS", tmp_path)
    assert not program.was_chosen(tmp_path, CITESEER, "gesm")
    assert program.shipped(CITESEER, "gesm")


def test_unfinished_searches_are_left_out(tmp_path, trained, monkeypatch, capsys):
    monkeypatch.setattr(program, "RECIPES", tmp_path / "recipes")
    (tmp_path / "search").mkdir()
    for column in (Column("photo", "shchur"), Column("cs", "shchur")):
        search.search(column, "sgc", program.search_file(tmp_path, column, "sgc"), Here(), 2, 1)
    file = program.search_file(tmp_path, Column("photo", "shchur"), "sgc")
    file.write_text(file.read_text().splitlines()[0] + "\n")
    monkeypatch.setattr(sys, "argv", ["accuracy", "recipes", "--columns", "photo,cs,physics", "--out", str(tmp_path)])
    program.main()
    assert "holds no finished search" in capsys.readouterr().out
    assert sorted(path.parent.name for path in (tmp_path / "recipes").rglob("*.yaml")) == ["cs", "physics"]


def test_a_search_of_its_own_comes_before_that_of_the_smaller_graph(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(program, "search", lambda column, model, file, *_: file.write_text("") or made.append((column, file)))
    for own in ([], ["--own"]):
        arguments = ["search", "--columns", "computers", "--models", "sgc", "--out", str(tmp_path), *own]
        monkeypatch.setattr(sys, "argv", ["accuracy", *arguments])
        program.main()
        assert program.search_file(tmp_path, Column("computers", "shchur"), "sgc") == made[-1][1]
    assert [column.name for column, _ in made] == ["photo:shchur", "computers:shchur"]
    assert [file.stem for _, file in made] == ["photo-shchur-sgc", "computers-shchur-sgc"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"lr": 0.2', '"lr": 0.05', "began with another setting than now; move the file away"),
        ('"K": 2', '"K": 99', "searched another space: K=99; move the file away"),
        ('"patience": 100', '"patience": 99', "searched with other fixed settings than now"),
        ('"feature_normalization": "row", "K"', '"K"', "searched no feature_normalization; move the file away"),
        ('"seeds": [0]', '"seeds": [0, 1]', "has 2 seeds behind a trial, not 1"),
    ],
)
def test_a_search_of_something_else_is_refused(tmp_path, trained, old, new, message):
    file = tmp_path / "sgc.jsonl"
    search.search(CITESEER, "sgc", file, Here(), 2, 1)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(GesmError, match=message):
        search.search(CITESEER, "sgc", file, Here(), 4, 1)


def test_a_killed_cell_goes_on_and_another_recipe_starts_anew(tmp_path, trained):
    recipe = Recipe.for_dataset("citeseer", "gsm").replace(dropout=0.5)
    trained.left = 2
    with pytest.raises(KeyboardInterrupt):
        cells.run_cell(CITESEER, "gsm", recipe, tmp_path, Here(), 4)
    trained.left = 10**6
    cell = cells.run_cell(CITESEER, "gsm", recipe, tmp_path, Here(), 4)
    assert [seed for _, seed in trained.seen] == [0, 1, 0, 1, 2, 3]  # this executor runs all before the first is kept
    assert cell["test"]["mean"] == pytest.approx(0.5015)
    assert cell["command"] == ("gesm train citeseer --model gsm --set dropout=0.5 --protocol public --runs 4")
    assert cells.run_cell(CITESEER, "gsm", recipe, tmp_path, Here(), 4) == cell
    assert len(trained.seen) == 6
    again = cells.run_cell(CITESEER, "gsm", recipe.replace(dropout=0.2), tmp_path, Here(), 2)
    assert again["recipe"]["dropout"] == 0.2
    assert len(trained.seen) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["citeseer-public-gsm.json"]


def test_runs_that_were_kept_are_not_made_again(tmp_path, trained):
    recipe = Recipe.for_dataset("citeseer", "gsm").replace(dropout=0.5)
    line = {"seed": 0, "recipe": recipe.to_dict(), "record": record(recipe.to_dict(), 0, True)}
    (tmp_path / "citeseer-public-gsm.jsonl").write_text(json.dumps(line) + "\n")
    cells.run_cell(CITESEER, "gsm", recipe, tmp_path, Here(), 2)
    assert trained.seen == [(0.5, 1)]
    file = tmp_path / "citeseer-public-gsm.json"
    cell = json.loads(file.read_text())
    del cell["recipe"]["accelerate"]  # a key that came after the cell
    file.write_text(json.dumps(cell))
    assert cells.run_cell(CITESEER, "gsm", recipe, tmp_path, Here(), 2) == cell


def test_a_run_that_fails_is_named(tmp_path, trained):
    recipe = Recipe.for_dataset("citeseer", "gsm").replace(lr=0.03)
    with pytest.raises(GesmError, match="citeseer gsm, seed 0: the loss became nan"):
        cells.run_cell(CITESEER, "gsm", recipe, tmp_path, Here(), 2)


def test_the_table(tmp_path, trained, capsys):
    for model, rate in (("gesm", 0.5), ("gsm", 0.7), ("gcn", 0.6)):
        for column in (CITESEER, Column("cora", "1%")) if model != "gcn" else (CITESEER,):
            cells.run_cell(column, model, Recipe(model=model, dropout=rate), tmp_path, Here(), 3)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- accuracy -->\nold\n<!-- /accuracy -->\nafter\n")
    table.write_table(tmp_path, readme)
    assert re.fullmatch(
        r"before\n<!-- accuracy -->\nPublic splits:\n\n\| .* \|\n\nFew labels.* \|\n\n<!-- /accuracy -->\nafter\n",
        readme.read_text(),
        re.S,
    )
    text = (tmp_path / "accuracy.md").read_text()
    assert "| gesm | 50.10 ± 0.10 (0.25) |" in text
    assert "| gsm | **70.10 ± 0.10 (0.25)** |" in text
    assert "| best, minus the best peer | -10.00 ± 0.00 (gesm, gcn of 1) |" in text
    assert "cora:1%, 3 runs" in text
    assert "in MB" not in text
    assert "| GESM, published | 72.6 |" in text
    assert text in capsys.readouterr().out
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "accuracy.pdf").read_bytes().startswith(b"%PDF")


def test_the_best_of_a_column_is_chosen_on_validation(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(program, "RECIPES", tmp_path / "recipes")
    made = {model: Recipe(model=model, dropout=rate) for model, rate in (("gesm", 0.5), ("gsm", 0.7), ("gcn", 0.2))}
    for model, recipe in made.items():
        cells.run_cell(Column("cora", "1%"), model, recipe, tmp_path, Here(), 2)
    monkeypatch.setattr(sys, "argv", ["accuracy", "recipes", "--columns", "cora,low-labels", "--out", str(tmp_path)])
    program.main()
    (file,) = (tmp_path / "recipes").rglob("*.yaml")
    assert file.relative_to(tmp_path / "recipes").as_posix() == "cora/1%/best.yaml"
    assert Recipe.load(file) == made["gesm"]  # test prefers gsm, and gcn is no model of gesm's
    tied = {
        name: {"val": {"mean": mean}, "val_loss": {"mean": loss}}
        for name, mean, loss in (("a", 0.1 + 0.2, 2.0), ("b", 0.3, 1.0))
    }
    assert cells.chosen_on_validation(tied) == "b"


@pytest.mark.parametrize("column", [*COLUMNS, *LOW_LABELS], ids=lambda column: column.slug)
def test_the_shipped_best_is_what_the_committed_cells_chose(column):
    own = {model: cell for model in OWN if (cell := cells.read_cell(program.RESULTS, column, model))}
    assert cells.is_of(own[cells.chosen_on_validation(own)], program.shipped(column, "best"))


def test_ppi_stands_beside_its_lookup(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(cells, "train", lambda *arguments: record(*arguments[2:]) | {"metric": "micro_f1"})
    cells.run_cell(PPI, "gesm", Recipe(dropout=0.1), tmp_path, Here(), 2)
    table.write_table(tmp_path)
    text = (tmp_path / "accuracy.md").read_text()
    assert "| GESM, published | 97.6 |" in text
    assert "verbatim" not in text
    (tmp_path / "ppi-lookup.json").write_text((program.RESULTS / "ppi-lookup.json").read_text())
    table.write_table(tmp_path)
    text = (tmp_path / "accuracy.md").read_text()
    assert "99.5 % of the test nodes have a row of labels that occurs verbatim in training" in text
    assert "46.2 (all ones), 55.1 (lookup by features), 99.7 (lookup by gene)" in text


def test_costs_are_measured_once_a_processor_and_leave_with_their_cell(tmp_path, trained, monkeypatch):
    recipe = Recipe(model="gsm", hidden_channels=4, K=2)
    costs.complete_cost(CITESEER, "gsm", tmp_path, Here())
    assert not list(tmp_path.iterdir())
    cells.run_cell(CITESEER, "gsm", recipe, tmp_path, Here(), 2)
    costs.complete_cost(CITESEER, "gsm", tmp_path, Here())
    cost = cells.read_cell(tmp_path, CITESEER, "gsm")["cost"]
    assert min(cost["epoch_ms"], cost["peak_memory_mb"]) > 0
    measure = costs.measure
    monkeypatch.setattr(costs, "measure", None)
    costs.complete_cost(CITESEER, "gsm", tmp_path, Here())
    table.write_table(tmp_path)
    text = (tmp_path / "accuracy.md").read_text()
    assert f"| gsm | {cost['epoch_ms']:.3g} / {cost['peak_memory_mb']:.0f} |" in text
    assert f"with one thread, on {cost['processor']}." in text
    there = {"epoch_ms": 1.0, "peak_memory_mb": 2.0}
    text = table._costs(
        {("gsm", CITESEER): {"cost": cost}, ("gcn", CITESEER): {"cost": cost}, ("gat", CITESEER): {"cost": there}}
    )
    assert f"on {cost['processor']}, a processor not written down (*)." in text
    assert "| gat | 1 / 2* |" in text
    monkeypatch.setattr(costs, "measure", measure)
    monkeypatch.setattr(costs, "describe", lambda: {"processor": "another"})
    costs.complete_cost(CITESEER, "gsm", tmp_path, Here())
    assert cells.read_cell(tmp_path, CITESEER, "gsm")["cost"]["processor"] == "another"
    cells.run_cell(CITESEER, "gsm", recipe.replace(K=3), tmp_path, Here(), 2)
    assert "cost" not in cells.read_cell(tmp_path, CITESEER, "gsm")


def test_an_ablation_changes_one_part_at_a_time(tmp_path, trained, monkeypatch):
    recipe = Recipe(dropout=0.3, attention_dropout=0.7, structure_weight=1.0)
    parts = ablation.variants(recipe)
    assert all(recipe.replace(**change) != recipe for change in parts.values())
    assert {"no attention (GSM of the same width)", "additive score", "no structure loss", "K = 2", "twice the heads"} < {
        *parts
    }
    assert "K = 14" not in parts
    assert "no input dropout" not in parts
    assert ablation.ablation_table(CITESEER, "gesm", recipe, tmp_path) == ""
    monkeypatch.setattr(Recipe, "for_dataset", lambda *_, **__: recipe)
    ablation.ablate(CITESEER, "gesm", recipe, tmp_path, Here(), 3, only=["no residual", "no alignment"])
    assert len(ablation.ablation_table(CITESEER, "gesm", recipe, tmp_path).splitlines()) == 3 + 1
    ablation.ablate(CITESEER, "gesm", recipe, tmp_path, Here(), 3)
    text = ablation.ablation_table(CITESEER, "gesm", recipe, tmp_path)
    assert len(text.splitlines()) == 3 + len(parts)
    assert "| additive score | 30.10 ± 0.10 | +0.00 ± 0.00 |" in text
    cell = cells.read_cell(tmp_path, CITESEER, "gesm-additive-score")
    assert cell["command"] == "gesm train citeseer --model gesm --set score=additive --protocol public --runs 3"
    table.write_table(tmp_path)
    assert "## gesm on citeseer, one part changed" in (tmp_path / "accuracy.md").read_text()
    assert "heads" not in " ".join(ablation.variants(Recipe(model="gsm")))


def test_a_real_run_with_and_without_the_test_set():
    recipe = Recipe(model="sgc", K=1, epochs=2, patience=2).to_dict()
    result = workers.train("citeseer", "public", recipe, 0, True)
    assert 0 < result["test"] < 1
    assert workers.train("citeseer", "public", recipe, 0, False).keys() == result.keys() - {"test"}


def test_columns():
    assert parse("all") == list(COLUMNS)
    assert parse("low-labels,cora") == [*LOW_LABELS, Column("cora", "public")]
    assert parse("photo, photo:60/20/20") == [Column("photo", "shchur"), Column("photo", "60/20/20")]
    assert all(column.protocol in registry()[column.dataset].protocols for column in (*COLUMNS, *LOW_LABELS))
    for wrong in ("reddit", "cora:60/20/20"):
        with pytest.raises(GesmError, match=f"there is no column '{wrong}'; choose from all, low-labels, cora"):
            parse(wrong)


def test_the_program(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "RECIPES", tmp_path / "recipes")
    folder = tmp_path / "search"
    folder.mkdir()
    line = {"val": [0.7], "val_loss": [1.0], "params": {}, "recipe": {"model": "sgc", "K": 5}}
    for protocol in ("shchur", "60-20-20"):
        lines = [json.dumps(line | {"trial": 0, "seeds": [seed]}) + "\n" for seed in (0, 1)]
        (folder / f"photo-{protocol}-sgc.jsonl").write_text("".join(lines))
    arguments = ["recipes", "--columns", "photo,computers:60/20/20", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["accuracy", *arguments])
    program.main()
    written = sorted(str(path.relative_to(tmp_path / "recipes")) for path in (tmp_path / "recipes").rglob("*.yaml"))
    assert written == ["computers/60-20-20/sgc.yaml", "photo/sgc.yaml"]
    for arguments, message in (
        (["--columns", "reddit"], "there is no column 'reddit'"),
        (["--models", "gcm"], "there is no model 'gcm'; choose from gesm, gesm_consistency"),
        (["--columns", "ppi"], "ppi is not searched: its recipe was chosen by hand"),
        (["--runs", "1"], "--runs must be at least 2, got 1"),
        (["--models", "gcn"], "gcn is not ablated; choose from gesm"),
        (["--variants", "no edges"], "these recipes have no variant 'no edges'; choose from no attention"),
    ):
        verb = "ablate" if "gcn" in arguments or "--variants" in arguments else "search"
        monkeypatch.setattr(sys, "argv", ["accuracy", verb, *arguments, "--out", str(tmp_path)])
        with pytest.raises(SystemExit):
            program.main()
        assert message in capsys.readouterr().err


def test_the_lookup_of_labels():
    x = torch.tensor([[0.0], [1.0], [1.0], [0.0], [2.0]])
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [torch.nan, torch.nan]])
    train, test = torch.tensor([1, 1, 1, 0, 0]) > 0, torch.tensor([0, 0, 0, 1, 0]) > 0
    data = Data(x=x, y=y, train_mask=train, test_mask=test)
    found = lookup.measure(data, np.array([7, 8, 9, 8, 5]))
    assert found["lookup by features"] == {"micro_f1": 1.0, "known": 1.0, "keys": 3}
    assert found["lookup by gene"]["micro_f1"] == 0.0
    assert found["all ones"]["micro_f1"] == pytest.approx(2 / 3)
    assert found["test labels found verbatim in training"] == 1.0
    mean, known = lookup.lookup(["a", "b", "c"], torch.eye(3), torch.tensor([0, 1]), torch.tensor([2]))
    assert mean.tolist() == [[0.5, 0.5, 0.0]]
    assert known == 0.0
