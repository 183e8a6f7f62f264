"""Thresholds: what a probability map scores at any T, and which T keeps a promise on new images.

Numpy only; what a viewer shows comes from here.
"""

from engine.thresholds.conformal import (
    cls_needs,
    cls_threshold,
    conditional_cls_threshold,
    conditional_needs,
    crc_threshold,
    critical_threshold,
)
from engine.thresholds.coverage import kept_band, kept_chance, mean_interval
from engine.thresholds.curves import (
    Counts,
    Curve,
    Rates,
    Skipped,
    mean_rates,
    pooled,
    precision_recall,
    rates,
)
from engine.thresholds.lesions import Lesions, Units, gather, lesion_probabilities
from engine.thresholds.rules import Choice, attainable, mean_bound
from engine.thresholds.softmax import Wished, best_dice, wanted_precision, wanted_recall
from engine.thresholds.words import lesion_of, promise

__all__ = [
    "Choice",
    "Counts",
    "Curve",
    "Lesions",
    "Rates",
    "Skipped",
    "Units",
    "Wished",
    "attainable",
    "best_dice",
    "cls_needs",
    "cls_threshold",
    "conditional_cls_threshold",
    "conditional_needs",
    "crc_threshold",
    "critical_threshold",
    "gather",
    "kept_band",
    "kept_chance",
    "lesion_of",
    "lesion_probabilities",
    "mean_bound",
    "mean_interval",
    "mean_rates",
    "pooled",
    "precision_recall",
    "promise",
    "rates",
    "wanted_precision",
    "wanted_recall",
]
