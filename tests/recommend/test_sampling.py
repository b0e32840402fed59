import pytest
import torch

from gesm import GesmError
from gesm.recommend import NegativeSampler


def test_rejects_what_a_user_has():
    user, item = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([3, 1, 0, 0, 1, 2])
    sampler = NegativeSampler(user, item, 4)
    users = torch.tensor([0, 1, 2, 3]).repeat(50)
    drawn = sampler.draw(users, 4, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 4)
    for u, free in enumerate(({0, 2}, {1, 2, 3}, {3}, {0, 1, 2, 3})):
        assert set(drawn[users == u].flatten().tolist()) == free


def test_is_uniform_and_repeats():
    sampler = NegativeSampler(torch.tensor([0]), torch.tensor([0]), 5, reject=False)
    first, second = (sampler.draw(torch.zeros(5000).long(), 2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    share = torch.bincount(first.flatten(), minlength=5) / first.numel()
    assert (share - 0.2).abs().max() < 0.02
    assert sampler.shared(7, torch.Generator().manual_seed(3)).shape == (7,)


def test_a_user_with_everything_does_not_hang():
    sampler = NegativeSampler(torch.zeros(3).long(), torch.arange(3), 3)
    assert sampler.draw(torch.tensor([0]), 2).shape == (1, 2)


@pytest.mark.parametrize(("pairs", "items"), [(1, 0), (0, 3)])
def test_errors(pairs, items):
    with pytest.raises(GesmError, match=f"got {items} items and {pairs} pairs"):
        NegativeSampler(torch.zeros(pairs).long(), torch.zeros(pairs).long(), items)
