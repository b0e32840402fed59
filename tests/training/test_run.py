import math

import pytest
import torch

from gesm.datasets import synthetic
from gesm.errors import GesmError
from gesm.training import Recipe, Task
from gesm.training.recipe import MODELS
from gesm.training.run import Run, Selection

CPU = torch.device("cpu")
# (val loss, val metric) of epochs 1, 2, ...
EPOCHS = [(3, 0.5), (2, 0.4), (4, 0.6), (2, 0.6), (5, 0.1), (5, 0.6), (5, 0.1), (1, 0.1), (9, 0.0), (9, 0.0), (9, 0.0)]


@pytest.mark.parametrize(
    ("rule", "patience", "selected", "stopped"),
    [
        ("accuracy_and_loss", 2, 4, 10),  # 1, then 4 equals both bests; 6 and 8 improve one of them: patience only
        ("accuracy_and_loss", 1, 4, 5),
        ("accuracy", 2, 4, 6),  # the metric of 3 at a lower loss
        ("accuracy", 1, 1, 2),
    ],
)
def test_selection(rule, patience, selected, stopped):
    selection = Selection(rule, patience)
    for epoch, (loss, metric) in enumerate(EPOCHS, 1):
        selection.update(epoch, loss, metric)
        if selection.exhausted(epoch):
            break
    assert (selection.selected, epoch) == (selected, stopped)


def test_restored_state_lies_in_memory_as_its_parameter_does(recipe, tmp_path):
    def make():
        run = Run(recipe, Task(synthetic(), recipe), 0, CPU)
        for p in run.model.parameters():
            if p.dim() == 2:
                p.data = p.data.t().contiguous().t()
        run.weights = run.model.state_dict()
        return run

    whole = make()
    whole.epoch(), whole.epoch()
    parts = make()
    parts.epoch()
    parts.save(tmp_path / "c")
    parts = make()
    parts.restore(tmp_path / "c")
    for p, state in parts.optimizer.state.items():
        assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == p.stride()
    parts.epoch()
    assert all(map(torch.equal, whole.model.state_dict().values(), parts.model.state_dict().values()))


def test_resuming_elsewhere_warns(recipe, tmp_path, monkeypatch):
    run = Run(recipe, Task(synthetic(), recipe), 0, CPU)
    run.epoch()
    run.save(tmp_path / "c")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 17)
    with pytest.warns(UserWarning, match=r"written with threads \d+, now it is 17: .* not equal .* bit by bit"):
        run.restore(tmp_path / "c")
    run.keep(tmp_path / "m")
    with pytest.raises(GesmError, match="m is not a checkpoint"):
        run.restore(tmp_path / "m")


def test_weight_decay_spares_biases(recipe):
    run = Run(recipe.replace(weight_decay=0.1), Task(synthetic(), recipe), 0, CPU)
    decay = {id(p): group["weight_decay"] for group in run.optimizer.param_groups for p in group["params"]}
    named = dict(run.model.named_parameters())
    assert len(decay) == len(named)
    assert all((decay[id(p)] == 0) == name.endswith("bias") for name, p in named.items())
    assert set(decay.values()) == {0, 0.1}


@pytest.mark.parametrize(("model", "options"), [*((model, {}) for model in MODELS), ("gat", {"skip_connections": True})])
def test_the_map_that_reads_x_may_have_its_own_weight_decay(model, options):
    recipe = Recipe(model=model, hidden_channels=4, K=2, weight_decay=0.1, input_weight_decay=0.2, **options)
    task = Task(synthetic(), recipe)
    run = Run(recipe, task, 0, CPU)
    by_decay = {group["weight_decay"]: group["params"] for group in run.optimizer.param_groups}
    reader, *others = by_decay[0.2]
    assert reader.size(0) == task.in_channels
    assert [id(p) for p in others] == ([id(run.model.lins[1].weight)] if model == "gcnii" else [])
    assert sum(map(len, by_decay.values())) == len(list(run.model.parameters()))


