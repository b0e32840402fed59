import pytest
import torch
import torch.nn.functional as F
from strategies import assert_matches

from gesm.ops.elu import bias_elu_


@pytest.mark.parametrize("shape", [(7, 3, 4), (5, 4), (0, 4)])
def test_equals_pytorchs_with_its_gradients(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(shape[1:], dtype=torch.float64, requires_grad=True)
    results = []
    for out in (bias_elu_(x + 0, bias), F.elu(x + bias)):
        results.append((out, *torch.autograd.grad(out.square().sum(), (x, bias))))
    for a, b in zip(*results, strict=True):
        assert_matches(a, b)
    assert_matches(bias_elu_(x.detach().clone()), F.elu(x))


def test_works_in_place_and_keeps_extremes():
    x = torch.tensor([-1e30, -1.0, 0.0, 1.0, 1e30, float("nan")])
    expected = F.elu(x)
    out = bias_elu_(x)
    assert out.data_ptr() == x.data_ptr()
    torch.testing.assert_close(out, expected, equal_nan=True)


def test_gradcheck():
    x, bias = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, b: bias_elu_(x * 1, b[0]), (x, bias))
