"""A GESM epoch against the same model written the PyG way, against PyG's GAT and GCN, and against itself with 64 steps."""

import pytest

from benchmarks.workloads import EPOCHS, epochs


@pytest.mark.parametrize("contender", EPOCHS)
def test_epoch(dataset, turn, contender, take_time):
    take_time(f"epoch[{dataset}]", contender, epochs(dataset)[contender])
