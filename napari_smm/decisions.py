"""What is decided at thresholds: label maps of watched images and of planes, outlined, kept or saved.

Whatever reads pixels here is meant for a thread of its own, and may end early once nobody waits for it.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.thresholds import Curve
from napari_smm import targets
from napari_smm.annotation import safe_name
from napari_smm.layers import MARK, LayerSpec, View, WatchedRun, in_place, outline_layer
from napari_smm.lazy import LazyStack
from napari_smm.masks import Labels, Mask, Space, label_map, outline, save_masks
from napari_smm.targets import Index, Target

Ended = Callable[[], bool]
"""Says whether nobody waits for the result any more."""
Channel = tuple[Target, int]
"""A class: the target that has it, and its number there."""
Named = list[tuple[str, Callable[[], Labels | Mask]]]
"""Names of masks without ending, and what computes them."""

SUFFIX = "_mask"
"""Behind the name of what was predicted, as `python -m engine.predict` does."""


class DroppedError(Exception):
    """Nobody waits for this any more."""


def decision(run: WatchedRun, view: View, epoch: int, item: int | None = None) -> Labels:
    """Labels uint8 (*S) of a watched image by the thresholds of the view: 0 background, 1 … C.

    Args:
        run: the run.
        view: thresholds, and the image unless `item` is given.
        epoch: 1…E.
        item: number of another image.
    """
    number = view.item if item is None else item
    p = run.frames.probability(number, epoch)
    found = label_map(p, [view.thresholds.get(cls, 0.5) for cls in range(len(p))])
    found[~run.frames.valid(number, epoch)] = 0
    return found


def drawn(run: WatchedRun, view: View, epoch: int, ended: Ended) -> LayerSpec:
    """The outline of the class in view in the image in view."""
    p = run.frames.probability(view.item, epoch)[view.cls]
    mask = (p >= np.float64(view.threshold)) & run.frames.valid(view.item, epoch)
    return outline_layer(run, view, outline(mask))


def kept(run: WatchedRun, view: View, epoch: int, ended: Ended) -> tuple[Any, dict[str, Any]]:
    """Labels of the image in view, as the data of a layer, and its transform."""
    return in_place(run, view, decision(run, view, epoch))


def own_mask(run: WatchedRun, view: View, epoch: int, item: int, cls: int) -> Mask:
    """Where a class passes in a watched image, whatever other classes do: bool (*S)."""
    p = run.frames.probability(item, epoch)[cls]
    passes = p >= p.dtype.type(view.thresholds.get(cls, 0.5))
    return np.asarray(passes & run.frames.valid(item, epoch))


def run_masks(run: WatchedRun, view: View, epoch: int, own: bool = False) -> Named:
    """Masks of all images that are watched in an epoch.

    Args:
        run: the run.
        view: thresholds.
        epoch: 1…E.
        own: whether each class gets a mask of its own, too, bool.
    """
    named: Named = []
    for item in run.items:
        if item.first > epoch:
            continue
        name = safe_name(item.name) + SUFFIX
        named.append((name, partial(decision, run, view, epoch, item.number)))
        for cls, behind in enumerate(class_suffixes(run.classes) if own else ()):
            named.append((name + behind, partial(own_mask, run, view, epoch, item.number, cls)))
    return named


def class_suffixes(classes: Sequence[str]) -> list[str]:
    """What the names of the classes' own masks end in: the class, or its number where two look alike."""
    safe = [safe_name(name) for name in classes]
    alike = [name.casefold() for name in safe]
    return [
        f"_{name if alike.count(name.casefold()) == 1 else number}" for number, name in enumerate(safe, 1)
    ]


def counted(target: Target, cls: int, index: Index, ended: Ended) -> tuple[Curve | str, int]:
    """Counts of a plane at any threshold, against a truth that is nowhere if none is known.

    Returns:
        The counts, or a sentence that says why there are none; and the :func:`stamp` of the plane.

    Raises:
        InputError: a p that is no probability, or that cannot be read.
    """
    if pixels := _too_many(target):
        return (
            f"a {target.part} of {pixels:,} pixels is too large to be counted: up to "
            f"{targets.MOST_PIXELS:,} work.",
            0,
        )
    before = stamp(target, index, ended)
    found = targets.curve_of(target, cls, index)
    return targets.share_above(target, cls, index).curve if found is None else found, before


def stamp(target: Target, index: Index, ended: Ended) -> int:
    """A number that is another one if the truth of a plane is another; 0 without a truth."""
    if target.truth is None:
        return 0
    labels = np.asarray(target.truth[(*index, *(slice(None),) * target.dims)])
    return zlib.crc32(np.ascontiguousarray(labels).data)


def counted_all(target: Target, cls: int, ended: Ended) -> tuple[Curve, ...]:
    """Counts of all planes of a target with a truth; none of a single plane, or of too many pixels.

    Raises:
        InputError: as :func:`counted`.
    """
    pixels = int(np.prod(target.shape, dtype=np.int64))
    if target.truth is None or len(target.planes) < 2 or pixels > targets.MOST_PIXELS:
        return ()
    found = []
    for index in target.planes:
        if ended():
            raise DroppedError
        curve = targets.curve_of(target, cls, index)
        assert curve is not None
        found.append(curve)
    return tuple(found)


