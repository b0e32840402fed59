import numpy as np
import pytest
import torch

from gesm import GesmError
from gesm.recommend import LightGCN, MatrixFactorization, Popularity, Settings, StepMixtureRecommender


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, LightGCN),
        ({"model": "mixture", "hops": "uniform", "inference": "expected"}, StepMixtureRecommender),
        ({"model": "mf"}, MatrixFactorization),
        ({"hops": ("geometric", 0.3)}, LightGCN),
        ({"hops": {"distribution": ["geometric", 0.3]}}, LightGCN),
        ({"model": "popularity", "recent": 60}, Popularity),
        ({"hops": {"distribution": [0, 0, 1, 1], "per": "node"}, "inference": 2, "batch_size": 8, "lr": "1e-3"}, LightGCN),
    ],
)
def test_round_trip_and_model(values, kind, tmp_path):
    settings = Settings.from_dict(values)
    (tmp_path / "s.yaml").write_text(settings.to_yaml())
    assert Settings.load(tmp_path / "s.yaml") == settings
    model = settings.build_model(3, 2)
    assert type(model) is kind
    assert getattr(model, "inference", "full") == settings.inference


def test_build_is_seeded_and_leaves_the_generator():
    before = torch.random.get_rng_state()
    models = [Settings(seed=seed).build_model(3, 2).embedding for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


@pytest.mark.parametrize("hops", [np.array([0, 0, 1.5, 1]), torch.tensor([0, 0, 1.5, 1]), [np.float64(0), 0, 1.5, np.int64(1)]])
def test_weights_of_depths_of_any_type(hops, tmp_path):
    settings = Settings(hops=hops)
    assert settings.hops == [0, 0, 1.5, 1]
    (tmp_path / "s.yaml").write_text(settings.to_yaml())
    assert Settings.load(tmp_path / "s.yaml") == settings == Settings(hops={"distribution": hops}).replace(hops=hops)
    assert settings.build_model(2, 2).hops == settings.hops


def test_replace_is_checked():
    assert Settings().replace(K=1).K == 1
    with pytest.raises(GesmError, match="lr must be a number above 0, got -1"):
        Settings().replace(lr=-1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "svd"}, "model must be one of lightgcn, mixture, mf, popularity, got 'svd'"),
        ({"loss": "mse"}, "loss must be one of bpr, softmax, got 'mse'"),
        ({"K": 1.5}, "K must be an integer at least 0, got 1.5"),
        ({"epochs": 0}, "epochs must be an integer at least 1, got 0"),
        ({"epochs": None}, "epochs must be an integer at least 1, got None"),
        ({"lr": "fast"}, "lr must be a number above 0, got 'fast'"),
        ({"edge_dropout": 1}, "edge_dropout must be a number at least 0 and below 1, got 1.0"),
        ({"batch_size": 0}, r"batch_size must be an integer at least 1 \(or None\), got 0"),
        ({"model": "mf", "hops": "uniform"}, "models of K >= 1 steps, but model is mf"),
        ({"K": 0, "inference": "expected"}, "but model is lightgcn with K = 0"),
        ({"recent": 5}, "recent is for model popularity"),
        ({"hops": np.ones(3)}, "settings: a distribution over the depths 0 ... 3 has 4 weights"),
        ({"hops": []}, "settings: .*depths 0 ... 3"),
        ({"hops": "poisson"}, "settings: .*'poisson'"),
        ({"hops": {"depth": 3}}, "hops takes distribution and per, got depth"),
        ({"inference": 4}, "inference must be 'full', 'expected' or a depth from 0 to 3, got 4"),
        ({"inference": "mean"}, "inference must be 'full'"),
        ({"epoch": 3}, r"no key 'epoch' \(did you mean 'epochs'\?\)"),
        ([1], "expected `key: value` lines, got list"),
    ],
)
def test_errors(values, message):
    with pytest.raises(GesmError, match=message):
        Settings.from_dict(values)


def test_files_that_are_none(tmp_path):
    with pytest.raises(GesmError, match="cannot read settings"):
        Settings.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(GesmError, match="not a YAML file"):
        Settings.load(tmp_path / "bad.yaml")
    with pytest.raises(GesmError, match="cannot be written to a file"):
        Settings(hops=lambda K: [0.0, *[1.0] * K]).to_yaml()
