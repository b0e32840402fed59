"""Options, data sets and the one way to take a time, for `pytest benchmarks --benchmark-only` and `python -m benchmarks`."""

from collections.abc import Callable

import pytest

from benchmarks import machine
from gesm.datasets import locate, registry

SMOKE = "synthetic"
SECONDS_A_TURN = 0.4  # a contender repeats its round for about so long before its rival has its turn


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gesm benchmarks")
    group.addoption("--datasets", default="cora,pubmed", help="comma-separated, of `gesm datasets` (cora,pubmed)")
    group.addoption("--rounds", type=int, default=1, help="turns of each contender, alternating with its rivals' (1)")
    group.addoption("--smoke", action="store_true", help="a tiny made graph, one round: does the suite run at all?")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    known = list(registry())
    for name in _names(config):
        if name not in (*known, SMOKE):
            raise pytest.UsageError(f"there is no data set {name!r}; --datasets takes {', '.join(known)}, comma-separated")


def _names(config: pytest.Config) -> list[str]:
    return [SMOKE] if config.getoption("smoke") else config.getoption("datasets").lower().split(",")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The outer loops, data sets and then turns; the contenders, the innermost loop, are each file's own.

    A `process` is a turn that starts one: it repeats better and takes longer, and there are at most three.
    """
    config = metafunc.config
    if "dataset" in metafunc.fixturenames:
        metafunc.parametrize("dataset", _names(config))
    turns = 1 if config.getoption("smoke") else config.getoption("rounds")
    for name, most in (("turn", turns), ("process", min(turns, 3))):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, range(most))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    machine_info.pop("node", None)
    machine_info.update(machine.describe())


@pytest.fixture
def smoke(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("smoke")


@pytest.fixture(autouse=True)
def _data_is_here(request: pytest.FixtureRequest) -> None:
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("dataset")
    if name in (None, SMOKE):
        return
    if locate(name) is None:
        pytest.skip(f"{name} is not on this machine: set GESM_HOME to a folder that holds it, or run `gesm train {name}` once")


@pytest.fixture(scope="session")
def _warm() -> dict[tuple[str, str], float]:
    return {}


@pytest.fixture
def take_time(benchmark, smoke: bool, _warm: dict) -> Callable:
    """Times one contender of a group: a call or two to warm up, then rounds for about SECONDS_A_TURN, at least one."""

    def take(group: str, contender: str, call: Callable[[], object]) -> None:
        benchmark.group = group
        benchmark.extra_info["contender"] = contender
        if (group, contender) not in _warm:
            first = machine.seconds(call)
            _warm[group, contender] = machine.seconds(call) if first < SECONDS_A_TURN else first
        rounds = 1 if smoke else max(1, min(100, round(SECONDS_A_TURN / _warm[group, contender])))
        benchmark.pedantic(call, rounds=rounds, iterations=1)

    return take
