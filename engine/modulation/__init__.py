"""Supervised Mask Modulation. The settings in :mod:`engine.modulation.specs` import without torch."""

from typing import TYPE_CHECKING, Any

from engine.modulation.recall_trend import recall_slope

if TYPE_CHECKING:
    from engine.modulation.dilation import miss_aware_mask

__all__ = ["miss_aware_mask", "recall_slope"]


def __getattr__(name: str) -> Any:
    # Only the masks need torch; the viewer, which must not load it, reads the settings beside them.
    if name == "miss_aware_mask":
        from engine.modulation.dilation import miss_aware_mask

        return miss_aware_mask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
