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
    sampler = NegativeSampler(torch.zeros(5).long(), torch.arange(5), 5, reject=False)
    first, second = (sampler.draw(torch.zeros(5000).long(), 2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    share = torch.bincount(first.flatten(), minlength=5) / first.numel()
    assert (share - 0.2).abs().max() < 0.02
    assert sampler.shared(7, torch.Generator().manual_seed(3)).shape == (7,)


@pytest.mark.parametrize("reject", [True, False])
def test_items_without_a_pair_are_never_drawn(reject):
    user, item = torch.tensor([0, 1, 1, 2]), torch.tensor([6, 1, 4, 4])
    sampler = NegativeSampler(user, item, 9, reject)
    generator = torch.Generator().manual_seed(0)
    drawn = sampler.draw(torch.tensor([0, 1, 2]).repeat(100), 3, generator)
    assert set(drawn.flatten().tolist()) == {1, 4, 6}
    assert set(sampler.shared(300, generator).tolist()) == {1, 4, 6}
    if reject:
        assert set(drawn[1::3].flatten().tolist()) == {6}


@pytest.mark.parametrize("reject", [True, False])
def test_where_all_items_occur_the_draws_are_those_of_randint(reject):
    sampler = NegativeSampler(torch.arange(5), torch.arange(5), 5, reject)
    drawn, shared = (
        call(torch.Generator().manual_seed(2))
        for call in (lambda g: sampler.draw(torch.full((6,), 9), 4, g), lambda g: sampler.shared(24, g))
    )
    expected = torch.randint(5, (24,), generator=torch.Generator().manual_seed(2))
    assert torch.equal(drawn.flatten(), expected)
    assert torch.equal(shared, expected)


def test_a_user_with_everything_does_not_hang():
    sampler = NegativeSampler(torch.zeros(3).long(), torch.arange(3), 3)
    assert sampler.draw(torch.tensor([0]), 2).shape == (1, 2)


@pytest.mark.parametrize(("pairs", "items"), [(1, 0), (0, 3)])
def test_errors(pairs, items):
    with pytest.raises(GesmError, match=f"got {items} items and {pairs} pairs"):
        NegativeSampler(torch.zeros(pairs).long(), torch.zeros(pairs).long(), items)
