"""Scores of one image: every metric of a trained run's prediction, from one probability map."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine import metrics
from engine.data.rows import rows_of
from engine.data.store import Sample, framed
from engine.errors import InputError
from engine.tables import METRICS
from engine.thresholds import Curve, rates
from engine.trained import Threshold, Trained

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""T of the curves over the threshold: 0.05, 0.10 … 0.95."""
OVER_T = ("dice", "precision", "recall")
"""Scores that are given at each of them."""
OVERLAP = ("dice", "jaccard", "fnr", "fpr", "precision", "recall")
CALIBRATION = ("nll", "brier", "ece")
Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Predicted:
    """An image as it is scored.

    Attributes:
        p: foreground probabilities, float32 (C, *S).
        masks, truth: bool (C, *S).
        valid: bool (*S).
    """

    p: NDArray[np.float32]
    masks: Masks
    truth: Masks
    valid: Masks


@dataclass(frozen=True)
class Scored:
    """The scores of one image.

    Attributes:
        name: of the image.
        scores: metric → float64 (C + 1,), the last for background; NaN where not defined.
        detected, lesions: int64 (C,), the lesions that were found, and all.
        over_t: "dice", "precision", "recall" → float64 (C, len(THRESHOLDS)).
        bins: pixels, sums of p, and true pixels by p, float64 (3, C, 15).
        nll_categorical: of exclusive classes, in nats; NaN where classes may overlap.
        frame: S of the image as the network saw it.
    """

    name: str
    scores: dict[str, Floats]
    detected: NDArray[np.int64]
    lesions: NDArray[np.int64]
    over_t: dict[str, Floats]
    bins: Floats
    nll_categorical: float
    frame: tuple[int, ...]


def predict(trained: Trained, sample: Sample, native: bool, threshold: Threshold) -> Predicted:
    """Predict one image, at its own size or at the network's, beside its truth.

    Raises:
        InputError: the network gives NaN.
    """
    # Resizing rounds, and may leave 0…1 by the last bit.
    p = trained.probability(sample.image, native=native, spacing=sample.spacing).clip(0, 1)
    if np.isnan(p).any():
        raise InputError(
            f"the network of {trained.root} ({trained.file}, epoch {trained.epoch}) gives NaN for "
            f"{sample.name}, so its training had diverged: train with a smaller optimizer.lr, or score "
            "an earlier --checkpoint."
        )
    size = p.shape[1:]
    labels, valid = framed(sample, None if size == sample.labels.shape else size)
    numbers = np.arange(1, len(trained.classes) + 1).reshape(-1, *[1] * labels.ndim)
    truth = (labels == numbers) & valid
    return Predicted(p, trained.masks(p, threshold), truth, valid)


def score(trained: Trained, sample: Sample, native: bool, threshold: Threshold) -> Scored:
    """Predict one image once, and take every metric of it."""
    made = predict(trained, sample, native, threshold)
    softmax = trained.predictor.head == "softmax"
    p, y, valid = _tensor(made.p), _tensor(made.truth), _tensor(made.valid[None])
    lesions = [count[0].numpy() for count in metrics.lesion_recall(_tensor(made.masks), y, valid=valid)]
    categorical = metrics.categorical_nll(p, y, valid=valid).item() if softmax else np.nan
    bins = [field[0].numpy() for field in metrics.reliability(p, y, valid=valid)]
    table = mask_scores(made) | probability_scores(made, exclusive=softmax or len(made.p) == 1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it shall be
        table["lesion_recall"] = np.append(lesions[0] / lesions[1], np.nan)
    return Scored(
        sample.name, {name: table[name] for name in METRICS}, lesions[0], lesions[1], scores_over_t(made),
        np.stack(bins).astype(np.float64), categorical,
        trained.frame(rows_of(sample.image, spacing=sample.spacing)),
    )  # fmt: skip


def mask_scores(made: Predicted) -> dict[str, Floats]:
    """Overlap and clDice of each class and, last, of the background: float64 (C + 1,)."""
    both = [_tensor(_with_background(masks, ~np.any(masks, axis=0))) for masks in (made.masks, made.truth)]
    valid = _tensor(made.valid[None])
    count = metrics.confusion(*both, valid=valid)
    table = {name: getattr(metrics, name)(count)[0].numpy() for name in OVERLAP}
    # The background has no skeleton of interest.
    classes = metrics.cldice(*(masks[:, :-1] for masks in both), valid=valid)[0].numpy()
    return {**table, "cldice": np.append(classes, np.nan)}


def probability_scores(made: Predicted, *, exclusive: bool) -> dict[str, Floats]:
    """NLL, Brier and ECE of each class and, last, of the background: float64 (C + 1,).

    What exclusive classes leave of 1 is the background's probability. Classes that may overlap give none.
    """
    rest = (1 - made.p.sum(axis=0)).clip(0, 1)
    p, y = (
        _tensor(_with_background(*pair)) for pair in ((made.p, rest), (made.truth, ~made.truth.any(axis=0)))
    )
    valid = _tensor(made.valid[None])
    table = {name: getattr(metrics, name)(p, y, valid=valid)[0].numpy() for name in CALIBRATION}
    return table if exclusive else {name: np.append(row[:-1], np.nan) for name, row in table.items()}


def scores_over_t(made: Predicted) -> dict[str, Floats]:
    """Dice, precision and recall of p >= T for each of THRESHOLDS: float64 (C, n).

    T is taken in p's own type, as it is for the masks.
    """
    found = np.empty((len(OVER_T), len(made.p), len(THRESHOLDS)))
    for number, (p, y) in enumerate(zip(made.p, made.truth, strict=True)):
        curve = Curve.of(p, y, made.valid)
        for place, threshold in enumerate(THRESHOLDS):
            at = rates(curve.counts(float(np.float32(threshold))))
            found[:, number, place] = [getattr(at, name) for name in OVER_T]
    return dict(zip(OVER_T, found, strict=True))


def _with_background(classes: NDArray[Any], background: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([classes, background[None]])


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(array)[None]
