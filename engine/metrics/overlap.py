"""Confusion counts per image and class, and the rates made of them.

All rates are float64 (B, C), in [0, 1], and NaN where undefined (0 / 0).
"""

from typing import NamedTuple

from torch import Tensor


class Confusion(NamedTuple):
    """Pixel counts of each image and class, int64 (B, C)."""

    TP: Tensor
    FP: Tensor
    FN: Tensor
    TN: Tensor


def confusion(prediction: Tensor, truth: Tensor, *, valid: Tensor | None = None) -> Confusion:
    """Count true and false positives and negatives.

    Args:
        prediction: masks, bool or {0, 1}, (B, C, *S). Probabilities must be thresholded first.
        truth: masks, bool or {0, 1}, (B, C, *S).
        valid: bool (B, 1, *S); False is counted nowhere.
    """
    prediction, truth = prediction.bool(), truth.bool()
    counted = [prediction & truth, prediction & ~truth, ~prediction & truth, ~prediction & ~truth]
    return Confusion(*(_count(pixels if valid is None else pixels & valid) for pixels in counted))


def dice(c: Confusion) -> Tensor:
    """2TP / (2TP + FP + FN). NaN if truth and prediction are both empty, 0 if only one is."""
    return _ratio(2 * c.TP, 2 * c.TP + c.FP + c.FN)


def jaccard(c: Confusion) -> Tensor:
    """TP / (TP + FP + FN). NaN if truth and prediction are both empty, 0 if only one is."""
    return _ratio(c.TP, c.TP + c.FP + c.FN)


def precision(c: Confusion) -> Tensor:
    """TP / (TP + FP). NaN if nothing is predicted."""
    return _ratio(c.TP, c.TP + c.FP)


def recall(c: Confusion) -> Tensor:
    """TP / (TP + FN). NaN if the truth is empty."""
    return _ratio(c.TP, c.TP + c.FN)


def fnr(c: Confusion) -> Tensor:
    """False negative rate, FN / (TP + FN). NaN if the truth is empty."""
    return _ratio(c.FN, c.TP + c.FN)


def fpr(c: Confusion) -> Tensor:
    """False positive rate, FP / (FP + TN). NaN if the truth fills every valid pixel."""
    return _ratio(c.FP, c.FP + c.TN)


def _count(pixels: Tensor) -> Tensor:
    return pixels.flatten(2).sum(-1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part.double() / whole.double()
