"""Figures of a run, for papers and for `make demo`. Imports no torch, and no pyplot."""

from engine.figures.cases import Panel, panels
from engine.figures.growth import masks
from engine.figures.history import curves
from engine.figures.page import save

__all__ = ["Panel", "curves", "masks", "panels", "save"]
