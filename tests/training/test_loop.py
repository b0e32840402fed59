import contextlib
import json

import pytest
import torch

from gesm.datasets import synthetic
from gesm.errors import DivergedError, GesmError
from gesm.training import Recipe, Task, Trained, fit, fit_many
from gesm.training.recipe import MODELS

TIMINGS = ("epoch_ms", "peak_memory_mb")


class Stop(Exception):
    pass


def outcome(folder):
    """All that must not depend on interruptions."""
    result = json.loads((folder / "result.json").read_text())
    return (
        (folder / "model.safetensors").read_bytes(),
        (folder / "metrics.jsonl").read_bytes(),
        (folder / "recipe.yaml").read_bytes(),
        {key: value for key, value in result.items() if key not in TIMINGS},
    )


def stop_at(epoch):
    def on_epoch(e):
        if e.epoch == epoch:
            raise Stop

    return on_epoch


@pytest.mark.parametrize(("task", "graphs"), [("multiclass", 1), ("multilabel", 1), ("multilabel", 5)])
@pytest.mark.parametrize("model", ["gesm", "gsm"])
def test_learns(task, graphs, model):
    recipe = Recipe(model=model, hidden_channels=8, K=2, lr=0.02, epochs=60, structure_weight=0.1)
    result = fit(recipe, synthetic(200, task=task, num_graphs=graphs), device="cpu")
    assert result.test > 0.75
    assert result.metric == {"multiclass": "accuracy", "multilabel": "micro_f1"}[task]
    assert 1 <= result.selected_epoch <= result.epochs <= 60


@pytest.mark.parametrize("model", ["sgc", "appnp", "gcn", "gat", "gcnii", "mixhop", "mlp"])
def test_peers_train_and_are_read_back(tmp_path, model):
    data = synthetic(200)
    options = {"K": 2} if "K" in MODELS[model][1] else {"num_layers": 2}
    hidden = {} if model == "sgc" else {"hidden_channels": 8}
    recipe = Recipe(model=model, lr=0.02, epochs=60, dropout=0.2, **options, **hidden)
    result = fit(recipe, data, 0, tmp_path / "run", device="cpu")
    assert result.test > 0.6
    assert Trained.load(tmp_path / "run").evaluate(data)["test"]["accuracy"] == result.test


def test_run_folder(tmp_path, recipe):
    data = synthetic()
    result = fit(recipe, data, 3, tmp_path / "run", checkpoint_every=0)
    files = {p.name for p in (tmp_path / "run").iterdir()}
    assert files == {"recipe.yaml", "metrics.jsonl", "model.safetensors", "curves.png", "result.json"}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 7))
    assert lines[result.selected_epoch - 1]["val_accuracy"] == result.val
    assert Recipe.load(tmp_path / "run" / "recipe.yaml") == recipe
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    test = Task(data, recipe).evaluate(result.module, "test")[1].item()
    assert test == result.test == json.loads((tmp_path / "run" / "result.json").read_text())["test"]["mean"]


def test_seeds(recipe):
    def weights(seed):
        return torch.nn.utils.parameters_to_vector(fit(recipe, synthetic(), seed).module.parameters())

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_test_set_is_read_once_and_last(recipe, monkeypatch):
    read, evaluate = [], Task.evaluate
    monkeypatch.setattr(Task, "evaluate", lambda *args: (read.append(args[2]), evaluate(*args))[1])
    fit(recipe, synthetic())
    assert read == ["val"] * 6 + ["test"]


@pytest.mark.parametrize("graphs", [1, 5])
@pytest.mark.parametrize("eval_every", [1, 2])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, recipe, graphs, eval_every):
    recipe, data = recipe.replace(eval_every=eval_every), synthetic(num_graphs=graphs)
    fit(recipe, data, 1, tmp_path / "whole", checkpoint_every=60)
    for epoch in (1, 3, 4, 6):
        torch.manual_seed(epoch)
        with pytest.raises(Stop):
            fit(recipe, data, 1, tmp_path / "parts", resume=True, checkpoint_every=0, on_epoch=stop_at(epoch))
        assert not (tmp_path / "parts" / "result.json").exists()
    fit(recipe, data, 1, tmp_path / "parts", resume=True)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


