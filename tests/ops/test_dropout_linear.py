import sys

import pytest
import torch
from strategies import assert_matches

from gesm import GesmError
from gesm.ops import _random, dropout_linear


def drop(x, weight, p, seed=0):
    torch.manual_seed(seed)
    return dropout_linear(x, weight, p)


@pytest.mark.parametrize("shape", [(1001, 7), (3, 1), (1, 5), (0, 4), (4, 0)])
def test_is_the_linear_map_of_masked_features_with_its_gradients(shape, poisoned):
    x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, shape[1], dtype=torch.float64, requires_grad=True)
    mask = drop(torch.ones(shape).double(), torch.eye(shape[1]).double(), 0.4)
    if x.numel() > 1000:
        assert abs((mask != 0).double().mean() - 0.6) < 0.02
        assert_matches(mask[mask != 0], torch.full_like(mask[mask != 0], 1 / 0.6), rtol=1e-4)
    results = []
    for out in (drop(x, weight, 0.4), (x * mask) @ weight.t()):
        results.append((out, *torch.autograd.grad(out.square().sum(), (x, weight))))
    for a, b in zip(*results, strict=True):
        assert_matches(a, b)


def test_gradcheck_over_many_blocks(monkeypatch):
    monkeypatch.setattr(sys.modules["gesm.ops.dropout_linear"], "BLOCK_ELEMENTS", 8)
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: drop(x, w, 0.5, 1), (x, weight))


def test_a_vectorised_jacobian_equals_the_row_by_row():
    x, weight = torch.randn(5, 4), torch.randn(3, 4)
    f = lambda x, w: drop(x, w, 0.5, 1)  # noqa: E731
    by_rows, at_once = (torch.autograd.functional.jacobian(f, (x, weight), vectorize=v) for v in (False, True))
    for one, other in zip(by_rows, at_once, strict=True):
        torch.testing.assert_close(one, other)


def test_follows_the_generator_and_is_off_in_evaluation():
    x, weight = torch.rand(50, 8), torch.rand(2, 8)
    assert drop(x, weight, 0.5).equal(drop(x, weight, 0.5))
    torch.manual_seed(0)
    first = dropout_linear(x, weight, 0.5)
    assert not first.equal(dropout_linear(x, weight, 0.5))
    torch.manual_seed(0)
    assert dropout_linear(x, weight, 0.5).equal(first)
    assert dropout_linear(x, weight, 0.5, training=False).equal(x @ weight.t())
    assert dropout_linear(x, weight, 0.0).equal(x @ weight.t())


def test_rows_wider_than_a_block_are_masked_too(monkeypatch):
    monkeypatch.setattr(sys.modules["gesm.ops.dropout_linear"], "BLOCK_ELEMENTS", 64)
    kept = drop(torch.eye(1).expand(1, 1000), torch.eye(1000), 0.5)
    assert 0 < kept.count_nonzero() < 1000


def test_bad_input_gets_a_clear_error():
    for training in (True, False):
        with pytest.raises(GesmError, match=r"x must have shape \[N, F\], got \[2, 3, 4\]"):
            dropout_linear(torch.ones(2, 3, 4), torch.ones(5, 4), 0.5, training)
    with pytest.raises(GesmError, match=r"dropout must be in \[0, 1\), got 1"):
        dropout_linear(torch.ones(2, 2), torch.ones(1, 2), 1)
    for rows in (0, 3):
        with pytest.raises(GesmError, match=r"weight must have shape \[C, 4\] for an x of 4 columns, got \[2, 5\]"):
            dropout_linear(torch.ones(rows, 4), torch.ones(2, 5), 0.5)


def test_a_frozen_weight_changes_no_gradient_of_x():
    x, weight = torch.randn(7, 4, requires_grad=True), torch.randn(3, 4)
    torch.manual_seed(0)
    dropout_linear(x, weight, 0.5).sum().backward()
    frozen, x.grad = x.grad, None
    torch.manual_seed(0)
    dropout_linear(x, weight.requires_grad_(), 0.5).sum().backward()
    assert weight.grad is not None
    assert frozen.equal(x.grad)


def test_the_default_device_does_not_matter():
    _random._table.cache_clear()
    x, weight = torch.randn(7, 4), torch.randn(3, 4)
    with torch.device("meta"):
        assert dropout_linear(x, weight, 0.5).device == x.device


@pytest.mark.parametrize("limit", [64, 10**9], ids=["many blocks", "one block"])
def test_dropout_keeps_the_mean(limit, monkeypatch):
    module = sys.modules["gesm.ops.dropout_linear"]
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", limit)
    x = torch.ones(100, 50, requires_grad=True)
    out = module.dropout(x, 0.4)
    assert sorted({round(v, 3) for v in out.unique().tolist()}) == [0.0, 1.667]
    assert abs(out.mean().item() - 1) < 0.05
    out.sum().backward()
    assert x.grad.equal(out.detach())
    assert module.dropout(x[:0], 0.4).shape == (0, 50)
    assert not out.flatten()[:64].equal(out.flatten()[64:128])  # each block has a mask of its own
