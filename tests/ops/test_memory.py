import numpy as np
import pytest
import torch

from gesm import Graph
from gesm.ops import _memory, attend, spmm
from gesm.ops._memory import empty


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


def test_operators_in_used_memory_give_the_same_bits(idle, poisoned):
    graph = Graph(torch.randint(30, (2, 200)), None, 30).transition()
    x, a, c = (torch.randn(30, *size).requires_grad_() for size in ((2, 4), (2,), (2,)))

    def run():
        out = attend(graph, x, a, c, residual=True) + spmm(graph, x)
        return [t.clone() for t in (out, *torch.autograd.grad(out.square().sum(), (x, a, c)))]

    first = run()
    assert idle
    for memory in idle.values():
        memory.fill(255)  # NaN
    for _ in range(2):
        for before, after in zip(first, run(), strict=True):
            assert after.equal(before)