HOPS = {"hop_sampling": "uniform", "consistency_draws": 2, "consistency_warmup": 3}


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize(
    "changes",
    [
        {"hop_sampling": "geometric", "hop_inference": "expected"},
        HOPS,
        {**HOPS, "num_layers": 2, "layer_norm": True},
        {**HOPS, "model": "gsm", "structure_weight": 0.0},
        {**HOPS, "model": "gsm", "structure_weight": 0.0, "classifier": "linear", "layer_norm": True, "hop_per": "node"},
        {**HOPS, "model": "mixed_mlp", "input_dropout": 0.5},
        {**HOPS, "model": "mixed_mlp", "input_dropout": 0.5, "batch_norm": "both", "hop_per": "node"},
    ],
    ids=["hop", "gesm", "stack", "gsm", "classifier", "mixed-mlp", "batch-norm"],
)
def test_hop_sampling_resumes_and_predicts(tmp_path, recipe, task, changes):
    recipe, data = recipe.replace(**changes), synthetic(task=task)
    whole = fit(recipe, data, 1, tmp_path / "whole")
    with pytest.raises(Stop):
        fit(recipe, data, 1, tmp_path / "parts", checkpoint_every=0, on_epoch=stop_at(3))
    fit(recipe, data, 1, tmp_path / "parts", resume=True)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    trained = Trained.load(tmp_path / "whole")
    assert trained.evaluate(data)["test"][whole.metric] == whole.test


@pytest.mark.parametrize("setting", ["weight", "temperature", "alignment"])
def test_the_settings_of_consistency_reach_the_loss(recipe, setting):
    losses = []
    for value in (0.1, 0.9):
        made = recipe.replace(**HOPS | {"consistency_warmup": 0, f"consistency_{setting}": value}, epochs=1)
        fit(made, synthetic(), 0, on_epoch=lambda epoch: losses.append(epoch.train_loss))
    assert losses[0] != losses[1]


