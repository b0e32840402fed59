import gc

import numpy as np
import pytest
import torch

from gesm import Graph
from gesm.ops import _memory, attend, dropout_linear, mix, spmm
from gesm.ops._memory import empty
from gesm.ops.elu import bias_elu_


@pytest.fixture
def idle(monkeypatch):
    """Every result comes from the memory of large ones; what waits there at the beginning and the end is nothing."""
    monkeypatch.setattr(_memory, "MAPPED_BYTES", 0)
    _memory._idle.clear()
    yield _memory._idle
    _memory._idle.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_comes_back_when_the_last_view_is_gone_and_is_used_again(idle, dtype):
    x = empty(100, 7, like=torch.ones(1, dtype=dtype))
    assert (x.shape, x.dtype, x.is_contiguous(), x.data_ptr() % 64) == ((100, 7), dtype, True, 0)
    x.fill_(3)
    address, view = x.data_ptr(), x[50:]
    del x
    assert not idle
    assert view.eq(3).all()
    del view
    assert len(idle) == 1
    y = empty(700, like=torch.ones(1, dtype=dtype))
    assert y.data_ptr() == address
    assert not idle


def test_only_memory_of_about_the_size_is_taken(idle):
    like = torch.ones(1)
    del_me = empty(10_000, like=like)
    del del_me
    small, large = empty(5_000, like=like), empty(20_000, like=like)
    assert len(idle) == 1
    assert small.data_ptr() != large.data_ptr()
    assert empty(9_500, like=like).numel() == 9_500


def test_no_more_than_the_limit_waits():
    idle = {}
    for number in range(5):
        lease = _memory._Lease(np.empty(100, dtype=np.uint8))
        lease.memory[0] = number
        lease.__del__(idle, 250)
        lease.memory = np.empty(0, dtype=np.uint8)  # for the true __del__
    assert [memory[0] for memory in idle.values()] == [3, 4]
    _memory._idle.clear()


def operators():
    graph = Graph(torch.randint(30, (2, 200)), torch.rand(200), 30).transition()
    heads = lambda x: x.view(30, 2, 4)  # noqa: E731
    score, weight = torch.randn(30, 2), torch.rand(graph.num_edges, 2)
    linear = torch.randn(3, 8)
    return {
        "spmm": lambda x: spmm(graph, x),
        "spmm with heads": lambda x: spmm(graph, heads(x), weight),
        "attend": lambda x: attend(graph, heads(x), score, score, dropout=0.5, seed=torch.tensor([3]), residual=True),
        "mix": lambda x: mix(graph, x, 3),
        "dropout_linear": lambda x: torch.manual_seed(0) and dropout_linear(x, linear, 0.5),
        "bias_elu_": lambda x: bias_elu_(x * 1),
    }


@pytest.mark.parametrize("name", operators())
def test_operators_in_used_memory_give_the_same_bits(idle, poisoned, monkeypatch, name):
    monkeypatch.setattr(_memory.np, "empty", lambda *args, **kwargs: np.full(*args, 255, **kwargs))  # NaN
    x, op = torch.randn(30, 8).requires_grad_(), operators()[name]

    def run():
        out = op(x)
        return [t.clone() for t in (out, *torch.autograd.grad(out.square().sum(), x))]

    first = run()
    assert not any(t.isnan().any() for t in first)
    for memory in idle.values():
        memory.fill(255)
    for _ in range(2):
        for before, after in zip(first, run(), strict=True):
            assert after.equal(before)


@pytest.mark.parametrize(
    "name", sorted(operators().keys() - {"bias_elu_"})
)  # whose result its gradient needs, as that of F.elu_
def test_results_may_be_written_into(idle, name):
    x, op = torch.randn(30, 8).requires_grad_(), operators()[name]
    factor = torch.rand(())
    (expected,) = torch.autograd.grad(op(x).sum(), x)
    (actual,) = torch.autograd.grad(op(x).mul_(factor).sum(), x)
    assert actual.allclose(factor * expected, atol=1e-6)


def test_a_lease_may_end_while_memory_is_taken(idle):
    """A garbage collection can run at any allocation, and give memory back in the middle of `empty`."""
    like, before = torch.ones(1), gc.get_threshold()
    gc.set_threshold(1)
    try:
        for size in range(100, 400):
            cycle = [empty(size, like=like)]
            cycle.append(cycle)
            del cycle
            empty(size + 50, like=like)
    finally:
        gc.set_threshold(*before)
