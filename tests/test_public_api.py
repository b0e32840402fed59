"""What users may import. A change here is a change of the public interface: it belongs in CHANGELOG.md."""

import importlib

import pytest

PUBLIC = {
    "gesm": ["GesmError", "Graph", "__version__", "as_graph"],
    "gesm.datasets": ["Spec", "home", "load", "locate", "registry", "synthetic"],
    "gesm.metrics": ["dirichlet_energy", "mean_average_distance"],
    "gesm.models": ["GESM", "GSM", "MixedMLP"],
    "gesm.nn": [
        "EntityAttention",
        "GESMConv",
        "HopConsistency",
        "HopSampling",
        "SparseLinear",
        "StepMixture",
        "StructureLoss",
        "functional",
    ],
    "gesm.nn.functional": ["hop_probabilities", "hop_sampling"],
    "gesm.ops": ["attend", "attend_scores", "attention_weights", "backend", "dropout_linear", "mix", "spmm", "use_backend"],
    "gesm.recommend": [
        "Comparison",
        "EmbeddingPropagation",
        "InteractionSpec",
        "Interactions",
        "LightGCN",
        "MatrixFactorization",
        "NegativeSampler",
        "Pairs",
        "Popularity",
        "Ranking",
        "Settings",
        "StepMixtureRecommender",
        "Targets",
        "TrainedRecommender",
        "Window",
        "bpr_loss",
        "evaluate",
        "fit",
        "item_names",
        "k_core",
        "load",
        "pair_scores",
        "paired_bootstrap",
        "read_interactions",
        "refit",
        "registry",
        "rolling_origins",
        "sampled_softmax_loss",
        "scorer",
        "simulate",
        "targets",
        "temporal_split",
        "top_k",
    ],
    "gesm.training": ["Epoch", "Recipe", "Result", "Task", "Trained", "fit", "fit_many", "pick_device", "summarize"],
}


@pytest.mark.parametrize("name", PUBLIC)
def test_all_is_pinned(name):
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(PUBLIC[name])
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_exists_and_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for public in module.__all__:
        thing = getattr(module, public)
        assert isinstance(thing, str) or thing.__doc__, f"{name}.{public} has no docstring"
