import pytest
import torch
from strategies import assert_matches

from gesm import GesmError
from gesm.nn import SparseLinear


def test_sparse_equals_dense_with_bias_and_gradients():
    lin = SparseLinear(7, 3).double()
    x = torch.randn(5, 7, dtype=torch.float64) * (torch.rand(5, 7) > 0.5)
    results = []
    for features in (x, x.to_sparse_csr()):
        out = lin(features)
        results.append((out, *torch.autograd.grad(out.square().sum(), list(lin.parameters()))))
    for a, b in zip(*results, strict=True):
        assert_matches(a, b)


def test_lazy_with_sparse_input():
    lin = SparseLinear(-1, 3)
    assert lin(torch.eye(4).to_sparse_csr()).shape == (4, 3)


def test_lazy_layers_take_the_width_of_a_saved_one():
    saved, lazy = SparseLinear(4, 3), SparseLinear(-1, 3)
    lazy.load_state_dict(saved.state_dict())
    assert lazy.in_channels == 4
    assert lazy(torch.eye(4)).equal(saved(torch.eye(4)))
    saved.load_state_dict(lazy.state_dict())


def test_wrong_width_gets_a_clear_error():
    with pytest.raises(GesmError, match="x has 3 features, but the layer was made for in_channels=7"):
        SparseLinear(7, 3)(torch.ones(2, 3))


def test_a_call_runs_hooks_once():
    lin, calls = SparseLinear(6, 3), []
    lin.register_forward_pre_hook(lambda *_: calls.append(1))
    lin(torch.randn(2, 6))
    assert calls == [1]
