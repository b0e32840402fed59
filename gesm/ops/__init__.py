"""Sparse operators on a `Graph`: spmm, attend and mix, each with a reference and its own fast backward."""

from gesm.ops._library import backend, use_backend
from gesm.ops.attend import attend, attend_scores, attention_weights
from gesm.ops.dropout_linear import dropout_linear
from gesm.ops.mix import mix
from gesm.ops.spmm import spmm

__all__ = ["attend", "attend_scores", "attention_weights", "backend", "dropout_linear", "mix", "spmm", "use_backend"]
