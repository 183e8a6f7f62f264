"""One grid over every registered loss: a new loss is tested by joining the registry."""

import inspect
from itertools import product
from typing import get_args

import pytest
import torch
from torch import Tensor

from engine.errors import InputError
from engine.head import Head, channels
from engine.losses.objective import build
from engine.losses.specs import Loss, LossPart
from engine.spec import import_target

LOSSES: tuple[type[LossPart], ...] = get_args(get_args(Loss)[0])
HEADS: tuple[Head, ...] = get_args(Head)
SINGLE = [part for part in LOSSES if part().terms("sigmoid") == ((1.0, part()),)]


def name(part: type[LossPart]) -> str:
    return str(part().model_dump()["name"])


def masks(kind: str, classes: int, space: tuple[int, ...]) -> Tensor:
    """Exclusive masks, which overlapping classes may be too."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes + 1, (2, *space), generator=draw)
    if kind != "random":
        labels.fill_(0 if kind == "empty" else 1)
    return torch.stack([labels == c for c in range(1, classes + 1)], 1)


def valid_pixels(kind: str, space: tuple[int, ...]) -> Tensor | None:
    if kind == "everywhere":
        return None
    valid = torch.zeros((2, 1, *space), dtype=torch.bool)
    if kind == "half":
        valid[..., : space[-1] // 2] = True
    return valid


def accepts(head: Head, classes: int, part: type[LossPart]) -> bool:
    try:
        build(part(), head, classes)
    except InputError as refusal:
        if name(part) not in str(refusal):
            raise
        return False
    return True


ACCEPTED = [case for case in product(HEADS, [1, 3], LOSSES) if accepts(*case)]


@pytest.mark.parametrize(("head", "classes", "part"), ACCEPTED)
@pytest.mark.parametrize("space", [(6, 8), (3, 4, 6)], ids=["2D", "3D"])
def test_loss_and_gradient_are_finite(
    part: type[LossPart], head: Head, classes: int, space: tuple[int, ...]
) -> None:
    objective = build(part(), head, classes)
    truths, valids, scales = ("empty", "full", "random"), ("everywhere", "half", "nowhere"), (1, 100)
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    for truth, where, scale, dtype in product(truths, valids, scales, dtypes):
        draw = torch.Generator().manual_seed(1)
        logits = torch.randn((2, channels(head, classes), *space), generator=draw).mul(scale).to(dtype)
        logits.requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = objective(logits, masks(truth, classes, space), valid_pixels(where, space))
        loss.backward()
        case = (truth, where, scale, dtype)
        assert loss.shape == (), case
        assert loss.dtype == torch.float32, case
        assert loss.isfinite(), case
        assert logits.grad is not None, case
        assert logits.grad.isfinite().all(), case
        if where == "nowhere":
            assert loss == 0, case
            assert (logits.grad == 0).all(), case


@pytest.mark.parametrize("part", LOSSES, ids=name)
@pytest.mark.parametrize("classes", [1, 3])
def test_some_head_takes_it(part: type[LossPart], classes: int) -> None:
    assert any(accepts(head, classes, part) for head in HEADS)


@pytest.mark.parametrize(("head", "classes", "part"), ACCEPTED)
def test_learning_lowers_it(part: type[LossPart], head: Head, classes: int) -> None:
    """A step down the gradient, from even odds, lowers the loss."""
    objective = build(part(), head, classes)
    y = masks("random", classes, (6, 8))
    logits = torch.zeros((2, channels(head, classes), 6, 8), requires_grad=True)
    before = objective(logits, y, None)
    before.backward()
    assert logits.grad is not None
    assert objective(logits.detach() - logits.grad, y, None) < before


@pytest.mark.parametrize("part", SINGLE, ids=name)
def test_defaults_equal_the_function_s(part: type[LossPart]) -> None:
    function = inspect.signature(import_target(part.target)).parameters
    for setting, default in part().settings().items():
        assert function[setting].default == default
    keywords = {key for key, value in function.items() if value.kind is value.KEYWORD_ONLY}
    assert keywords - {"valid"} == set(part().settings())
