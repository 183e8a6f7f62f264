"""Series: what calibration figures draw of a run, a class or a method, each under its label.

Loads neither torch nor matplotlib, so that tables can be made of the same numbers.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Pixels by their probability, in bins of equal width from 0 to 1. Of several images they are added.

    Attributes:
        count: pixels in each bin, int64 (bins,).
        confidence: sums of their p, float64 (bins,).
        truth: how many of them are true, int64 (bins,).
    """

    count: NDArray[np.int64]
    confidence: Floats
    truth: NDArray[np.int64]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Reliability":
        """From lists under the attributes' names, as a report's JSON file holds them.

        Raises:
            InputError: one is missing, or they are not of one length.
        """
        missing = [name for name in ("count", "confidence", "truth") if name not in content]
        if missing:
            raise InputError(f"the bins have no {missing[0]}: count, confidence and truth are needed.")
        made = cls(
            np.asarray(content["count"], np.int64),
            np.asarray(content["confidence"], np.float64),
            np.asarray(content["truth"], np.int64),
        )
        if not made.count.shape == made.confidence.shape == made.truth.shape:
            sizes = " and ".join(str(a.size) for a in (made.count, made.confidence, made.truth))
            raise InputError(f"the bins' count, confidence and truth have {sizes} values: equally many work.")
        return made

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(
            self.count + other.count, self.confidence + other.confidence, self.truth + other.truth
        )

    @property
    def ece(self) -> float:
        """Expected calibration error of all pixels together, in [0, 1]; NaN without any.

        At most the mean of the images' own, since errors of several images can cancel.
        """
        total = int(self.count.sum())
        return float(np.abs(self.confidence - self.truth).sum() / total) if total else math.nan


@dataclass(frozen=True)
class ThresholdCurve:
    """Scores as the threshold T in p >= T moves.

    Attributes:
        thresholds: T, ascending, (n,).
        means: "precision", "recall" and "dice" → mean over images at each T, (n,) in [0, 1]; NaN where no
            image has one.
        margins: the same names → half of the 95 % interval, (n,); NaN where there is none.
    """

    thresholds: Floats
    means: Mapping[str, Floats]
    margins: Mapping[str, Floats]


def pooled(parts: Iterable[Reliability]) -> Reliability:
    """All pixels of at least one series together."""
    first, *rest = parts
    return sum(rest, first)
