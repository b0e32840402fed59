"""The operators: edge softmax and weighted sum (8 heads of 64), the mixture (512 channels to the classes), one step of 64."""

from functools import lru_cache

import pytest

from benchmarks.workloads import attends, load, mixes, spmms

STEPS = ["gesm", "PyG gather-scatter", "PyG sparse steps"]


@lru_cache(maxsize=1)
def _attends(dataset: str):
    data = load(dataset)
    return attends(data.edge_index, data.num_nodes)


@lru_cache(maxsize=1)
def _mixes(dataset: str):
    data = load(dataset)
    return mixes(data.edge_index, data.num_nodes, data.num_classes)


@lru_cache(maxsize=1)
def _spmms(dataset: str):
    data = load(dataset)
    return spmms(data.edge_index, data.num_nodes)


@pytest.mark.parametrize("contender", ["gesm", "PyG gather-scatter"])
@pytest.mark.parametrize("mode", ["forward", "forward+backward"])
def test_attend(dataset, mode, turn, contender, take_time):
    take_time(f"attend {mode}[{dataset}]", contender, _attends(dataset)[mode][contender])


@pytest.mark.parametrize("contender", STEPS)
def test_mix(dataset, turn, contender, take_time):
    take_time(f"mix forward+backward[{dataset}]", contender, _mixes(dataset)["forward+backward"][contender])


@pytest.mark.parametrize("contender", STEPS)
def test_spmm(dataset, turn, contender, take_time):
    take_time(f"spmm forward+backward[{dataset}]", contender, _spmms(dataset)["forward+backward"][contender])
