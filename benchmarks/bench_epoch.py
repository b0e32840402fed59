"""A GESM epoch against the same model written the PyG way, and against PyG's GAT and GCN."""

import pytest

from benchmarks.workloads import epochs

CONTENDERS = ["gesm", "PyG GESM", "PyG GESM, sparse steps", "PyG GAT 8x8", "PyG GCN 16"]


@pytest.mark.parametrize("contender", CONTENDERS)
def test_epoch(dataset, turn, contender, take_time):
    take_time(f"epoch[{dataset}]", contender, epochs(dataset)[contender])
