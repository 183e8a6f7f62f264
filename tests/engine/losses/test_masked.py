"""The power that keeps its gradient finite."""

import pytest
import torch

from engine.losses.masked import power


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exponent", [0.1, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0])
def test_power_is_exact_and_its_gradient_finite(exponent: float, dtype: torch.dtype) -> None:
    x = torch.tensor([0, 1e-45, 1e-38, 1e-31, 1e-30, 1e-20, 1e-8, 0.3, 1], dtype=dtype, requires_grad=True)
    y = power(x, exponent)
    torch.testing.assert_close(y, x**exponent, rtol=0, atol=0)
    (1e5 * y).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    slope = 1e5 * exponent * x.detach()[5:] ** (exponent - 1)
    torch.testing.assert_close(x.grad[5:], slope)
