import pytest
import torch

from gesm import GesmError
from gesm.recommend import Interactions, Popularity, Settings, Window, evaluate, fit, refit, scorer, targets, temporal_split

SMALL = Settings(embedding_dim=8, K=2, lr=0.05, epochs=40)


@pytest.fixture(scope="module")
def window(communities):
    train, _, test = temporal_split(communities, 0.0, 0.3)
    return Window(train, test)


def ndcg(model, window):
    return evaluate(scorer(model, window.train.graph()), targets(window), window.train, (5,)).mean["ndcg@5"]


@pytest.fixture(scope="module")
def popular(window):
    model = Popularity(window.train.num_users, window.train.num_items)
    assert fit(model, window.train, Settings(model="popularity")) == []
    return ndcg(model, window)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "softmax", "negatives": 20},
        {"batch_size": 100, "epochs": 15},
        {"loss": "softmax", "batch_size": 30, "temperature": 0.5, "epochs": 15},
        {"hops": "uniform", "inference": "expected"},
        {"hops": {"distribution": "geometric", "per": "node"}},
        {"edge_dropout": 0.2},
        {"model": "mixture", "negatives": 3},
        {"model": "mf", "weight_decay": 0.01},
    ],
    ids=str,
)
def test_learns_more_than_popularity(changes, window, popular):
    settings = SMALL.replace(**changes)
    model = settings.build_model(window.train.num_users, window.train.num_items)
    losses = fit(model, window.train, settings)
    assert len(losses) == settings.epochs
    assert losses[-1] < losses[0]
    assert not model.training
    assert ndcg(model, window) > popular + 0.05


@pytest.mark.parametrize("changes", [{}, {"batch_size": 64, "hops": "uniform", "edge_dropout": 0.1}], ids=str)
def test_repeats_bit_by_bit(changes, window):
    settings = SMALL.replace(epochs=4, **changes)
    runs = []
    for seed in (3, 3, 4):
        model = settings.replace(seed=seed).build_model(window.train.num_users, window.train.num_items)
        torch.rand(seed)  # PyTorch's own generator plays no part
        runs.append((fit(model, window.train, settings.replace(seed=seed)), model.embedding))
    assert runs[0][0] == runs[1][0] != runs[2][0]
    assert torch.equal(runs[0][1], runs[1][1])


def test_weight_decay_is_that_of_the_pairs(window):
    """One step of Adam without and with decay: the loss differs by half the mean squared norm of the rows of each pair."""
    train = window.train
    pairs = train.pairs()
    first = []
    for decay in (0.0, 0.5):
        settings = SMALL.replace(epochs=1, weight_decay=decay, loss="softmax")
        model = settings.build_model(train.num_users, train.num_items)
        norm = model.embedding.detach().square().sum(1)
        first += fit(model, train, settings)
    rows = norm[pairs.user] + norm[train.num_users + pairs.item]
    assert first[1] - first[0] == pytest.approx(0.25 * rows.mean().item(), rel=1e-3)


def test_refit_keeps_what_is_known_and_takes_what_is_new(window):
    settings = SMALL.replace(epochs=10)
    model = settings.build_model(window.train.num_users, window.train.num_items)
    fit(model, window.train, settings)
    known = model.embedding.detach().clone()
    new = Interactions.from_arrays([7, 100], [1, 50], time=[5000, 5001])
    still = settings.replace(epochs=1, lr=1e-12, weight_decay=0.0)
    both, losses = refit(model, window.train, new, still)
    users, items = window.train.num_users, window.train.num_items
    assert (both.num_users, both.num_items, len(losses)) == (users + 1, items + 1, 1)
    assert torch.allclose(model.embedding[:users], known[:users], atol=1e-6)
    assert torch.allclose(model.embedding[users + 1 : -1], known[users:], atol=1e-6)
    _, losses = refit(model, both, new, settings)
    assert losses[0] < 0.6  # it goes on; at the start it is log 2


def test_refit_draws_rows_that_nobody_had(window):
    train = window.train
    settings = SMALL.replace(epochs=1, lr=1e-12, weight_decay=0.0)  # Adam moves a row by lr at most
    model = settings.build_model(train.num_users, train.num_items)
    drawn = model.embedding.detach().clone()
    for first in (100, 200):
        old, ids = train, torch.arange(first, first + 20)
        train, _ = refit(model, old, Interactions.from_arrays(ids, ids, time=ids + 5000), settings)
        users, items = model.embedding.detach().split([train.num_users, train.num_items])
        fresh = torch.cat([users[old.num_users :], items[old.num_items :]])
        assert torch.cdist(fresh, drawn).min() > 1e-3
        rebuilt = settings.build_model(train.num_users, train.num_items).embedding
        assert torch.cdist(fresh, rebuilt).min() > 1e-3
        drawn = torch.cat([drawn, fresh])


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_items_of_the_future_are_left_alone(loss, window):
    """Without propagation and decay an item that occurs in no pair keeps its embedding to the bit."""
    both = window.train.extended(Interactions.from_arrays([0, 0], [70, 71], time=[8000, 8001]))
    settings = SMALL.replace(model="mf", weight_decay=0.0, epochs=5, loss=loss)
    model = settings.build_model(both.num_users, both.num_items)
    before = model.embedding.detach().clone()
    fit(model, both.select(both.time < 8000), settings)
    assert torch.equal(model.embedding[-2:], before[-2:])
    assert not torch.equal(model.embedding[:-2], before[:-2])


def test_calls_back_each_epoch(window):
    seen = []
    model = SMALL.build_model(window.train.num_users, window.train.num_items)
    losses = fit(model, window.train, SMALL.replace(epochs=3), lambda epoch, loss: seen.append((epoch, loss)))
    assert seen == list(enumerate(losses, 1))


def test_errors(window):
    model = SMALL.build_model(3, 3)
    with pytest.raises(GesmError, match="made for other users and items"):
        fit(model, window.train, SMALL)
    empty = Interactions.from_arrays([0, 1, 2], [0, 1, 2]).select([])
    with pytest.raises(GesmError, match="nothing to train on"):
        fit(model, empty, SMALL)
    full = Interactions.from_arrays([0, 1, 2], [0, 1, 2])
    with torch.no_grad():
        model.embedding.fill_(float("nan"))
    with pytest.raises(GesmError, match="loss of epoch 1 is nan; use a lower lr"):
        fit(model, full, SMALL)
    assert model.generator is None
