"""Figures of a run, for papers and for `make demo`. Imports no torch, and no pyplot.

matplotlib takes half a second to load, so it is loaded with the first figure: who only needs what
a colour means, or a run's epochs, does not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.figures.calibration import reliability_diagram, threshold_curves
    from engine.figures.cases import Panel, panels
    from engine.figures.growth import masks
    from engine.figures.guarantees import guarantee
    from engine.figures.history import curves
    from engine.figures.page import save
    from engine.figures.series import Reliability, ThresholdCurve
    from engine.figures.verdicts import GuaranteeRow

__all__ = [
    "GuaranteeRow", "Panel", "Reliability", "ThresholdCurve", "curves", "guarantee", "masks", "panels",
    "reliability_diagram", "save", "threshold_curves",
]  # fmt: skip

HOMES = {
    "Panel": "cases", "panels": "cases", "masks": "growth", "curves": "history", "save": "page",
    "reliability_diagram": "calibration", "threshold_curves": "calibration", "Reliability": "series",
    "ThresholdCurve": "series", "GuaranteeRow": "verdicts", "guarantee": "guarantees",
}  # fmt: skip
"""Which module holds what."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
