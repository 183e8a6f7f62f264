"""Metrics: how good a segmentation is, per image and class. Never differentiated."""

from engine.metrics.calibration import Bins, brier, categorical_nll, ece, expected_error, nll, reliability
from engine.metrics.lesions import Lesions, lesion_recall
from engine.metrics.overlap import Confusion, confusion, dice, fnr, fpr, jaccard, precision, recall
from engine.metrics.topology import cldice

__all__ = [
    "Bins", "Confusion", "Lesions", "brier", "categorical_nll", "cldice", "confusion", "dice", "ece",
    "expected_error", "fnr", "fpr", "jaccard", "lesion_recall", "nll", "precision", "recall", "reliability",
]  # fmt: skip
