import pytest
import torch
import torch.nn.functional as F

from gesm import GesmError
from gesm.models import GSM
from gesm.nn import HopConsistency, HopSampling

N, C, S = 12, 3, 4


def by_hand(logits, y, index, weight, temperature, alignment):
    """Node by node, class by class."""
    total = sum(F.cross_entropy(z[index], y) for z in logits) / S
    p = logits.softmax(-1)
    means = [sum(p[s, i] for s in range(S)) / S for i in range(N)]
    for i in range(N):
        aligned = means[i] / (sum(means) / N) ** alignment
        sharp = aligned ** (1 / temperature) / (aligned ** (1 / temperature)).sum()
        for s in range(S):
            total = total + weight / (S * N) * ((p[s, i] - sharp.detach()) ** 2).sum()
    return total


@pytest.mark.parametrize("alignment", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("mask", [True, False])
def test_equals_the_formula_with_its_gradient(mask, alignment):
    logits = torch.randn(S, N, C, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([1, 4, 7])
    y = torch.tensor([0, 2, 1])
    given = torch.zeros(N, dtype=torch.bool).index_fill(0, index, True) if mask else index
    loss = HopConsistency(0.7, 0.3, alignment)(logits, y, given)
    expected = by_hand(logits, y, index, 0.7, 0.3, alignment)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(f, logits, retain_graph=True)[0] for f in (loss, expected)))


def test_two_labels_are_two_classes():
    """One yes-no label a node is a two-class problem with logits z and 0, up to the logit's own scale."""
    z = torch.randn(S, N, 1, dtype=torch.float64)
    y, index = torch.tensor([1, 0, 1]), torch.tensor([0, 5, 6])
    two = torch.cat([torch.zeros_like(z), z], -1)
    criterion = HopConsistency(0.5, 0.5, 0.5)
    torch.testing.assert_close(criterion(z, y.double().view(-1, 1), index), criterion(two, y, index))


def test_a_low_temperature_makes_one_class_of_the_mean():
    logits = torch.randn(S, N, 40) / 10
    p = logits.softmax(-1)
    sharp = F.one_hot(p.mean(0).argmax(-1), 40)
    y, index = torch.zeros(1, dtype=torch.long), torch.tensor([0])
    agreement = HopConsistency(1, 1e-4)(logits, y, index) - HopConsistency(0)(logits, y, index)
    torch.testing.assert_close(agreement, (p - sharp).square().sum(-1).mean())


def test_alignment_is_against_agreement_on_one_class():
    """Nodes that all lean to class 0, some more than others, are to lean to it more, or with alignment less."""
    lean = torch.linspace(1, 2, N).unsqueeze(1)
    logits = (lean * torch.tensor([1.0, 0.0])).expand(S, N, 2).clone().requires_grad_()
    y, index = torch.tensor([0]), torch.tensor([N - 1])
    for alignment, sign in ((0.0, -1), (1.0, 1)):
        loss = HopConsistency(1, 0.5, alignment)(logits, y, index) - HopConsistency(0)(logits, y, index)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert (gradient[:, 0, 0].sign() == sign).all()


def test_draws_that_agree_and_are_sure_cost_nothing_more():
    logits = 100 * F.one_hot(torch.randint(C, (N,)), C).float().expand(S, N, C)
    y = logits[0].argmax(-1)
    assert HopConsistency()(logits, y, torch.arange(N)) < 1e-6
    assert HopConsistency(weight=0)(logits.neg(), y, torch.arange(N)) > 1


def test_trains_a_wrapped_model():
    x, edges, y = torch.randn(N, 6), torch.randint(N, (2, 40)), torch.randint(C, (N,))
    hop, criterion = HopSampling(GSM(6, 8, C, K=4)), HopConsistency()
    optimizer = torch.optim.Adam(hop.parameters(), 0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = criterion(hop.sample(S, x, edges), y[:5], torch.arange(5))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert str(criterion) == "HopConsistency(weight=1.0, temperature=0.5, alignment=0.0)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HopConsistency(weight=-1), "weight must be at least 0, got -1"),
        (lambda: HopConsistency(temperature=0), r"temperature must be in \(0, 1\], got 0"),
        (lambda: HopConsistency(alignment=1.5), r"alignment must be in \[0, 1\], got 1.5"),
        (
            lambda: HopConsistency()(torch.ones(N, C), torch.ones(2), torch.arange(2)),
            r"\[draws, nodes, classes\], got \[12, 3\]",
        ),
        (lambda: HopConsistency()(torch.ones(S, N, C), torch.ones(2), torch.arange(2)), r"integers.*got torch.float32 \[2\]"),
        (lambda: HopConsistency()(torch.ones(S, N, C), torch.arange(3), torch.arange(2)), r"labels of the 2 nodes.*got \[3\]"),
        (lambda: HopConsistency()(torch.ones(S, N, C), torch.ones(2, 2), torch.arange(2)), r"\[2, 3\]; got \[2, 2\]"),
        (lambda: HopConsistency()(torch.ones(S, N, C), torch.arange(3), torch.ones(3) > 0), r"shape \[12\].*got \[3\]"),
    ],
)
def test_bad_input_gets_one_clear_error(call, message):
    with pytest.raises(GesmError, match=message):
        call()
