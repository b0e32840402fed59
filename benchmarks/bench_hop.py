"""What hop sampling costs: GESM steps with the wrapper, with random depths and with the consistency of several draws."""

import pytest

from benchmarks.workloads import HOPS, hops


@pytest.mark.parametrize("contender", HOPS)
def test_hop(dataset, turn, contender, take_time):
    take_time(f"hop[{dataset}]", contender, hops(dataset)[contender])
