import math
import random
from copy import deepcopy
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch

from engine.config import RunConfig
from engine.optim import (
    Constant,
    Cosine,
    Linear,
    Plateau,
    Polynomial,
    constant,
    cosine,
    linear,
    plateau,
    polynomial,
)
from engine.schema import choices

E = 10
DECAYING = [
    pytest.param(Linear(), id="linear"),
    pytest.param(Linear(final_lr=0.01), id="linear-final"),
    pytest.param(Polynomial(), id="polynomial"),
    pytest.param(Polynomial(power=2.0, final_lr=0.01), id="polynomial-final"),
    pytest.param(Cosine(), id="cosine"),
    pytest.param(Cosine(final_lr=0.01), id="cosine-final"),
]


def rates(spec: Any, epochs: int = E, lr: float = 0.1) -> list[float]:
    return [spec.bind()(lr, epoch, epochs, [0] * (epoch - 1)) for epoch in range(1, epochs + 1)]


def torchs(make: Any, epochs: int = E, lr: float = 0.1) -> list[float]:
    """Learning rates of the epochs under torch's own scheduler."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("spec", DECAYING)
def test_the_first_epoch_has_the_given_rate_and_none_has_a_higher_one(spec: Any) -> None:
    found = rates(spec)
    assert found[0] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in pairwise(found))
    assert found[-1] > spec.final_lr


@pytest.mark.parametrize("spec", DECAYING)
def test_one_epoch_has_the_given_rate(spec: Any) -> None:
    assert rates(spec, epochs=1) == pytest.approx([0.1])


def test_known_rates_of_the_last_epoch() -> None:
    assert constant(0.1, E, E, []) == 0.1
    assert linear(0.1, E, E, []) == pytest.approx(0.1 / E)
    assert linear(1e-4, 80, 80, [], final_lr=1e-5) == pytest.approx(1e-5 + 9e-5 / 80)
    assert polynomial(0.1, E, E, [], power=0.9) == pytest.approx(0.1 * 0.1**0.9)
    assert cosine(0.1, 6, E, []) == pytest.approx(0.05)
    assert cosine(0.1, E, E, []) == pytest.approx(0.05 * (1 + math.cos(0.9 * math.pi)))


def test_equal_to_torchs_schedulers() -> None:
    schedulers = torch.optim.lr_scheduler
    assert rates(Constant()) == torchs(lambda o: schedulers.ConstantLR(o, factor=1.0))
    assert rates(Linear()) == pytest.approx(torchs(lambda o: schedulers.LinearLR(o, 1.0, 0.0, total_iters=E)))
    assert rates(Linear(final_lr=0.02)) == pytest.approx(
        torchs(lambda o: schedulers.LinearLR(o, 1.0, 0.2, total_iters=E))
    )
    assert rates(Polynomial(power=0.9)) == pytest.approx(
        torchs(lambda o: schedulers.PolynomialLR(o, total_iters=E, power=0.9))
    )
    assert rates(Cosine(final_lr=0.02)) == pytest.approx(
        torchs(lambda o: schedulers.CosineAnnealingLR(o, T_max=E, eta_min=0.02))
    )


def stagnant(losses: list[float]) -> list[int]:
    """For each epoch, how many epochs ago the best loss was."""
    return [i - min(range(i + 1), key=lambda k: losses[k]) for i in range(len(losses))]


def test_plateau_falls_after_every_so_many_epochs_without_improvement() -> None:
    losses = [3.0, 2.0, 2.5, 2.0, 2.1, 2.2, 1.0, 1.5, 1.5]
    behind = stagnant(losses)
    assert behind == [0, 0, 1, 2, 3, 4, 0, 1, 2]
    found = [plateau(1.0, n + 1, 10, behind[:n], factor=0.1, patience=2) for n in range(10)]
    assert found == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001])


@pytest.mark.parametrize("patience", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_plateau_equals_torchs(patience: int, seed: int) -> None:
    # torch lets `patience` epochs pass and falls after the next one.
    chance = random.Random(seed)
    losses = [chance.random() + 1 / (n + 1) for n in range(60)]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience - 1, threshold=0.0, eps=0.0
    )
    for number, loss in enumerate(losses, 1):
        ours = plateau(0.1, number, 60, stagnant(losses[: number - 1]), factor=0.5, patience=patience)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])
        scheduler.step(loss)


def test_plateau_without_an_epoch_has_the_given_rate() -> None:
    assert rates(Plateau(), epochs=1) == [0.1]


@pytest.mark.parametrize("name", choices(RunConfig, "optimizer"))
def test_every_optimiser_goes_downhill_from_its_defaults(name: str) -> None:
    x = torch.tensor([3.0], requires_grad=True)
    spec = choices(RunConfig, "optimizer")[name]()
    optimizer = spec.bind()([x])
    for _ in range(20):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
    assert abs(float(x.detach())) < 3
    for key, value in spec.settings().items():
        assert optimizer.defaults[key] == value


@pytest.mark.parametrize("name", choices(RunConfig, "optimizer"))
def test_every_optimiser_takes_torchs_steps_and_keeps_torchs_state(name: str) -> None:
    spec = choices(RunConfig, "optimizer")[name](weight_decay=0.1)
    kind = spec.bind().func.__name__
    start, gradients = torch.randn(5, 3), torch.randn(6, 5, 3)
    found = []
    for build in (spec.bind(), partial(getattr(torch.optim, kind), **spec.settings())):
        x = start.clone().requires_grad_()
        optimizer = build([x])
        for number, gradient in enumerate(gradients):
            if number == 3:  # goes on from a checkpoint
                state = deepcopy(optimizer.state_dict())
                optimizer = build([x])
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            assert x.grad is None
            x.grad = gradient.clone()
            optimizer.step()
        found.append((x.detach(), optimizer.state_dict()))
    (ours, state), (theirs, expected) = found
    assert torch.equal(ours, theirs)
    assert state["param_groups"] == expected["param_groups"]
    assert all(
        torch.equal(value, expected["state"][0][key])
        for key, value in state["state"][0].items()
        if value is not None
    )
