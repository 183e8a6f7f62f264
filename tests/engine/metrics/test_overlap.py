"""Confusion counts and their rates: by hand, by loop, undefined cases, valid pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.metrics import Confusion, confusion, dice, fnr, fpr, jaccard, precision, recall

RATES = [dice, jaccard, precision, recall, fnr, fpr]


def sample(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    prediction = torch.rand(shape, generator=draw) < 0.4
    truth = torch.rand(shape, generator=draw) < 0.3
    valid = torch.rand((shape[0], 1, *shape[2:]), generator=draw) < 0.7
    return prediction, truth, valid


def counts(tp: int, fp: int, fn: int, tn: int) -> Confusion:
    return Confusion(*(torch.tensor([[n]]) for n in (tp, fp, fn, tn)))


def test_by_hand() -> None:
    c = counts(6, 2, 4, 88)
    assert dice(c).item() == pytest.approx(12 / 18)
    assert jaccard(c).item() == pytest.approx(6 / 12)
    assert precision(c).item() == pytest.approx(6 / 8)
    assert recall(c).item() == pytest.approx(6 / 10)
    assert fnr(c).item() == pytest.approx(4 / 10)
    assert fpr(c).item() == pytest.approx(2 / 90)


@pytest.mark.parametrize(
    ("c", "expected"),
    [
        (counts(0, 0, 0, 9), {"dice": None, "jaccard": None, "precision": None, "recall": None, "fnr": None}),
        (counts(0, 3, 0, 6), {"dice": 0, "jaccard": 0, "precision": 0, "recall": None, "fnr": None}),
        (counts(0, 0, 3, 6), {"dice": 0, "jaccard": 0, "precision": None, "recall": 0, "fnr": 1, "fpr": 0}),
        (counts(9, 0, 0, 0), {"dice": 1, "jaccard": 1, "precision": 1, "recall": 1, "fnr": 0, "fpr": None}),
        (counts(0, 0, 0, 0), dict.fromkeys(rate.__name__ for rate in RATES)),
    ],
)
def test_undefined_is_nan(c: Confusion, expected: dict[str, float | None]) -> None:
    for rate in RATES:
        if rate.__name__ in expected:
            value = expected[rate.__name__]
            assert rate(c).dtype == torch.float64
            assert rate(c).item() == pytest.approx(np.nan if value is None else value, nan_ok=True)


@pytest.mark.parametrize("shape", [(2, 1, 6, 9), (1, 3, 7, 5), (2, 2, 3, 4, 5)])
def test_counts_agree_with_a_loop(shape: tuple[int, ...]) -> None:
    prediction, truth, valid = sample(shape)
    expected = np.zeros((4, *shape[:2]), dtype=np.int64)
    for b, c in np.ndindex(*shape[:2]):
        for at in np.ndindex(*shape[2:]):
            if valid[b, 0][at]:
                found, real = bool(prediction[b, c][at]), bool(truth[b, c][at])
                expected[{(1, 1): 0, (1, 0): 1, (0, 1): 2, (0, 0): 3}[found, real], b, c] += 1
    for field, values in zip(confusion(prediction, truth, valid=valid), expected, strict=True):
        assert field.dtype == torch.int64
        np.testing.assert_array_equal(field, values)


def test_masks_of_any_type() -> None:
    prediction, truth, _ = sample((2, 2, 5, 5))
    expected = confusion(prediction, truth)
    for dtype in (torch.uint8, torch.int64, torch.float32):
        for field, same in zip(confusion(prediction.to(dtype), truth.to(dtype)), expected, strict=True):
            assert torch.equal(field, same)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), classes=st.permutations([0, 1, 2]), cut=st.integers(1, 5))
def test_crop_permutation_and_relations(seed: int, classes: list[int], cut: int) -> None:
    prediction, truth, _ = sample((2, 3, 4, 6), seed)
    valid = torch.zeros(2, 1, 4, 6, dtype=torch.bool)
    valid[..., :cut] = True
    c = confusion(prediction, truth, valid=valid)
    for field, cropped in zip(c, confusion(prediction[..., :cut], truth[..., :cut]), strict=True):
        assert torch.equal(field, cropped)
    assert (sum(c) == 4 * cut).all()
    permuted = confusion(prediction[:, classes], truth[:, classes], valid=valid)
    same = {"rtol": 1e-12, "atol": 0, "equal_nan": True}
    for rate in RATES:
        torch.testing.assert_close(rate(permuted), rate(c)[:, classes], **same)
    torch.testing.assert_close(fnr(c), 1 - recall(c), rtol=0, atol=1e-15, equal_nan=True)
    torch.testing.assert_close(dice(c), 2 * jaccard(c) / (1 + jaccard(c)), **same)
    # Truth and prediction change places: precision and recall do too.
    swapped = confusion(truth, prediction, valid=valid)
    torch.testing.assert_close(precision(swapped), recall(c), **same)
    torch.testing.assert_close(dice(swapped), dice(c), **same)
