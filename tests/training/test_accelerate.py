import gc
import weakref
from contextlib import contextmanager

import pytest
import torch
import torch._dynamo.testing

from gesm.datasets import synthetic
from gesm.errors import GesmError
from gesm.training import Recipe, Task, accelerate, fit
from gesm.training.accelerate import WARM_UP, CapturedStep, check_accelerate
from gesm.training.run import Run

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def make(recipe, device=CPU, **changes):
    recipe = recipe.replace(**changes)
    return Run(recipe, Task(synthetic(), recipe, device), 0, device)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("normalization", ["col", "sym"])
@pytest.mark.parametrize("model", ["gesm", "gsm"])
def test_the_whole_loss_compiles_in_one_piece_and_sorts_no_edges(recipe, monkeypatch, model, normalization):
    torch._dynamo.reset()
    frames = torch._dynamo.testing.EagerAndRecordGraphs()
    monkeypatch.setattr(accelerate, "BACKEND", frames)
    changes = {"model": model, "sparse_features": False, "normalization": normalization, "structure_weight": 0.5}
    run = make(recipe, accelerate="compile", **changes)
    losses = [run.epoch().train_loss for _ in range(3)]
    assert all(torch.tensor(losses).isfinite())
    assert len(frames.graphs) == 1
    assert not any("sort_edges" in str(node.target) for node in frames.graphs[0].graph.nodes)


@pytest.mark.filterwarnings("ignore")
def test_compiled_training_is_training(recipe, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(accelerate, "BACKEND", "aot_eager")
    plain = {"sparse_features": False, "dropout": 0, "attention_dropout": 0, "structure_weight": 0}
    runs = [make(recipe, accelerate=how, **plain) for how in ("none", "compile")]
    expected, actual = ([run.epoch().train_loss for _ in range(3)] for run in runs)
    assert actual == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accelerate": "cuda_graph"}, "cuda_graph needs a CUDA device, got cpu"),
        ({"accelerate": "compile", "hop_sampling": "uniform"}, "hop_sampling=uniform draws another depth each time"),
        ({"accelerate": "compile", "sparse_features": True}, "set sparse_features to false"),
        ({"accelerate": "fast"}, "must be one of none, cuda_graph, compile, got 'fast'"),
    ],
)
def test_what_cannot_be_accelerated_is_refused(recipe, changes, message):
    with pytest.raises(GesmError, match=message):
        make(recipe, **changes)


def test_several_training_graphs_are_refused(recipe):
    recipe = recipe.replace(accelerate="compile", sparse_features=False)
    task = Task(synthetic(), recipe)
    task.train = task.train * 2
    with pytest.raises(GesmError, match="needs one training graph, got 2"):
        Run(recipe, task, 0, CPU)


def test_a_changing_lr_is_not_captured(recipe):
    recipe = recipe.replace(accelerate="cuda_graph", lr_schedule="cosine")
    with pytest.raises(GesmError, match="set lr_schedule to constant or accelerate to none"):
        check_accelerate(recipe, Task(synthetic(), recipe), torch.device("cuda"))


def test_the_first_steps_run_plainly_and_each_later_one_is_a_replay(monkeypatch):
    """Without a GPU: a graph that runs the step at its replay."""
    log, weight = [], torch.nn.Parameter(torch.zeros(1))

    class Graph:
        def replay(self):
            log.append("replay")

    @contextmanager
    def capture(graph, stream=None):
        log.append("capture")
        yield

    class Stream:
        def __init__(self, device):
            pass

        def wait_stream(self, other):
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", capture)
    step = CapturedStep(torch.optim.Adam([weight]))
    for _ in range(WARM_UP + 2):
        step(lambda: log.append("step"))
    assert log == ["capture", "step"] * WARM_UP + ["capture", "step", "replay", "replay"]


@needs_gpu
@pytest.mark.parametrize("sparse", [True, False])
def test_captured_training_equals_plain_training(recipe, sparse):
    plain = {"sparse_features": sparse, "dropout": 0, "attention_dropout": 0, "structure_weight": 0}
    runs = [make(recipe, torch.device("cuda"), accelerate=how, **plain) for how in ("none", "cuda_graph")]
    expected, actual = ([run.epoch().train_loss for _ in range(8)] for run in runs)
    assert actual == pytest.approx(expected, rel=1e-4)


@needs_gpu
def test_captured_training_draws_afresh_and_resumes(recipe, tmp_path):
    run = make(recipe, torch.device("cuda"), accelerate="cuda_graph", dropout=0.5, attention_dropout=0.5)
    for _ in range(WARM_UP + 3):
        run.epoch()
    run.save(tmp_path / "c")
    other = make(recipe, torch.device("cuda"), accelerate="cuda_graph", dropout=0.5, attention_dropout=0.5)
    other.restore(tmp_path / "c")
    losses = [[r.epoch().train_loss for _ in range(WARM_UP + 3)] for r in (run, other)]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.2)  # the masks are other ones, the weights are not
    assert all(state["step"].is_cuda for state in other.optimizer.state.values())
    still = make(recipe, torch.device("cuda"), accelerate="cuda_graph", dropout=0.5, attention_dropout=0.5, lr=1e-30)
    drawn = [still.epoch().train_loss for _ in range(WARM_UP + 4)]
    assert len({*drawn[WARM_UP:]}) == 4  # the weights stand still, so that masks alone differ


@needs_gpu
def test_fit_with_a_captured_step(recipe):
    result = fit(recipe.replace(accelerate="cuda_graph"), synthetic(), device="cuda")
    assert result.epochs == recipe.epochs


def test_the_recipe_names_it():
    assert Recipe().accelerate == "none"


def test_a_run_ends_with_its_last_reference(recipe):
    gc.collect()
    gc.disable()
    try:
        run = make(recipe)
        run.epoch()
        gone = weakref.ref(run)
        del run
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore")
def test_many_recipes_may_be_compiled_one_after_the_other(recipe, monkeypatch):
    monkeypatch.setattr(accelerate, "BACKEND", "eager")
    for K in range(1, 11):
        make(recipe, accelerate="compile", sparse_features=False, K=K).step()


@pytest.mark.filterwarnings("ignore")
def test_other_compiled_functions_stay_compiled(recipe, monkeypatch):
    monkeypatch.setattr(accelerate, "BACKEND", "eager")
    frames = torch._dynamo.testing.CompileCounter()
    own = torch.compile(torch.sin, backend=frames)
    own(torch.ones(2))
    make(recipe, accelerate="compile", sparse_features=False).step()
    own(torch.ones(2))
    assert frames.frame_count == 1