def plane_labels(channels: Sequence[Channel], index: Index, thresholds: Sequence[float]) -> Labels:
    """Labels uint8 (*S) of a plane or volume: 0 background, 1 … C.

    Args:
        channels: the C classes.
        index: of the plane.
        thresholds: T of each class.

    Raises:
        InputError: the plane is too large, or cannot be read.
    """
    if pixels := _too_many(channels[0][0]):
        raise InputError(
            f"a {channels[0][0].part} of {pixels:,} pixels is too large for a mask: up to "
            f"{targets.MOST_PIXELS:,} would work."
        )
    return label_map(np.stack([targets.plane(target, cls, index)[0] for target, cls in channels]), thresholds)


def plane_mask(channel: Channel, index: Index, threshold: float) -> Mask:
    """Where a class passes in a plane or volume, whatever other classes do: bool (*S). Raises InputError."""
    target, cls = channel
    p = targets.plane(target, cls, index)[0]
    return np.asarray(p >= p.dtype.type(threshold))


def kept_plane(
    channels: Sequence[Channel], index: Index, thresholds: Sequence[float], ended: Ended
) -> NDArray[np.uint8]:
    """Labels of a plane or volume as the data (*leading, *S) of a layer, background in the others."""
    labels = plane_labels(channels, index, thresholds)
    whole = np.zeros(channels[0][0].shape, np.uint8)
    whole[index] = labels
    return whole


def plane_masks(
    name: str, channels: Sequence[Channel], thresholds: Sequence[float], own: Sequence[str] = ()
) -> Named:
    """Masks of all planes or volumes, numbered where there are several.

    Args:
        name: of the image.
        channels: the C classes.
        thresholds: T of each.
        own: names of the classes, if each is to have a mask of its own, too, bool.
    """
    target = channels[0][0]
    widths = [len(str(length - 1)) for length in target.leading]
    named: Named = []
    for index in target.planes:
        numbers = [f"{at:0{width}d}" for at, width in zip(index, widths, strict=True)]
        stem = "_".join([safe_name(name), *numbers]) + SUFFIX
        named.append((stem, partial(plane_labels, channels, index, thresholds)))
        for behind, channel, threshold in zip(class_suffixes(own), channels, thresholds, strict=False):
            named.append((stem + behind, partial(plane_mask, channel, index, threshold)))
    return named


def plane_outline(target: Target, cls: int, index: Index, threshold: float, ended: Ended) -> LazyStack:
    """The outline of a plane or volume, uint8 (*leading, *S), nothing elsewhere. Raises InputError."""
    if pixels := _too_many(target):
        raise InputError(
            f"a {target.part} of {pixels:,} pixels is too large for an outline: up to "
            f"{targets.MOST_PIXELS:,} work."
        )
    border = outline(targets.plane(target, cls, index)[0] >= np.float64(threshold))
    return LazyStack(lambda other: border if other == index else None, target.leading, border.shape, np.uint8)


def taken(folder: Path, named: Named, ending: str, ended: Ended) -> list[Path]:
    """Files that saving masks would replace."""
    return [path for name, _ in named if (path := folder / f"{name}{ending}").exists()]


def run_spaces(run: WatchedRun, named: Named) -> dict[str, Space]:
    """Where the volumes or images lie that masks of :func:`run_masks` are of, by the masks' names."""
    names = {name for name, _ in named}
    return {
        name: Space(item.spacing, item.affine)
        for item in run.items
        for behind in ("", *class_suffixes(run.classes))
        if (name := safe_name(item.name) + SUFFIX + behind) in names
    }


def save(
    folder: Path,
    named: Named,
    classes: int,
    ending: str,
    overwrite: bool,
    spaces: Mapping[str, Space],
    ended: Ended,
) -> list[Path]:
    """Write masks as :func:`napari_smm.masks.save_masks`, until they are all there or nobody waits.

    Raises:
        InputError: they cannot be computed or written.
    """

    def progress(done: int, total: int) -> None:
        if ended():
            raise DroppedError

    return save_masks(
        folder, named, classes, ending=ending, overwrite=overwrite, progress=progress, spaces=spaces
    )


def class_layers(layers: Iterable[Any], layer: Any) -> list[Any]:
    """The layers of all classes of the prediction that a layer belongs to, or the layer alone.

    Args:
        layers: those of the viewer.
        layer: one of them.
    """
    meaning = layer.metadata.get(MARK, {})
    count = int(meaning.get("of", 1))
    if count < 2 or "folder" not in meaning:
        return [layer]
    found = {}
    for other in layers:
        its = other.metadata.get(MARK, {})
        if its.get("kind") == "prediction" and its.get("folder") == meaning["folder"]:
            found[int(its["class"])] = other
    return [found[cls] for cls in range(count)] if set(found) == set(range(count)) else [layer]


def _too_many(target: Target) -> int:
    """Pixels of a plane or volume, if those are too many to be handled at once; else 0."""
    pixels = int(np.prod(target.shape[-target.dims :], dtype=np.int64))
    return pixels if pixels > targets.MOST_PIXELS else 0
