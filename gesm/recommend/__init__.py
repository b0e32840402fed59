"""Recommendation on the bipartite graph of users and items: `load("movietweetings")`, `rolling_origins`, `evaluate`."""

from gesm.recommend.bootstrap import Comparison, paired_bootstrap
from gesm.recommend.core import k_core
from gesm.recommend.datasets import InteractionSpec, item_names, load, registry
from gesm.recommend.drift import simulate
from gesm.recommend.interactions import Interactions, Pairs
from gesm.recommend.losses import bpr_loss, pair_scores, sampled_softmax_loss
from gesm.recommend.models import LightGCN, MatrixFactorization, Popularity, StepMixtureRecommender, scorer
from gesm.recommend.propagation import EmbeddingPropagation
from gesm.recommend.ranking import Ranking, evaluate, top_k
from gesm.recommend.read import read_interactions
from gesm.recommend.sampling import NegativeSampler
from gesm.recommend.settings import Settings
from gesm.recommend.split import Targets, Window, rolling_origins, targets, temporal_split
from gesm.recommend.store import TrainedRecommender
from gesm.recommend.training import fit, refit

__all__ = [
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
]
