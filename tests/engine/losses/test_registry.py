"""One grid over every registered loss: a new loss is tested by joining the registry."""

import inspect
from dataclasses import replace
from functools import cache
from itertools import cycle, product
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import InputError
from engine.head import Head, channels
from engine.losses.boundary import signed_distance
from engine.losses.guides import Guides
from engine.losses.objective import build
from engine.losses.specs import (
    Boundary,
    CLDice,
    Combo,
    ComboPlusPlus,
    Loss,
    LossPart,
    Overlap,
    SkeletonRecall,
)
from engine.losses.topology import tubed_skeleton
from engine.spec import import_target

LOSSES: tuple[type[LossPart], ...] = get_args(get_args(Loss)[0])
HEADS: tuple[Head, ...] = get_args(Head)
SINGLE = [part for part in LOSSES if part().terms("sigmoid") == ((1.0, part()),)]
TERMS = {type(term): term for part in LOSSES for head in HEADS for _, term in part().terms(head)}

VARIANTS: list[LossPart] = [
    *(part() for part in LOSSES),
    *(
        part(include_background=background, batch=batch)
        for part, (background, batch) in zip(
            (part for part in LOSSES if issubclass(part, Overlap)),
            cycle([(True, False), (False, True), (True, True)]),
        )
    ),
    Boundary(schedule="rebalance"),
    CLDice(iterations=2),
]


def name(part: type[LossPart]) -> str:
    return str(part().model_dump()["name"])


def label(part: LossPart) -> str:
    given = part.model_dump(exclude_defaults=True, exclude={"name"})
    return "-".join([name(type(part)), *(f"{key}={value}" for key, value in given.items())])


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


def guides(y: Tensor, valid: Tensor | None = None) -> Guides:
    """All maps of a truth, as a data set gives them."""
    planes = (y if valid is None else y & valid).flatten(0, 1).numpy()
    tube = np.stack([tubed_skeleton(mask) for mask in planes])
    distance = np.stack([signed_distance(mask) for mask in planes])
    return Guides(
        tube=torch.from_numpy(tube).view(y.shape),
        distance=torch.from_numpy(distance).float().view(y.shape),
    )


@cache
def all_guides(truth: str, where: str, classes: int, space: tuple[int, ...]) -> Guides:
    return guides(masks(truth, classes, space), valid_pixels(where, space))


def accepts(head: Head, classes: int, part: LossPart) -> bool:
    try:
        build(part, head, classes)
    except InputError as refusal:
        if label(part) not in str(refusal):
            raise
        return False
    return True


ACCEPTED = [
    pytest.param(*case, id=f"{case[0]}-{case[1]}-{label(case[2])}")
    for case in product(HEADS, [1, 3], VARIANTS)
    if accepts(*case)
]


@pytest.mark.parametrize(("head", "classes", "part"), ACCEPTED)
@pytest.mark.parametrize("space", [(6, 8), (3, 4, 6)], ids=["2D", "3D"])
def test_loss_and_gradient_are_finite(
    part: LossPart, head: Head, classes: int, space: tuple[int, ...]
) -> None:
    objective = build(part, head, classes)
    # At best, which is also what an image without a valid pixel costs.
    least = -0.5 if isinstance(part, Combo | ComboPlusPlus) else 0
    truths, valids = ("empty", "full", "random"), ("everywhere", "half", "nowhere")
    logits_of = ((1, torch.float32), (100, torch.float32), (100, torch.float16), (10, torch.bfloat16))
    for truth, where in product(truths, valids):
        y, valid = masks(truth, classes, space), valid_pixels(where, space)
        given = all_guides(truth, where, classes, space)
        for scale, dtype in logits_of:
            draw = torch.Generator().manual_seed(1)
            logits = torch.randn((2, channels(head, classes), *space), generator=draw)
            logits = logits.mul(scale).to(dtype).requires_grad_()
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                loss = objective(logits, y, valid, given)
            loss.backward()
            case = (truth, where, scale, dtype)
            assert loss.shape == (), case
            assert loss.dtype == torch.float32, case
            assert loss.isfinite(), case
            assert logits.grad is not None, case
            assert logits.grad.isfinite().all(), case
            if where == "nowhere":
                assert loss == least, case
                assert (logits.grad == 0).all(), case


@pytest.mark.parametrize("part", LOSSES, ids=name)
@pytest.mark.parametrize("classes", [1, 3])
def test_some_head_takes_it(part: type[LossPart], classes: int) -> None:
    assert any(accepts(head, classes, part()) for head in HEADS)


