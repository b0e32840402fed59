"""GESM in training, forward + backward, on random graphs: how the time grows with nodes, degree, K and heads."""

import pytest

from benchmarks.workloads import AXES, scaling


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All points of each axis, or its first two."""
    smoke = metafunc.config.getoption("smoke")
    points = [(axis, value) for axis, values in AXES.items() for value in (values[:2] if smoke else values)]
    metafunc.parametrize(("axis", "value"), points)


@pytest.mark.parametrize("contender", ["gesm", "PyG GESM"])
def test_scaling(axis, value, turn, contender, take_time):
    take_time(f"scaling {axis}[{value}]", contender, scaling(axis, value)[contender])
