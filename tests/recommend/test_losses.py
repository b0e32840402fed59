import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gesm import GesmError
from gesm.recommend import bpr_loss, pair_scores, sampled_softmax_loss


def test_bpr_is_the_mean_over_negatives():
    pos, neg = torch.randn(6), torch.randn(6, 3)
    expected = -torch.log(torch.sigmoid(pos.unsqueeze(1) - neg)).mean()
    torch.testing.assert_close(bpr_loss(pos, neg), expected)
    torch.testing.assert_close(bpr_loss(pos, neg[:, 0]), -torch.log(torch.sigmoid(pos - neg[:, 0])).mean())
    assert torch.isfinite(bpr_loss(pos - 1e6, neg[:, 0]))


def test_softmax_is_a_cross_entropy():
    user, item, others = torch.randn(5, 4), torch.randn(5, 4), torch.randn(7, 4)
    logits = torch.cat([(user * item).sum(1, keepdim=True), user @ others.t()], 1) / 0.5
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(sampled_softmax_loss(user, item, others, 0.5), expected)


def test_log_q_makes_the_sum_that_over_all_items():
    user, items = torch.randn(3, 4), torch.randn(6, 4)
    log_q = torch.full((6,), 1 / 6).log()  # every item once: M q = 1
    plain = sampled_softmax_loss(user, items[:3], items)
    torch.testing.assert_close(sampled_softmax_loss(user, items[:3], items, log_q=log_q), plain)
    rare = sampled_softmax_loss(user, items[:3], items, log_q=log_q - 1)
    assert rare > plain


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 12), st.integers(0, 3), st.booleans(), st.integers(0, 2**31))
def test_pair_scores_and_gradients(users, items, count, width, ordered, seed):
    draw = torch.Generator().manual_seed(seed)
    user = torch.randint(users, (count,), generator=draw)
    user = user.sort().values if ordered else user
    item = torch.randint(items, (count, width) if width else (count,), generator=draw)
    a = torch.randn(users, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    b = torch.randn(items, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    rows = a[user].unsqueeze(1) if width else a[user]
    expected, out = (rows * b[item]).sum(-1), pair_scores(a, b, user, item)
    torch.testing.assert_close(out, expected)
    seed = torch.randn(out.shape, generator=draw, dtype=torch.float64)
    got, wanted = (torch.autograd.grad(o, (a, b), seed) for o in (out, expected))
    torch.testing.assert_close(got, wanted)


def test_pair_scores_repeat_bit_by_bit(poisoned):
    a, b = torch.randn(40, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    user, item = torch.randint(40, (300,)).sort().values, torch.randint(30, (300, 2))
    runs = [torch.autograd.grad(pair_scores(a, b, user, item).square().sum(), (a, b)) for _ in range(2)]
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)
        assert first.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, i: bpr_loss(x[0], x), r"got \[2\] and \[3, 2\]"),
        (lambda x, i: sampled_softmax_loss(x, x[:2], x), r"got \[3, 2\] and \[2, 2\]"),
        (lambda x, i: sampled_softmax_loss(x, x, x[:, :1]), r"must be \[M, 2\]"),
        (lambda x, i: sampled_softmax_loss(x, x, x[:0]), r"M >= 1, got \[0, 2\]"),
        (lambda x, i: sampled_softmax_loss(x, x, x, temperature=0.0), "temperature must be positive, got 0.0"),
        (lambda x, i: sampled_softmax_loss(x, x, x, log_q=torch.zeros(2)), r"log_q must be \[3\]"),
        (lambda x, i: pair_scores(x, x[:, :1], i, i), r"must be \[U, d\] and \[I, d\]"),
        (lambda x, i: pair_scores(x, x, i, i[:1]), r"user must be \[B\]"),
        (lambda x, i: pair_scores(x, x[:1], i, i), "item holds 0 to 1, allowed is 0 to 0"),
        (lambda x, i: pair_scores(x, x, i - 1, i), "user holds -1 to 0, allowed is 0 to 2"),
    ],
)
def test_errors(call, message):
    with pytest.raises(GesmError, match=message):
        call(torch.ones(3, 2), torch.tensor([0, 1]))
