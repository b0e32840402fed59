"""The layers in training, forward + backward: EntityAttention from X, StepMixture from [N, 512] to the classes, K = 14."""

from functools import lru_cache

import pytest

from benchmarks.workloads import layers

_layers = lru_cache(maxsize=1)(layers)


@pytest.mark.parametrize(
    ("layer", "contender"),
    [("EntityAttention", "gesm"), ("EntityAttention", "PyG layer"), ("StepMixture", "gesm"), ("StepMixture", "PyG TAGConv")],
)
def test_layer(dataset, turn, layer, contender, take_time):
    take_time(f"{layer}[{dataset}]", contender, _layers(dataset)[layer][contender])