@pytest.mark.parametrize(("head", "classes", "part"), ACCEPTED)
def test_learning_lowers_it(part: LossPart, head: Head, classes: int) -> None:
    """A step down the gradient, from even odds, lowers the loss."""
    objective = build(part, head, classes)
    y = masks("random", classes, (6, 8))
    given = replace(all_guides("random", "everywhere", classes, (6, 8)), epoch=20)
    # Not quite even: a flat image has no ridge to be a skeleton.
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn((2, channels(head, classes), 6, 8), generator=draw).mul(1e-2).requires_grad_()
    before = objective(logits, y, None, given)
    before.backward()
    assert logits.grad is not None
    assert objective(logits.detach() - logits.grad, y, None, given) < before


@pytest.mark.parametrize(("head", "classes", "part"), ACCEPTED)
def test_the_truth_costs_least(part: LossPart, head: Head, classes: int) -> None:
    """No random prediction is better than the truth, nor than the truth a little blurred."""
    objective = build(part, head, classes)
    y = masks("random", classes, (6, 8))
    given = replace(all_guides("random", "everywhere", classes, (6, 8)), epoch=20)
    background = ~y.any(1, keepdim=True)
    certain = (torch.cat([background, y], 1) if head == "softmax" else y).float() * 80 - 40
    best = objective(certain, y, None, given)
    draw = torch.Generator().manual_seed(3)
    for spread in (0.1, 10, 30):
        noise = torch.randn(certain.shape, generator=draw) * spread
        assert objective(noise, y, None, given) > best - 1e-6
        assert objective(certain + noise * 2, y, None, given) > best - 1e-6


@pytest.mark.parametrize(("head", "classes", "part"), ACCEPTED)
def test_garbage_that_is_not_valid_adds_nothing(part: LossPart, head: Head, classes: int) -> None:
    objective = build(part, head, classes)
    y, valid = masks("random", classes, (6, 8)), valid_pixels("half", (6, 8))
    assert valid is not None
    given = all_guides("random", "half", classes, (6, 8))
    assert given.tube is not None
    assert given.distance is not None
    logits = torch.randn((2, channels(head, classes), 6, 8), generator=torch.Generator().manual_seed(1))
    clean = objective(logits, y, valid, given)
    garbage = Guides(given.tube | ~valid, torch.where(valid, given.distance, torch.nan))
    dirty = torch.where(valid, logits, torch.nan).requires_grad_()
    loss = objective(dirty, y | ~valid, valid, garbage)
    torch.testing.assert_close(loss, clean)
    loss.backward()
    assert dirty.grad is not None
    assert dirty.grad.isfinite().all()
    assert (dirty.grad[(~valid).expand_as(dirty)] == 0).all()


@pytest.mark.parametrize("part", LOSSES, ids=name)
def test_a_missing_guide_is_the_programmers_error(part: type[LossPart]) -> None:
    head: Head = "sigmoid"
    y = masks("random", 1, (6, 8))
    objective = build(part(), head, 1)
    wanted = part().guides(head)
    assert wanted == {SkeletonRecall: {"tube"}, Boundary: {"distance"}}.get(part, set())
    logits = torch.zeros(2, 1, 6, 8)
    for guide in wanted:
        with pytest.raises(ValueError, match=rf"'{name(part)}' needs guides\.{guide}") as raised:
            objective(logits, y)
        assert not isinstance(raised.value, InputError)
    objective(logits, y, None, guides(y) if wanted else None)


@pytest.mark.parametrize("part", TERMS.values(), ids=lambda part: type(part).__name__)
def test_defaults_equal_the_functions(part: LossPart) -> None:
    """But γ of DSC++, which is what a ++ loss has and the plain one does not."""
    function = inspect.signature(import_target(part.target)).parameters
    given = part.settings()
    power = "gamma_pp" if "gamma_pp" in function else "gamma"
    if type(part).__name__.endswith("PlusPlus"):
        assert given.pop(power) == 2
    assert given == {key: function[key].default for key in given}
    keywords = {key for key, value in function.items() if value.kind is value.KEYWORD_ONLY}
    unset = keywords - {"valid"} - set(part.settings())
    assert unset <= {power}
    assert all(function[key].default == 1 for key in unset)


def test_the_registry_has_every_published_loss() -> None:
    assert {name(part) for part in LOSSES} >= {
        "dice", "dsc_plus_plus", "tversky", "tversky_plus_plus", "focal_tversky", "focal_tversky_plus_plus",
        "combo", "combo_plus_plus", "unified_focal", "unified_focal_plus_plus", "cross_entropy",
        "binary_cross_entropy", "focal", "dice_ce", "dice_bce", "dice_focal", "elevated_sensitivity",
        "skeleton_recall", "boundary", "cldice",
    }  # fmt: skip
