import pytest
import torch
from strategies import assert_matches

from gesm import GesmError, Graph
from gesm.nn import StructureLoss

EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


@pytest.mark.parametrize("beta", [1.0, 0.7, 0.0])
def test_equals_the_formula_on_the_drawn_pairs(beta):
    z = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    loss = StructureLoss(beta, ratio=0.5)(z, EDGES, torch.Generator().manual_seed(3))
    p = Graph(EDGES, None, 4).transition()
    generator = torch.Generator().manual_seed(3)
    edge = (torch.rand(4, generator=generator, dtype=torch.float64) * 8).long()
    n = torch.randint(4, (4,), generator=generator)
    i, j = p.target[edge].long(), p.col[edge].long()
    near = 1 - torch.sigmoid((z[i] * z[j]).sum(1))
    far = 1 - torch.sigmoid((z[i] * z[n]).sum(1))
    expected = (beta * near - (1 - beta) * far).clamp(min=0).mean()
    assert_matches(loss, expected)
    assert_matches(*(torch.autograd.grad(value, z)[0] for value in (loss, expected)))


def test_gradcheck():
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    loss = StructureLoss(0.8, ratio=1.0)
    assert torch.autograd.gradcheck(lambda z: loss(z, EDGES, torch.Generator().manual_seed(1)), z)


def test_pairs_are_drawn_afresh_unless_told_otherwise():
    z = torch.randn(50, 4)
    edges = torch.randint(50, (2, 400))
    fresh, fixed = StructureLoss(), StructureLoss(resample=False)
    assert fresh(z, edges) != fresh(z, edges)
    assert fixed(z, edges) == fixed(z, edges)


def test_more_edges_than_nodes_and_empty_graphs():
    edges = torch.randint(3, (2, 500))
    assert StructureLoss(0.5, ratio=1.0)(torch.randn(3, 2), edges).isfinite()
    empty = torch.empty(2, 0, dtype=torch.long)
    assert StructureLoss()(torch.randn(2, 2), empty).isfinite()
    assert StructureLoss()(torch.randn(0, 2), empty) == 0


def test_repr_and_errors():
    assert str(StructureLoss()) == "StructureLoss(beta=1.0, ratio=0.05, resample=True)"
    with pytest.raises(GesmError, match=r"beta must be in \[0, 1\], got 2"):
        StructureLoss(beta=2)
    with pytest.raises(GesmError, match=r"ratio must be in \(0, 1\], got 0"):
        StructureLoss(ratio=0)
    with pytest.raises(GesmError, match=r"\[4, 2, 3\]; flatten the heads"):
        StructureLoss()(torch.randn(4, 2, 3), EDGES)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_compiles_with_sizes_that_change(beta):
    loss = torch.compile(StructureLoss(beta), backend="aot_eager", fullgraph=True, dynamic=True)
    for n in (20, 30, 7):
        assert loss(torch.randn(n, 6), torch.randint(n, (2, 3 * n))).isfinite()
