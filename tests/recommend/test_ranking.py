import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.metrics import (
    LinkPredAveragePopularity,
    LinkPredCoverage,
    LinkPredDiversity,
    LinkPredMAP,
    LinkPredNDCG,
    LinkPredPersonalization,
    LinkPredRecall,
)

from gesm import GesmError
from gesm.recommend import Interactions, Targets, Window, evaluate, targets, top_k


def scorer(scores):
    return lambda users: scores[users]


def naive(ranked, relevant, k):
    hits = [item in relevant for item in ranked[:k]]
    dcg = sum(hit / math.log2(j + 2) for j, hit in enumerate(hits))
    ideal = sum(1 / math.log2(j + 2) for j in range(min(k, len(relevant))))
    precision = [sum(hits[: j + 1]) / (j + 1) for j in range(len(hits))]
    return {
        "ndcg": dcg / ideal,
        "map": sum(p * hit for p, hit in zip(precision, hits, strict=True)) / min(k, len(relevant)),
        "recall": sum(hits) / len(relevant),
        "precision": sum(hits) / k,
        "hit": float(any(hits)),
    }


def random_window(seed, num_users=12, num_items=15, train=40, test=40):
    rng = np.random.default_rng(seed)
    n = train + test
    data = Interactions(
        user=torch.from_numpy(rng.integers(num_users, size=n)),
        item=torch.from_numpy(rng.integers(num_items, size=n)),
        time=torch.arange(n),
        weight=None,
        num_users=num_users,
        num_items=num_items,
        user_ids=np.arange(num_users),
        item_ids=np.arange(num_items),
    )
    return Window(data.select(range(train)), data.select(range(train, n)))


def test_top_k_excludes_and_bars():
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    users = torch.tensor([1, 0])
    assert top_k(scorer(scores), users, 2).tolist() == [[3, 2], [0, 1]]
    exclude = Interactions.from_arrays([0, 1], [0, 3]).matrix()
    exclude = type(exclude)(([1.0, 1.0], ([0, 1], [0, 3])), shape=(2, 4))
    assert top_k(scorer(scores), users, 2, exclude).tolist() == [[2, 1], [1, 2]]
    for candidates in (torch.tensor([0, 2, 3]), torch.tensor([True, False, True, True])):
        assert top_k(scorer(scores), users, 3, exclude, candidates).tolist() == [[2, 0, -1], [2, 3, -1]]
    assert top_k(scorer(scores), users[:0], 2).shape == (0, 2)


@given(st.integers(0, 1000), st.integers(1, 7))
def test_top_k_equals_a_sort_in_any_batches(seed, batch):
    window = random_window(seed)
    scores = torch.randn(12, 15, generator=torch.Generator().manual_seed(seed))
    exclude = window.train.matrix()
    kept = scores.clone()
    lists = top_k(scorer(scores), torch.arange(12), 5, exclude, batch=batch)
    assert scores.equal(kept)  # what the model returned is not written to
    for user in range(12):
        order = [i for i in scores[user].argsort(descending=True).tolist() if not exclude[[user]].toarray()[0, i]][:5]
        assert lists[user].tolist() == order + [-1] * (5 - len(order))


@given(st.integers(0, 1000), st.sampled_from(["new", "repeat", "all"]), st.integers(1, 6))
def test_metrics_equal_a_naive_reference(seed, kind, k):
    window = random_window(seed)
    found = targets(window, kind)
    scores = torch.randn(12, 15, generator=torch.Generator().manual_seed(seed))
    result = evaluate(scorer(scores), found, window.train, (k,), batch=5)
    assert result.users.equal(found.users)
    warm = set(window.train.item.tolist())
    pairs = set(zip(window.train.user.tolist(), window.train.item.tolist(), strict=True))
    sums = dict.fromkeys(("ndcg", "map", "recall", "precision", "hit"), 0.0)
    for row, user in enumerate(found.users.tolist()):
        barred = {i for u, i in pairs if u == user} if kind == "new" else set()
        ranked = [i for i in scores[user].argsort(descending=True).tolist() if i in warm - barred]
        expected = naive(ranked, set(found.item[found.user == user].tolist()), k)
        for name, value in expected.items():
            assert result.per_user[f"{name}@{k}"][row].item() == pytest.approx(value, abs=1e-6)
            sums[name] += value
    for name, value in sums.items():
        assert result.mean[f"{name}@{k}"] == pytest.approx(value / len(found.users), abs=1e-6)
        assert result.per_user[f"{name}@{k}"].mean().item() == pytest.approx(result.mean[f"{name}@{k}"], abs=1e-6)


