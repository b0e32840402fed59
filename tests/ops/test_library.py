import os

import pytest
import torch

from gesm import GesmError
from gesm.ops import backend, use_backend
from gesm.ops._random import TABLE_BLOCK, dropout_threshold, keep_mask, new_seed, table_mask

CPU = torch.device("cpu")


def test_auto_takes_the_fast_backend_or_falls_back_silently():
    assert backend(CPU) == "cpu"
    assert backend(torch.device("meta")) == "reference"


def test_an_explicit_request_is_met_or_refused(monkeypatch):
    with use_backend("reference"):
        assert backend(CPU) == "reference"
        assert os.environ["GESM_BACKEND"] == "reference"
    assert "GESM_BACKEND" not in os.environ
    with pytest.raises(GesmError, match="one of auto, reference, cpu, triton, got 'fast'"), use_backend("fast"):
        pass
    with use_backend("triton"), pytest.raises(GesmError, match="GESM_BACKEND=triton was asked for"):
        backend(CPU)
    with use_backend("cpu"), pytest.raises(GesmError, match="tensors are on meta"):
        backend(torch.device("meta"))
    monkeypatch.setenv("GESM_BACKEND", "fast")
    with pytest.raises(GesmError, match="one of auto, reference, cpu, triton, got 'fast'"):
        backend(CPU)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.7])
def test_keep_mask_has_the_right_share_and_no_pattern(p):
    n = 2**20
    seed = new_seed(CPU)
    mask = keep_mask(0, n, seed, dropout_threshold(p), torch.float32)
    deviation = (p * (1 - p) / n) ** 0.5
    assert abs(mask.mean() - (1 - p)) < 5 * deviation
    for lag in (1, 2, 8, 512):
        both = (mask[:-lag] * mask[lag:]).mean()
        assert abs(both - (1 - p) ** 2) < 6 * deviation
    other = keep_mask(0, n, seed + 1, dropout_threshold(p), torch.float32)
    assert abs((mask * other).mean() - (1 - p) ** 2) < 6 * deviation


def test_a_part_of_a_mask_is_that_part():
    seed, threshold = new_seed(CPU), dropout_threshold(0.3)
    whole = keep_mask(0, 5001, seed, threshold, torch.float32)
    for start, stop in ((1, 5000), (7, 8), (1000, 3001), (0, 1), (5, 5)):
        assert keep_mask(start, stop, seed, threshold, torch.float32).equal(whole[start:stop])
    far = 2**33 + 5  # counters wrap around
    assert keep_mask(far, far + 100, seed, threshold, torch.float32).equal(whole[5:105])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.7])
def test_table_mask_has_the_right_share_and_no_pattern(p):
    n, seed, threshold = TABLE_BLOCK, int(new_seed(CPU)), dropout_threshold(p)
    mask, following = (table_mask(block, n, seed, threshold, torch.float32) for block in (0, 1))
    assert mask.equal(table_mask(0, n, seed, threshold, torch.float32))
    deviation = (p * (1 - p) / n) ** 0.5
    assert abs(mask.mean() - (1 - p)) < 5 * deviation
    for lag in (1, 2, 8, 512):
        assert abs((mask[:-lag] * mask[lag:]).mean() - (1 - p) ** 2) < 6 * deviation
    for other in (following, table_mask(0, n, seed + 1, threshold, torch.float32)):
        assert abs((mask * other).mean() - (1 - p) ** 2) < 6 * deviation


def test_new_seed_follows_its_generator():
    draw = lambda: new_seed(CPU, torch.Generator().manual_seed(3))  # noqa: E731
    assert draw().equal(draw())
