"""What is decided at the thresholds of a view: label maps of watched images, shown or written."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.thresholds import Curve
from napari_smm import targets
from napari_smm.layers import LayerSpec, View, WatchedRun, in_place, outline_layer
from napari_smm.masks import label_map, outline, save_masks


def decision(run: WatchedRun, view: View, epoch: int, item: int | None = None) -> NDArray[np.uint8]:
    """Labels uint8 (*S) of a watched image by the thresholds of the view: 0 background, 1 … C.

    Args:
        run: the run.
        view: thresholds, and the image unless `item` is given.
        epoch: 1…E.
        item: number of another image.
    """
    p = run.frames.probability(view.item if item is None else item, epoch)
    return label_map(p, [view.thresholds.get(cls, 0.5) for cls in range(len(p))])


def drawn(run: WatchedRun, view: View, epoch: int) -> LayerSpec:
    """The outline of the class in view in the image in view."""
    p = run.frames.probability(view.item, epoch)[view.cls]
    mask = (p >= view.threshold) & run.items[view.item].valid
    return outline_layer(run, view, outline(mask))


def measured(
    target: targets.Target, cls: int, index: tuple[int, ...]
) -> tuple[Curve | None, list[Curve] | None]:
    """Counts of a target's plane, and of all its planes where that is not too much."""
    shown = targets.curve_of(target, cls, index)
    if shown is None:
        return None, None
    everything = targets.set_curves(target, cls)
    return shown, None if isinstance(everything, str) else everything


def kept(run: WatchedRun, view: View, epoch: int) -> tuple[Any, dict[str, Any]]:
    """Labels of the image in view, as the data of a layer, and its transform."""
    return in_place(run, view, decision(run, view, epoch))


def kept_plane(target: targets.Target, cls: int, index: tuple[int, ...], threshold: float) -> Any:
    """Labels uint8 (H, W) of a target's plane."""
    p, _ = targets.plane(target, cls, index)
    return label_map(p[None], [threshold])


def save_run(folder: Path, run: WatchedRun, view: View, epoch: int) -> list[Path]:
    """Write the masks of all watched images."""
    named = ((item.name, decision(run, view, epoch, item.number)) for item in run.items)
    return save_masks(folder, named, len(run.classes))


def save_planes(folder: Path, target: targets.Target, thresholds: dict[int, float]) -> list[Path]:
    """Write the masks of all planes of a target."""
    classes = len(target.classes)
    shape = tuple(target.probability.shape)
    leading = shape[1:-2] if target.class_axis is not None else shape[:-2]

    def named() -> Any:
        for index in np.ndindex(*leading):
            p = np.stack([targets.plane(target, cls, index)[0] for cls in range(classes)])
            number = "".join(f"_{place:04d}" for place in index)
            yield f"{target.name}{number}", label_map(p, [thresholds.get(c, 0.5) for c in range(classes)])

    return save_masks(folder, named(), classes)
