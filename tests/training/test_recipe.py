import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gesm.errors import GesmError
from gesm.training import Recipe
from gesm.training.recipe import MODELS, RECIPES

DATASETS = ("citeseer", "computers", "cora", "cs", "photo", "physics", "ppi", "pubmed")
OWN = ("gesm", "gsm", "mixed_mlp")
KEYS = [f.name for f in dataclasses.fields(Recipe)]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_shipped_recipes_parse(path):
    assert Recipe.load(path) == Recipe.for_dataset(path.parent.name, name=path.stem)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("model", OWN)
def test_every_dataset_has_a_recipe_for_every_model(dataset, model):
    assert Recipe.for_dataset(dataset, model).model == model


@pytest.mark.parametrize("model", MODELS)
def test_yaml_round_trip(tmp_path, model):
    recipe = Recipe(model=model, lr=1e-5, sparse_features=False, dropout=0.3)
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    assert Recipe.load(tmp_path / "r.yaml") == recipe


def test_yaml_reads_short_floats(tmp_path):
    (tmp_path / "r.yaml").write_text("lr: 1e-3\nweight_decay: 0\n")
    assert Recipe.load(tmp_path / "r.yaml") == Recipe(lr=0.001)


def test_what_is_left_out_is_the_constructors():
    assert Recipe().to_dict().items() >= {"K": 14, "num_layers": 1, "normalization": "col"}.items()
    assert Recipe(model="mixed_mlp").to_dict().items() >= {"K": 8, "normalization": "sym"}.items()
    assert [Recipe(model=model).K for model in ("sgc", "appnp")] == [2, 10]
    assert [Recipe(model=model).num_layers for model in ("gcn", "gat", "gcnii", "mixhop", "mlp")] == [2, 2, 64, 2, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 1", "no key 'learning_rate'; allowed keys: model, hidden_channels"),
        ("hiden_channels: 8", "did you mean 'hidden_channels'"),
        ("model: gsm\nheads: 8", "gsm has no key 'heads'"),
        ("model: tree", "model must be one of gesm, gsm, mixed_mlp, sgc, appnp, gcn, gat, gcnii, mixhop, mlp, got 'tree'"),
        ("model: [gesm]", "model must be one of"),
        ("lr: 0", "lr must be a number in (0, inf), got 0"),
        ("lr: fast", "lr must be a number in (0, inf), got 'fast'"),
        ("lr: .nan", "lr must be a number"),
        ("lr: .inf", "lr must be a number"),
        ("dropout: 1.0", r"dropout must be a number in [0, 1), got 1"),
        ("dropout: true", "dropout must be a number"),
        ("heads: 2.0", "heads must be an integer in [1, inf), got 2.0"),
        ("heads: true", "heads must be an integer"),
        ("K: -1", "K must be an integer in [0, inf), got -1"),
        ("residual: 1", "residual must be one of True, False, got 1"),
        ("sparse_features: 'true'", "sparse_features must be one of auto, True, False, got 'true'"),
        ("structure_ratio: 0", "structure_ratio must be a number in (0, 1]"),
        ("consistency_alignment: 1.5", "consistency_alignment must be a number in [0, 1], got 1.5"),
        ("consistency_draws: 2", "needs random depths; set hop_sampling to uniform or geometric"),
        ("hop_sampling: normal", "hop_sampling must be one of none, uniform, geometric"),
        ("model: mixed_mlp\nheads: 8", "mixed_mlp has no key 'heads'"),
        ("alpha: 0.5", "gesm has no key 'alpha'"),
        ("model: gcn\nnormalization: sym", "gcn has no key 'normalization'"),
        ("model: gcn\nbatch_norm: both", "batch_norm=both needs mixed_mlp, whose features are mixed; for gcn set it to hidden"),
        ("model: gcn\nstructure_weight: 1", "needs a model with an embedding, one of gesm, gsm, mixed_mlp; gcn has none"),
        ("input_weight_decay: -1", "input_weight_decay must be a number in [0, inf), got -1"),
        ("patience: 2\neval_every: 3", "eval_every (3) must not exceed patience (2)"),
        ("- lr", "expected `key: value` lines, got list"),
        ("lr: [", "not a YAML file"),
    ],
)
def test_bad_files_name_key_file_and_what_is_allowed(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(GesmError) as error:
        Recipe.load(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))


@given(key=st.sampled_from(KEYS), value=st.one_of(st.none(), st.lists(st.integers()), st.floats(-9, -0.1), st.text("x")))
def test_no_field_takes_nonsense(key, value):
    assume(value is not None or getattr(Recipe, key) is not None)
    with pytest.raises(GesmError, match=rf"^{key} must be "):
        Recipe(**{key: value})


@given(st.text(min_size=1).filter(lambda key: key not in KEYS))
def test_unknown_keys_are_refused(key):
    with pytest.raises(GesmError, match="allowed keys"):
        Recipe.from_dict({key: 1})


def test_missing_files_and_names(tmp_path):
    with pytest.raises(GesmError, match="cannot read recipe"):
        Recipe.load(tmp_path / "none.yaml")
    with pytest.raises(GesmError, match=r"recipes of cora: .*gesm, gesm_consistency, gsm"):
        Recipe.for_dataset("cora", name="finest")
    with pytest.raises(GesmError, match="no recipe is shipped for 'reddit'"):
        Recipe.for_dataset("reddit")


def test_a_protocol_may_have_its_own_recipes(tmp_path, monkeypatch):
    monkeypatch.setattr("gesm.training.recipe.RECIPES", tmp_path)
    (tmp_path / "photo" / "60-20-20").mkdir(parents=True)
    for folder, K in ((tmp_path / "photo", 2), (tmp_path / "photo" / "60-20-20", 3)):
        (folder / "gesm.yaml").write_text(f"K: {K}\n")
    (tmp_path / "photo" / "gsm.yaml").write_text("model: gsm\n")
    assert [Recipe.for_dataset("photo", protocol=p).K for p in (None, "shchur", "60/20/20")] == [2, 2, 3]
    assert Recipe.for_dataset("photo", "gsm", protocol="60/20/20").model == "gsm"


def test_replace_checks_and_keeps():
    recipe = Recipe(heads=2, K=3)
    assert recipe.replace(K=4) == Recipe(heads=2, K=4)
    assert recipe.replace(model="gsm") == Recipe(model="gsm", K=3)
    with pytest.raises(GesmError, match="no key 'head'"):
        recipe.replace(head=1)


@pytest.mark.parametrize("model", MODELS)
def test_build_model(model):
    built = Recipe(model=model, hidden_channels=4, K=2).build_model(5, 3)
    assert type(built).__name__ == MODELS[model][0]
    assert type(Recipe(model=model, hop_sampling="uniform").build_model(5, 3).module).__name__ == MODELS[model][0]
