"""Summary: the scores of many images together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine import tables
from engine.figures.series import Reliability, ThresholdCurve
from engine.scores import OVER_T, THRESHOLDS, Scored
from engine.tables import METRICS, POOLED, Mean

BACKGROUND = "background"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """The scores of a split.

    Attributes:
        scores: class → metric → mean over images. "mean" is over each image's foreground classes, and
            "mean with background" over all. Lesion recall is that of all lesions together, in "mean" of
            those of all classes.
        lesions: class → detected and all.
        reliability: class → its pixels by p, over all images.
        over_t: class → scores over the threshold.
        nll_categorical: mean over images, or None where classes may overlap.
    """

    scores: dict[str, dict[str, Mean]]
    lesions: dict[str, tuple[int, int]]
    reliability: dict[str, Reliability]
    over_t: dict[str, ThresholdCurve]
    nll_categorical: Mean | None

    def undefined(self) -> str:
        """How many images have no value of a metric, as where a class is absent and not predicted."""
        entries = self.scores["mean"].items()
        counts = {METRICS[name].title: entry.skipped for name, entry in entries}
        return ", ".join(
            f"{title} of {count} image{'s' * (count != 1)}" for title, count in counts.items() if count
        )


def summarise(scored: Sequence[Scored], classes: Sequence[str]) -> Summary:
    """Of at least one image, all of the same classes."""
    detected = np.stack([image.detected for image in scored])
    lesions = np.stack([image.lesions for image in scored])
    found, every = detected.sum(axis=0).tolist(), lesions.sum(axis=0).tolist()
    pixels, confidence, truth = np.sum([image.bins for image in scored], axis=0)
    categorical = np.array([image.nll_categorical for image in scored])
    return Summary(
        scores=_means(scored, classes),
        lesions=dict(zip(classes, zip(found, every, strict=True), strict=True)),
        reliability={
            label: Reliability(pixels[c].astype(np.int64), confidence[c], truth[c].astype(np.int64))
            for c, label in enumerate(classes)
        },
        over_t={label: _over_t(scored, c) for c, label in enumerate(classes)},
        nll_categorical=None if np.isnan(categorical).all() else tables.mean(categorical),
    )


def _means(scored: Sequence[Scored], classes: Sequence[str]) -> dict[str, dict[str, Mean]]:
    means: dict[str, dict[str, Mean]] = {}
    for name in METRICS:
        values = np.stack([image.scores[name] for image in scored])
        made = _lesion_recall(scored, classes) if name in POOLED else _over_images(values, classes)
        for label, entry in made.items():
            means.setdefault(label, {})[name] = entry
    return means


def _over_images(values: Floats, classes: Sequence[str]) -> dict[str, Mean]:
    """Label → mean over images of (images, C + 1)."""
    columns = {label: values[:, column] for column, label in enumerate([*classes, BACKGROUND])}
    columns |= {"mean": nanmean(values[:, :-1]), "mean with background": nanmean(values)}
    return {label: tables.mean(column) for label, column in columns.items()}


def _lesion_recall(scored: Sequence[Scored], classes: Sequence[str]) -> dict[str, Mean]:
    """Label → detected of all lesions in the split; the background has none."""
    detected = np.stack([image.detected for image in scored])
    lesions = np.stack([image.lesions for image in scored])
    groups = {label: [column] for column, label in enumerate(classes)}
    every = list(range(len(classes)))
    groups |= {BACKGROUND: [], "mean": every, "mean with background": every}
    made = {}
    for label, columns in groups.items():
        having = int(lesions[:, columns].any(axis=1).sum())
        found, total = int(detected[:, columns].sum()), int(lesions[:, columns].sum())
        made[label] = tables.rate(found, total, count=having, skipped=len(scored) - having)
    return made


def _over_t(scored: Sequence[Scored], number: int) -> ThresholdCurve:
    """The scores of one class over T, with the interval over images."""
    means, margins = {}, {}
    for name in OVER_T:
        values = np.stack([image.over_t[name][number] for image in scored])
        entries = [tables.mean(column) for column in values.T]
        means[name] = np.array([entry.value for entry in entries])
        margins[name] = np.array([entry.margin for entry in entries])
    return ThresholdCurve(np.array(THRESHOLDS), means, margins)


def nanmean(values: Floats) -> Floats:
    """Mean along the classes of (images, classes), NaN where no class has a value."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=1)
    total = np.where(defined, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def commonest_frame(scored: Sequence[Scored]) -> list[int]:
    """Places of the images that have the size most of them have, as the network saw them."""
    ((frame, _),) = Counter(image.frame for image in scored).most_common(1)
    return [place for place, image in enumerate(scored) if image.frame == frame]