def test_the_means_are_those_of_the_classes():
    window = random_window(3, num_users=60, num_items=40, train=200, test=300)
    found = targets(window)
    category = torch.arange(40) % 3
    scores = torch.randn(60, 40)
    result = evaluate(scorer(scores), found, window.train, (5, 10), category)
    assert result.items.shape == (len(found.users), 10)
    labels = torch.stack([torch.searchsorted(found.users, found.user), found.item])
    count = torch.bincount(window.train.pairs().item, minlength=40)
    place = (count > 0).cumsum(0) - 1
    for k in (5, 10):
        for name, metric in (
            ("ndcg", LinkPredNDCG(k)),
            ("map", LinkPredMAP(k)),
            ("recall", LinkPredRecall(k)),
            ("personalization", LinkPredPersonalization(k)),
            ("popularity", LinkPredAveragePopularity(k, count)),
            ("diversity", LinkPredDiversity(k, category)),
            ("coverage", LinkPredCoverage(k, int((count > 0).sum()))),
        ):
            metric.update(place[result.items] if name == "coverage" else result.items, labels)
            assert result.mean[f"{name}@{k}"] == pytest.approx(metric.compute().item(), abs=1e-5), name


def test_the_denominator_of_map_is_the_smaller_of_targets_and_k():
    train = Interactions.from_arrays([0] * 5, list(range(5)), [0] * 5)
    test = train.select([0, 1, 2])
    result = evaluate(lambda users: torch.arange(5.0, 0, -1)[None], targets(Window(train, test), "repeat"), train, (2,))
    assert result.mean["map@2"] == 1  # two places for three targets, both filled
    assert result.mean["recall@2"] == pytest.approx(2 / 3)


def test_short_lists_count_in_the_metrics_of_users_only():
    train = Interactions.from_arrays([0, 0, 1, 2, 2], [0, 1, 0, 0, 2], [0] * 5)
    test = Interactions.from_arrays([0, 1, 2], [2, 1, 1], [1] * 3)
    found = Targets("new", test.user, torch.tensor([2, 1, 1]), torch.arange(3), 3, 3, 0, 0, 1.0, 1.0, 1.0)
    result = evaluate(lambda users: torch.tensor([3.0, 2.0, 1.0]).expand(len(users), -1), found, train, (2,))
    assert result.items.tolist() == [[2, -1], [1, 2], [1, -1]]
    assert result.per_user["hit@2"].tolist() == [1, 1, 1]
    assert result.mean["coverage@2"] == pytest.approx(2 / 3)
    assert "personalization@2" not in result.mean
    alone = Targets("new", found.user[:1], found.item[:1], found.users[:1], 1, 1, 0, 0, 1.0, 1.0, 1.0)
    assert "coverage@2" not in evaluate(lambda users: torch.ones(len(users), 3), alone, train, (2,)).mean


@given(st.integers(0, 2**16), st.integers(1, 15))
def test_of_equal_scores_the_lower_number_comes_first(seed, k):
    scores = torch.randint(-1, 3, (4, 15), generator=torch.Generator().manual_seed(seed)).float()
    scores[scores < 0] = -torch.inf
    found = top_k(scorer(scores), torch.arange(4), k)
    order = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(found, order.indices.masked_fill(order.values == -torch.inf, -1)[:, :k])


def test_no_users():
    window = random_window(0)
    none = torch.empty(0, dtype=torch.int64)
    assert top_k(scorer(torch.randn(12, 15)), none, 3, window.train.matrix()).shape == (0, 3)


def call(name, **changes):
    window = random_window(0)
    found = targets(window)
    if name == "evaluate":
        settings = {"score": scorer(torch.randn(12, 15)), "targets": found, "train": window.train, "k": (2,)}
        return lambda: evaluate(
            **settings | {k: v(window) if callable(v) and k == "targets" else v for k, v in changes.items()}
        )
    return lambda: top_k(**{"score": scorer(torch.randn(12, 15)), "users": torch.arange(12), "k": 2} | changes)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (call("top_k", k=0), "k must be an int >= 1, got 0"),
        (call("top_k", batch=0), "batch must be"),
        (call("top_k", k=16), "only 15 items can be ranked"),
        (call("top_k", users=[1]), "users must be an int64 tensor"),
        (call("top_k", users=torch.tensor([0, -1])), "users must be numbers from 0 up, got -1"),
        (call("top_k", score=scorer(torch.ones(12, 15, dtype=torch.long))), "score must return floats, got torch.int64"),
        (call("top_k", score=lambda users: torch.zeros(3)), r"score must return a tensor \[12, num_items\]"),
        (call("top_k", score=lambda users: None), "got NoneType"),
        (call("top_k", score=scorer(torch.full((12, 15), torch.nan))), "NaN"),
        (call("top_k", exclude=Interactions.from_arrays([0], [0]).matrix()), "exclude has shape"),
        (call("top_k", candidates=torch.tensor([15])), "candidates go from 15 to 15 of 15 items"),
        (call("top_k", candidates=torch.tensor([0.5])), "candidates must be int64"),
        (call("evaluate", k=5), "k must be one or more ints"),
        (call("evaluate", k=()), "k must be one or more ints"),
        (call("evaluate", category=torch.zeros(3)), r"category must have shape \[15\]"),
        (
            call("evaluate", targets=lambda w: targets(Window(w.train, w.train.select([0])))),
            "no user has a target of kind 'new'",
        ),
    ],
)
def test_errors(bad, message):
    with pytest.raises(GesmError, match=message):
        bad()
