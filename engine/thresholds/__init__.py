"""Thresholds: what a probability map scores at any T. Numpy only; what a viewer shows comes from here."""

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

__all__ = ["Counts", "Curve", "Rates", "Skipped", "mean_rates", "pooled", "precision_recall", "rates"]
