"""The step mixture, 512 channels to the classes in K = 14 steps, and one step of 64 channels alone."""

from functools import lru_cache

import pytest

from benchmarks.workloads import load, mixes, spmms

CONTENDERS = ["gesm", "PyG gather-scatter", "PyG sparse steps"]


@lru_cache(maxsize=1)
def _mixes(dataset: str):
    data = load(dataset)
    return mixes(data.edge_index, data.num_nodes, data.num_classes)


@lru_cache(maxsize=1)
def _spmms(dataset: str):
    data = load(dataset)
    return spmms(data.edge_index, data.num_nodes)


@pytest.mark.parametrize("contender", CONTENDERS)
def test_mix(dataset, turn, contender, take_time):
    take_time(f"mix forward+backward[{dataset}]", contender, _mixes(dataset)["forward+backward"][contender])


@pytest.mark.parametrize("contender", CONTENDERS)
def test_spmm(dataset, turn, contender, take_time):
    take_time(f"spmm forward+backward[{dataset}]", contender, _spmms(dataset)["forward+backward"][contender])