def test_interruptions_before_the_first_checkpoint_and_while_finishing(tmp_path, recipe, monkeypatch):
    data = synthetic()
    fit(recipe, data, 0, tmp_path / "whole")
    with pytest.raises(Stop):
        fit(recipe, data, 0, tmp_path / "parts", checkpoint_every=60, on_epoch=stop_at(3))
    (tmp_path / "parts" / ".checkpoint.safetensors.tmp").write_bytes(b"half")
    monkeypatch.setattr("gesm.training.report.curves", lambda *_: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        fit(recipe, data, 0, tmp_path / "parts", resume=True, checkpoint_every=0)
    monkeypatch.undo()
    fit(recipe, data, 0, tmp_path / "parts", resume=True)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    assert not list((tmp_path / "parts").glob(".*"))


def test_a_finished_run_is_read_back(tmp_path, recipe, monkeypatch):
    data = synthetic()
    first = fit(recipe, data, 0, tmp_path)
    monkeypatch.setattr("gesm.training.run.Run.epoch", None)
    again = fit(recipe, data, 0, tmp_path, resume=True)
    assert again == first
    assert all(torch.equal(t, first.module.state_dict()[name]) for name, t in again.module.state_dict().items())


def test_nothing_written_is_lost(tmp_path, recipe):
    data = synthetic()
    fit(recipe, data, 0, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = outcome(tmp_path)
    with pytest.raises(GesmError, match=r"already holds a run; continue it with --resume, replace it with --overwrite"):
        fit(recipe, data, 0, tmp_path)
    with pytest.raises(GesmError, match=r"another recipe \(lr 0.003 -> 0.1\)"):
        fit(recipe.replace(lr=0.1), data, 0, tmp_path, resume=True)
    with pytest.raises(GesmError, match="its seed is 0, now it is 1"):
        fit(recipe, data, 1, tmp_path, resume=True)
    with pytest.raises(GesmError, match="its num_nodes is 60, now it is 90"):
        fit(recipe, synthetic(90), 0, tmp_path, resume=True)
    with pytest.raises(GesmError, match="holds a single run"):
        fit_many(recipe, lambda _: data, 2, 0, tmp_path, resume=True)
    bad = synthetic()
    bad.train_mask[:] = False
    with pytest.raises(GesmError, match="train_mask is empty"):
        fit(recipe, bad, 0, tmp_path, overwrite=True)
    assert outcome(tmp_path) == before
    fit(recipe.replace(lr=0.1), data, 0, tmp_path, overwrite=True)
    assert outcome(tmp_path) != before
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_overwrite_leaves_what_is_not_its_own(tmp_path, recipe):
    data = synthetic()
    fit_many(recipe, lambda _: data, 3, 0, tmp_path)
    mine = [
        "run-2024-notes/thesis.tex",
        "run-1.txt",
        "run-2024/notes.md",
        ".cache.tmp",
        "run-002/notes.md",
        "run-12/recipe.yaml",
    ]
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / ".result.json.tmp").write_text("half")
    fit(recipe, data, 0, tmp_path, overwrite=True)
    assert all((tmp_path / name).read_text() == "mine" for name in mine)
    assert sorted(p.name for p in tmp_path.glob("run-*")) == ["run-002", "run-1.txt", "run-12", "run-2024", "run-2024-notes"]
    assert [p.name for p in (tmp_path / "run-002").iterdir()] == ["notes.md"]
    assert not (tmp_path / ".result.json.tmp").exists()
    fit(recipe, data, 0, tmp_path, resume=True)  # one run: what is left of run-002 makes no set
    fit_many(recipe, lambda _: data, 3, 0, tmp_path, overwrite=True)
    assert (tmp_path / "run-002" / "notes.md").read_text() == "mine"


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(tmp_path, recipe):
    data = synthetic()
    with pytest.raises(Stop):
        fit(recipe, data, 0, tmp_path, checkpoint_every=0, on_epoch=stop_at(3))
    with pytest.raises(GesmError, match="belongs to another run: its seed is 0"):
        fit(recipe, data, 1, tmp_path, resume=True)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(GesmError, match=r"checkpoint.safetensors cannot be read .* or start again with --overwrite"):
        fit(recipe, data, 0, tmp_path, resume=True)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("key", ["x", "y", "edge_index", "train_mask"])
def test_other_data_of_the_same_form_are_refused(tmp_path, recipe, finished, key):
    data, stop = synthetic(), None if finished else stop_at(3)
    with contextlib.nullcontext() if finished else pytest.raises(Stop):
        fit(recipe, data, 0, tmp_path, checkpoint_every=0, on_epoch=stop)
    if key == "train_mask":
        data.train_mask[data.train_mask.nonzero()[0]] = False
    else:
        data[key] = data[key].flip(0)
    with pytest.raises(GesmError, match="belongs to another run: its data_crc32 is"):
        fit(recipe, data, 0, tmp_path, resume=True)


def test_a_diverging_run_keeps_its_last_checkpoint(tmp_path, recipe):
    data = synthetic()
    with pytest.raises(DivergedError, match="the loss became"):
        fit(recipe.replace(lr=1e18, epochs=50), data, 0, tmp_path, checkpoint_every=0)
    epochs = len((tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (tmp_path / "checkpoint.safetensors").exists() == (epochs > 0)
    assert not (tmp_path / "result.json").exists()


def test_several_runs(tmp_path, recipe):
    seen, data = [], synthetic()
    load = lambda seed: (seen.append(seed), data)[1]  # noqa: E731
    with pytest.raises(Stop):
        fit_many(recipe, load, 3, 5, tmp_path, on_run=lambda r: r.seed == 6 and (_ for _ in ()).throw(Stop))
    results = fit_many(recipe, load, 3, 5, tmp_path, resume=True)
    assert seen == [5, 6, 5, 6, 7]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "recipe.yaml",
        "result.json",
        *(f"run-00{i}" for i in range(3)),
    ]
    summary = json.loads((tmp_path / "result.json").read_text())
    assert summary["test"]["runs"] == [r.test for r in results] == [fit(recipe, data, s).test for s in (5, 6, 7)]
    with pytest.raises(GesmError, match="holds a set of 3 runs"):
        fit(recipe, data, 5, tmp_path, resume=True)
    with pytest.raises(GesmError, match="already holds a run"):
        fit_many(recipe, load, 3, 5, tmp_path)
    with pytest.raises(GesmError, match="holds a set of 3 runs; resume it with the number of runs it was started with, not 2"):
        fit_many(recipe, load, 2, 5, tmp_path, resume=True)
    bad = synthetic()
    bad.y = None
    captured = recipe.replace(accelerate="cuda_graph")
    for changes in ({"device": "tpu"}, {"load": lambda seed: bad}, {"recipe": captured, "device": "cpu"}):
        options = {"recipe": recipe, "load": load, "runs": 3, "seed": 5, "run_dir": tmp_path} | changes
        with pytest.raises(GesmError, match=r"device 'tpu' cannot be used|has no y|cuda_graph"):
            fit_many(**options, overwrite=True)
        assert json.loads((tmp_path / "result.json").read_text()) == summary
        assert (tmp_path / "run-002" / "model.safetensors").exists()
    seen.clear()
    fit_many(recipe, load, 2, 5, tmp_path, overwrite=True)
    assert seen == [5, 6]
    assert sorted(p.name for p in tmp_path.glob("run-*")) == ["run-000", "run-001"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device 'tpu' cannot be used here"),
        ({"device": "meta"}, r"device 'meta' cannot be used here \(it does not compute\)"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\^63 - 1 .* got -1"),
        ({"seed": 2**63}, "seed must be a whole number"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used here"),
        ({"resume": True}, "resume needs run_dir"),
        ({"resume": True, "overwrite": True, "run_dir": "x"}, "exclude each other"),
        ({"run_dir": __file__}, "is a file; pass a folder"),
    ],
)
def test_bad_options(recipe, options, message):
    with pytest.raises(GesmError, match=message):
        fit(recipe, synthetic(), **options)


def test_at_least_one_run(recipe):
    with pytest.raises(GesmError, match="runs must be at least 1"):
        fit_many(recipe, lambda _: synthetic(), 0)


def test_arguments_of_other_types(recipe):
    for other in ("citeseer", {"K": 2}):
        with pytest.raises(GesmError, match=r"must be a gesm.training.Recipe, got (str|dict); make one"):
            fit(other, synthetic())
    for load in (synthetic(), "citeseer"):
        with pytest.raises(GesmError, match=r"load must be a function that gives the data for a seed, got (Data|str)"):
            fit_many(recipe, load)


def test_every_seed_is_legal_before_the_first_run(recipe):
    assert fit(recipe, synthetic(), 2**63 - 1).seed == 2**63 - 1
    with pytest.raises(GesmError, match=r"from 0 to 2\^63 - 2 \(of 2 runs\)"):
        fit_many(recipe, None, 2, 2**63 - 1)


@pytest.mark.parametrize(
    "damage",
    [
        {"val": {"runs": ["x"]}},
        {"val": {"runs": []}},
        {"val": 3},
        {"seed": ["0"]},
        {"epoch_ms": None},
        {"device": 1},
        {"peak_memory_mb": "1"},
        None,
        [],
    ],
)
def test_a_damaged_result_is_refused(tmp_path, recipe, damage):
    data = synthetic()
    fit(recipe, data, 0, tmp_path)
    path = tmp_path / "result.json"
    content = json.loads(path.read_text()) | damage if isinstance(damage, dict) else damage
    path.write_text(json.dumps(content))
    with pytest.raises(GesmError, match="not the result of a gesm run"):
        fit(recipe, data, 0, tmp_path, resume=True)
