import pytest
import torch

from gesm import GesmError
from gesm.recommend import Interactions, LightGCN, MatrixFactorization, Popularity, StepMixtureRecommender, scorer

TRAIN = Interactions.from_arrays([0, 0, 1, 2, 2, 2], [0, 1, 1, 1, 2, 2], time=[1, 2, 3, 4, 9, 9])
U, I = TRAIN.num_users, TRAIN.num_items


def test_embed_shapes_and_keys():
    model = LightGCN(U, I, 4, K=2)
    users, items = model(TRAIN.graph())
    assert users.shape == (U, 4)
    assert items.shape == (I, 4)
    assert set(model.state_dict()) == {"embedding"}
    mixture = StepMixtureRecommender(U, I, 4, hops="uniform")
    assert set(mixture.state_dict()) == {"embedding", "propagation.alpha"}
    mixture.load_state_dict(mixture.state_dict())
    assert str(model) == "LightGCN(3, 3, 4, K=2)"
    assert str(mixture) == "StepMixtureRecommender(3, 3, 4, K=3, hops='uniform')"


def test_matrix_factorization_needs_no_graph():
    model = MatrixFactorization(U, I, 4)
    users, items = model.embed(None)
    assert torch.equal(torch.cat([users, items]), model.embedding)
    score = scorer(model, None)
    assert torch.equal(score(torch.tensor([2, 0])), (users @ items.t())[[2, 0]])


def test_fixed_trains_at_full_depth_and_reads_at_any():
    graph, model = TRAIN.graph(), LightGCN(U, I, 4, K=3)
    full = torch.cat(model.embed(graph))
    assert torch.equal(torch.cat(model.eval().embed(graph)), full)
    model.inference = 1
    at_one = torch.cat(model.embed(graph))
    assert not torch.allclose(at_one, full)
    assert torch.equal(torch.cat(model.train().embed(graph)), full)
    model.inference = "expected"
    depths = []
    for k in (1, 2, 3):
        model.eval().inference = k
        depths.append(torch.cat(model.embed(graph)))
    model.inference = "expected"
    torch.testing.assert_close(torch.cat(model.embed(graph)), sum(depths) / 3)


@pytest.mark.parametrize("hops", ["uniform", {"distribution": "uniform", "per": "node"}], ids=str)
def test_hops_draw_in_training(hops):
    graph, model = TRAIN.graph(), LightGCN(U, I, 4, K=3, hops=hops)
    model.generator = torch.Generator().manual_seed(0)
    outs = [torch.cat(model.embed(graph)) for _ in range(8)]
    assert any(not torch.equal(outs[0], out) for out in outs)
    assert model.propagation.last_depth is not None
    assert model.generator is model.propagation.module.generator


def test_grow_keeps_rows_and_repeats():
    grown = []
    for _ in range(2):
        torch.manual_seed(1)
        model = LightGCN(3, 2, 4)
        old = model.embedding.detach().clone()
        model.grow(5, 4, torch.Generator().manual_seed(7))
        users, items = model.embedding.detach().split([5, 4])
        assert torch.equal(users[:3], old[:3])
        assert torch.equal(items[:2], old[3:])
        assert torch.unique(model.embedding).numel() == model.embedding.numel()
        grown.append(model.embedding.detach())
    assert torch.equal(*grown)


def test_popularity_counts_users_once():
    model = Popularity(U, I)
    model.fit(TRAIN)
    assert model.count.tolist() == [1, 3, 1]
    assert scorer(model, None)(torch.tensor([1, 2])).tolist() == [[1, 3, 1]] * 2
    model.fit(TRAIN, recent=5)
    assert model.count.tolist() == [0, 1, 1]
    model.grow(4, 5)
    assert model.count.tolist() == [0, 1, 1, 0, 0]
    assert str(model) == "Popularity(4, 5)"


def test_scorer_restores_the_mode():
    model = LightGCN(U, I, 4)
    scorer(model, TRAIN.graph())
    assert model.training
    scorer(model.eval(), TRAIN.graph())
    assert not model.training


@pytest.mark.parametrize("make", [lambda: LightGCN(U, I, 4), lambda: MatrixFactorization(U, I, 4), lambda: Popularity(U, I)])
def test_scorer_does_not_follow_the_model(make):
    model = make()
    score = scorer(model, TRAIN.graph())
    before = score(torch.arange(U))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    assert torch.equal(score(torch.arange(U)), before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LightGCN(-1, 3), "num_users must be an int of at least 0, got -1"),
        (lambda: LightGCN(3, 2.0), "num_items must be an int of at least 0, got 2.0"),
        (lambda: LightGCN(3, 3, 0), "embedding_dim must be an int of at least 1, got 0"),
        (lambda: LightGCN(3, 3, K=0, hops="uniform"), "needs steps to choose from"),
        (lambda: LightGCN(3, 3, K=0, edge_dropout=0.5), "edge_dropout=0.5 needs steps over edges"),
        (lambda: LightGCN(3, 3, K=2, inference=3), "a depth from 0 to 2, got 3"),
        (lambda: setattr(MatrixFactorization(3, 3), "inference", 1), "K = 0 is read at 'full', got 1"),
        (lambda: LightGCN(3, 3).embed(None), "needs the graph of its 3 users and 3 items"),
        (lambda: LightGCN(4, 3).embed(TRAIN.graph()), "makes room for new ones"),
        (lambda: LightGCN(4, 3).grow(3, 3), "has 4 users and cannot shrink to 3"),
        (lambda: Popularity(4, 3).grow(4, 2), "cannot shrink to 4 users and 2 items"),
        (lambda: Popularity(3, 3).fit(TRAIN, recent=-1), "recent=-1 must be >= 0"),
        (lambda: Popularity(1, 1).fit(Interactions.from_arrays([0], [0]), recent=1), "needs a table with times"),
    ],
)
def test_errors(call, message):
    with pytest.raises(GesmError, match=message):
        call()
