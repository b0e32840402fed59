"""Edge softmax and weighted sum, 8 heads of 64, against PyG's gather-scatter."""

from functools import lru_cache

import pytest

from benchmarks.workloads import attends, load


@lru_cache(maxsize=1)
def _attends(dataset: str):
    data = load(dataset)
    return attends(data.edge_index, data.num_nodes)


@pytest.mark.parametrize("contender", ["gesm", "PyG gather-scatter"])
@pytest.mark.parametrize("mode", ["forward", "forward+backward"])
def test_attend(dataset, mode, turn, contender, take_time):
    take_time(f"attend {mode}[{dataset}]", contender, _attends(dataset)[mode][contender])
