"""Going to a place of an image: the slices it lies in, the camera's centre, and a zoom that shows it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

SHARE = 0.12
"""Of the canvas's shorter side a place shall take up at least so much."""
CLOSEST = 100
"""Pixels of the image that stay in view along the canvas's shorter side, however small a place is."""


def look_at(viewer: Any, layer: Any, box: Sequence[slice], peak: Sequence[int] | None = None) -> None:
    """Centre the camera on a box of a layer. It comes nearer to a small one, and never goes farther away.

    Args:
        viewer: that shows it.
        layer: with the axes of the image.
        box: of the image's pixels, start and stop along each axis.
        peak: a pixel of it, in whose slice it is seen where not all axes are displayed; else the middle.
    """
    middle = np.array([(part.start + part.stop - 1) / 2 for part in box])
    inside = middle if peak is None else np.asarray(peak, float)
    offset = viewer.dims.ndim - layer.ndim
    displayed = [axis - offset for axis in viewer.dims.displayed if axis >= offset]
    for axis, at in enumerate(np.asarray(layer.data_to_world(inside))):
        if axis not in displayed:
            viewer.dims.set_point(axis + offset, at)
    # Behind the slice that is in view, the middle of the box along the axes that are.
    seen = np.where(np.isin(np.arange(layer.ndim), displayed), middle, inside)
    world = np.asarray(layer.data_to_world(seen))
    camera = viewer.scene.camera
    camera.center = tuple(world[displayed])
    camera.zoom = max(camera.zoom, _zoom(viewer, layer, box, displayed))


def _zoom(viewer: Any, layer: Any, box: Sequence[slice], displayed: Sequence[int]) -> float:
    """Canvas pixels per unit of the world at which a box takes up its share."""
    canvas = min(viewer.canvas.size)
    steps = [float(np.linalg.norm(_step(layer, axis))) for axis in displayed]
    lengths = [(box[axis].stop - box[axis].start) * step for axis, step in zip(displayed, steps, strict=True)]
    shown = max(max(lengths) / SHARE, CLOSEST * max(steps))
    return float(canvas / shown)


def _step(layer: Any, axis: int) -> Any:
    """The way from a pixel to the next along an axis, in the world."""
    unit = np.eye(layer.ndim)[axis]
    return np.asarray(layer.data_to_world(unit)) - np.asarray(layer.data_to_world(0 * unit))
