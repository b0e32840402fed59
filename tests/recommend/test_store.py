import numpy as np
import pytest
import torch

from gesm import GesmError
from gesm.recommend import Interactions, Settings, TrainedRecommender, fit


def train(interactions, **changes):
    settings = Settings(embedding_dim=4, K=2, epochs=3).replace(**changes)
    model = settings.build_model(interactions.num_users, interactions.num_items)
    fit(model, interactions, settings)
    return TrainedRecommender(model, settings, interactions)


@pytest.fixture(scope="module")
def trained(communities):
    return train(communities, hops="uniform", inference="expected")


@pytest.fixture
def folder(trained, tmp_path):
    trained.save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "changes", [{"model": "mixture"}, {"model": "mf"}, {"model": "popularity"}, {"hops": [0, 1, 1]}], ids=str
)
def test_round_trip(changes, communities, tmp_path):
    before = train(communities, **changes)
    before.save(tmp_path / "a" / "b")
    after = TrainedRecommender.load(tmp_path / "a" / "b")
    assert after.settings == before.settings
    assert {f.name for f in (tmp_path / "a" / "b").iterdir()} == {"settings.yaml", "interactions.npz", "model.safetensors"}
    for key in ("user", "item", "time"):
        assert torch.equal(getattr(after.train, key), getattr(communities, key))
    assert after.train.name == "communities"
    users = communities.user_ids[:7]
    assert np.array_equal(after.recommend(users, 5), before.recommend(users, 5))


def test_text_ids_and_no_times(tmp_path):
    table = Interactions.from_arrays(["b", "a", "b"], ["y", "x", "z"], weight=[1.0, 2.0, 3.0])
    train(table).save(tmp_path)
    after = TrainedRecommender.load(tmp_path)
    assert after.train.time is None
    assert after.train.weight.tolist() == [1, 2, 3]
    assert after.recommend(["a", "b"], 3).tolist()[1] == ["x", None, None]


def test_recommends_only_what_is_new_and_known(trained, communities):
    lists = trained.recommend(communities.user_ids, 5)
    for row, items in enumerate(lists):
        own = set(communities.item_ids[communities.item[communities.user == row]])
        assert not own & set(items)
    assert trained.recommend([str(communities.user_ids[3])], 5).tolist() == lists[3:4].tolist()


def test_cold_users(trained, communities):
    popular = trained.recommend([3, 999], 4, cold="popularity")[1]
    count = torch.bincount(communities.pairs().item)
    assert count[torch.tensor(list(popular))].tolist() == count.sort(descending=True).values[:4].tolist()
    assert trained.numbers([0, 999, "12"]).tolist() == [0, -1, 12]
    assert trained.numbers([4.0, 999.0]).tolist() == [4, -1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.recommend([1, 999, 1000]), "knows nothing of user 999, 1000"),
        (lambda t: t.recommend(range(100, 120)), "and 15 more"),
        (lambda t: t.recommend(["anna"]), "user ids are whole numbers, such as 0, got anna"),
        (lambda t: t.recommend([1, 4.7]), "user ids are whole numbers, such as 0, got 1, 4.7"),
        (lambda t: t.numbers(np.array([4.7, 3], dtype=object)), "whole numbers, such as 0, got 4.7, 3"),
        (lambda t: t.numbers([np.nan]), "whole numbers, such as 0, got nan"),
        (lambda t: t.numbers([1e300]), "whole numbers, such as 0, got 1e"),
        (lambda t: t.numbers([None]), "whole numbers, such as 0, got None"),
        (lambda t: t.recommend([1], cold="random"), "cold must be 'error' or 'popularity', got 'random'"),
        (lambda t: t.recommend([]), "there is no user to recommend to"),
        (lambda t: t.recommend([1], k=31), "k is 31, but only 30 items"),
    ],
)
def test_bad_requests(call, message, trained):
    with pytest.raises(GesmError, match=message):
        call(trained)


def test_a_folder_is_not_overwritten_by_chance(trained, folder, tmp_path):
    with pytest.raises(GesmError, match="already holds a recommender"):
        trained.save(folder)
    trained.save(folder, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(GesmError, match="is a file; pass a folder"):
        trained.save(tmp_path / "file")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("settings.yaml", lambda p: p.unlink(), "settings.yaml is missing"),
        ("model.safetensors", lambda p: p.unlink(), "model.safetensors is missing"),
        ("settings.yaml", lambda p: p.write_text("model: svd"), "model must be one of"),
        ("settings.yaml", lambda p: p.write_text("embedding_dim: 5"), "does not fit settings.yaml"),
        ("model.safetensors", truncate, "cannot be read"),
        ("interactions.npz", truncate, "interactions.npz was altered"),
    ],
)
def test_damage_is_seen(name, damage, message, folder):
    damage(folder / name)
    with pytest.raises(GesmError, match=message):
        TrainedRecommender.load(folder)


def test_pickles_are_refused(folder, monkeypatch):
    np.savez(folder / "interactions.npz", user=np.array([{}], dtype=object))
    monkeypatch.setattr("zlib.crc32", lambda *_: 0)
    monkeypatch.setattr("gesm.recommend.store.load_tensors", lambda _: ({}, {"interactions": 0}))
    with pytest.raises(GesmError, match="cannot be read as interactions without pickles"):
        TrainedRecommender.load(folder)


def test_a_number_that_does_not_fit_is_nobodys():
    table = Interactions.from_arrays(np.array([7, 8], dtype=np.int32), [1, 2])
    assert train(table).numbers([2**32 + 7, 7]).tolist() == [-1, 0]


def test_a_changed_model_recommends_anew(communities):
    trained = train(communities, hops="uniform", inference="expected")
    users, fresh = communities.user_ids[:9], lambda: TrainedRecommender(trained.model, trained.settings, communities)
    trained.recommend(users, 5)
    trained.model.inference = 0
    assert np.array_equal(trained.recommend(users, 5), fresh().recommend(users, 5))
    with torch.no_grad():
        trained.model.embedding.neg_()
    assert np.array_equal(trained.recommend(users, 5), fresh().recommend(users, 5))


def test_more_than_there_is_is_refused_before_anything_is_made(trained):
    with pytest.raises(GesmError, match="k is 1000000000000, but only 30 items can be ranked"):
        trained.recommend(trained.train.user_ids[:1], 10**12)
