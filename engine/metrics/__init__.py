"""Metrics: how good a segmentation is, per image and class. Never differentiated."""

from engine.metrics.overlap import Confusion, confusion, dice, fnr, fpr, jaccard, precision, recall
from engine.metrics.topology import cldice

__all__ = ["Confusion", "cldice", "confusion", "dice", "fnr", "fpr", "jaccard", "precision", "recall"]
