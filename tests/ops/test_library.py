import os

import pytest
import torch

from gesm import GesmError
from gesm.ops import backend, dropout, use_backend
from gesm.ops._random import keep_mask, new_seed

CPU = torch.device("cpu")


def test_auto_takes_the_fast_backend_or_falls_back_silently():
    assert backend(CPU) == "cpu"
    assert backend(torch.device("meta")) == "reference"


def test_an_explicit_request_is_met_or_refused():
    with use_backend("reference"):
        assert backend(CPU) == "reference"
        assert os.environ["GESM_BACKEND"] == "reference"
    assert "GESM_BACKEND" not in os.environ
    with use_backend("fast"), pytest.raises(GesmError, match="one of auto, reference, cpu, triton, got 'fast'"):
        backend(CPU)
    with use_backend("triton"), pytest.raises(GesmError, match="GESM_BACKEND=triton was asked for"):
        backend(CPU)
    with use_backend("cpu"), pytest.raises(GesmError, match="tensors are on meta"):
        backend(torch.device("meta"))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.7])
def test_keep_mask_has_the_right_share_and_no_pattern(p):
    n = 2**20
    seed = new_seed(CPU)
    mask = keep_mask(torch.arange(n, dtype=torch.int32), seed, p).float()
    deviation = (p * (1 - p) / n) ** 0.5
    assert abs(mask.mean() - (1 - p)) < 5 * deviation
    for lag in (1, 2, 8, 512):
        both = (mask[:-lag] * mask[lag:]).mean()
        assert abs(both - (1 - p) ** 2) < 6 * deviation
    other = keep_mask(torch.arange(n, dtype=torch.int32), seed + 1, p).float()
    assert abs((mask * other).mean() - (1 - p) ** 2) < 6 * deviation


def test_new_seed_follows_its_generator():
    draw = lambda: new_seed(CPU, torch.Generator().manual_seed(3))  # noqa: E731
    assert draw().equal(draw())


@pytest.mark.parametrize("shape", [(1001, 7), (3,), (0, 4)])
def test_feature_dropout(shape):
    x = torch.rand(shape, requires_grad=True)
    out = dropout(x, 0.4, generator=torch.Generator().manual_seed(0))
    again = dropout(x, 0.4, generator=torch.Generator().manual_seed(0))
    assert out.equal(again)
    out.sum().backward()
    kept = out != 0
    torch.testing.assert_close(out[kept], (x / 0.6)[kept], rtol=1e-4, atol=0)
    torch.testing.assert_close(x.grad, kept / 0.6, rtol=1e-4, atol=0)
    if x.numel() > 1000:
        assert abs(kept.float().mean() - 0.6) < 0.02


def test_feature_dropout_is_off_in_evaluation():
    x = torch.rand(3)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0) is x
    assert dropout(x, 1.0).equal(torch.zeros(3))