def test_the_kept_weights_are_those_of_the_selected_epoch(recipe):
    run = Run(recipe.replace(epochs=20, lr=0.1), Task(synthetic(), recipe), 0, CPU)
    seen = []
    while not run.finished:
        run.epoch()
        seen.append({name: t.clone() for name, t in run.model.state_dict().items()})
    chosen = seen[run.selection.selected - 1]
    assert all(torch.equal(run.best[name], t) for name, t in chosen.items())


def test_graphs_share_a_step_as_one_batch_would(recipe):
    data = synthetic(num_graphs=5, task="multilabel")
    data.train_mask[:20] = False  # graphs of different weight
    recipe = recipe.replace(dropout=0, attention_dropout=0, structure_weight=0, graphs_per_step=3)
    run = Run(recipe, Task(data, recipe), 0, CPU)
    logits = torch.cat([run.model(s.x, s.graph)[s.rows["train"]] for s in run.task.train])
    expected = run.task.loss(logits, torch.cat([s.y["train"] for s in run.task.train]))
    gradient = torch.autograd.grad(expected, list(run.model.parameters()))
    loss = run.step()
    torch.testing.assert_close(loss, expected.detach())
    for p, g in zip(run.model.parameters(), gradient, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)


def test_training_graphs_are_shuffled_by_the_seed(recipe):
    def orders(seed):
        run = Run(recipe, Task(synthetic(num_graphs=6), recipe), seed, CPU)
        seen = []
        forward = run.model.forward
        run.model.forward = lambda x, *args, **kwargs: (seen.append(id(x)), forward(x, *args, **kwargs))[1]
        run.step(), run.step()
        index = {id(s.x): i for i, s in enumerate(run.task.train)}
        return [index[i] for i in seen]

    first = orders(0)
    assert sorted(first[:4]) == sorted(first[4:]) == [0, 1, 2, 3]
    assert first == orders(0)
    assert len({tuple(orders(seed)) for seed in range(4)}) > 1


def test_evaluation_only_when_due(recipe):
    run = Run(recipe.replace(eval_every=4, epochs=6), Task(synthetic(), recipe), 0, CPU)
    due = [not math.isnan(run.epoch().val_loss) for _ in range(6)]
    assert due == [False, False, False, True, False, True]


def test_infinite_loss_names_the_epoch(recipe):
    run = Run(recipe.replace(lr=1e30, epochs=50), Task(synthetic(), recipe), 0, CPU)
    with pytest.raises(GesmError, match=r"at epoch \d+; try a smaller lr \(now 1e\+30\)"):
        [run.epoch() for _ in range(50)]


def test_cosine_schedule_goes_on_after_a_restore(recipe, tmp_path):
    recipe = recipe.replace(lr=0.5, lr_schedule="cosine", epochs=4, patience=4)
    run = Run(recipe, Task(synthetic(), recipe), 0, CPU)
    seen = []
    for epoch in range(4):
        if epoch == 2:
            run.save(tmp_path / "c")
            run = Run(recipe, Task(synthetic(), recipe), 0, CPU)
            run.restore(tmp_path / "c")
        run.epoch()
        seen += [group["lr"] for group in run.optimizer.param_groups]
    groups = len(run.optimizer.param_groups)
    assert seen == pytest.approx([0.25 * (1 + math.cos(math.pi * e / 4)) for e in range(4) for _ in range(groups)])


def test_a_checkpoint_from_before_a_key_is_restored(recipe, tmp_path):
    old = Run(recipe, Task(synthetic(), recipe), 0, CPU)
    del old.identity["recipe"]["lr_schedule"]
    old.epoch()
    old.save(tmp_path / "c")
    new = Run(recipe, Task(synthetic(), recipe), 0, CPU)
    new.restore(tmp_path / "c")
    assert new.history == old.history
    other = recipe.replace(lr_schedule="cosine")
    with pytest.raises(GesmError, match="its recipe's lr_schedule is constant, now it is cosine"):
        Run(other, Task(synthetic(), other), 0, CPU).restore(tmp_path / "c")
