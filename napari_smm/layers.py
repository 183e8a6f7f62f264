"""What a run looks like as napari layers. Pure: the same run and view always give the same layers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.data.axes import MOST_CHANNELS
from engine.errors import InputError
from engine.figures import colours
from napari_smm.frames import Frames, Item
from napari_smm.lazy import LazyStack
from napari_smm.placement import derived_transform

Role = str
"""What a layer shows: one of :data:`ROLES`, or "image 2", "image 3" … of the channels behind the first."""
ROLES: tuple[Role, ...] = (
    "image",
    "truth",
    "modulated mask",
    "probability",
    "prediction",
    "false positives",
    "false negatives",
    "outline",
    "recall slope",
)
"""Layers of a run, from the lowest up."""
THRESHOLDED: tuple[Role, ...] = ("prediction", "false positives", "false negatives")
"""Layers that show a probability through a two-colour map, and so follow T without new data."""

REST = 200
"""Milliseconds without a move or a stroke after which the rest of what follows is shown."""
BAND = 2.0**-16
"""Half the width of the contrast limits around T: 128 steps of a float32 near 1. In narrower ones napari
would rescale the data at every move."""
SPLIT = 0.49
"""Where the two colours meet between the limits: a little below T, so that a p that equals T passes however
the graphics card rounds."""
RENDERING = {"prediction": "mip", "false positives": "mip", "false negatives": "minip"}
"""How volumes are seen in 3D: along each ray the largest p decides whether any passes T, and of false
negatives the smallest, whether any does not."""
IMAGE_RENDERING = "attenuated_mip"
"""Of the image of a volume: bright structures in front hide those behind."""
DOUBT = 1e-6
"""The screen may show p in T - DOUBT … T on either side; everywhere else it shows p >= T."""
RANGE = (-0.01, 1.01)
"""Ends of the contrast limits' slider: each move beyond them would make napari slice the layer anew."""
BEYOND = 1.005
"""T that no probability reaches, within the slider's ends: what is shown where T is inf."""
BELOW, ABOVE = -1.0, 2.0
"""Values that pass no threshold, and every one."""
TRUTH, ADDED = 1, 2
"""Values of the modulated mask: in the original mask, and added by modulation."""
GAP = 0.06
"""Room between the image and the plot beside it, as a share of the image's width."""


MARK = "napari-smm"
"""Key in a layer's metadata, whose value says which run and role it has."""


@dataclass(frozen=True)
class View:
    """What the user wants to see of a run. Frozen: a change makes a new one.

    Attributes:
        item: number of the watched image.
        cls: number of the foreground class, from 0.
        thresholds: T of each class that was changed; others are 0.5.
        epoch: in view, 1…E; 0 is the newest there is.
        follow: go to each new epoch as it comes.
        outline: draw the prediction's outline.
    """

    item: int = 0
    cls: int = 0
    thresholds: Mapping[int, float] = field(default_factory=dict)
    epoch: int = 0
    follow: bool = True
    outline: bool = False

    @property
    def threshold(self) -> float:
        """T of the class in view."""
        return self.thresholds.get(self.cls, 0.5)

    def at(self, threshold: float) -> "View":
        """The same with another T for the class in view, kept within 0…1.

        Raises:
            InputError: it is not a number.
        """
        if not np.isfinite(threshold):
            raise InputError(f"the threshold {threshold} is no probability: 0 to 1 would work.")
        clipped = min(1.0, max(0.0, float(threshold)))
        return replace(self, thresholds={**self.thresholds, self.cls: clipped})


@dataclass(frozen=True)
class LayerSpec:
    """A layer to be added once, and then updated in place.

    Attributes:
        role: what it shows.
        kind: "image" or "labels".
        name: in the layer list.
        data: array or lazy array.
        key: equal for equal data, so that nothing is set anew without need.
        place: transform arguments.
        contrast_limits: None for labels and RGB.
        look: the other arguments, for the first time only: later they are the user's own.
    """

    role: Role
    kind: Literal["image", "labels"]
    name: str
    data: Any
    key: tuple[Any, ...]
    place: Mapping[str, Any]
    contrast_limits: tuple[float, float] | None
    look: Mapping[str, Any]

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of napari's layer, without the data."""
        limits = {} if self.contrast_limits is None else {"contrast_limits": self.contrast_limits}
        return {"name": self.name, **self.place, **self.look, **limits}


@dataclass(frozen=True)
class WatchedRun:
    """What the layers of a run are made of.

    Attributes:
        name: of the run, for the layers' metadata.
        items: the watched images.
        frames: their arrays.
        classes: names of the foreground classes.
        epochs: whole epochs, 0 before the first.
        generation: changes when epochs were run again, so that what was shown of them is dropped.
        picture: the recall-slope plot so far; None before the first epoch.
    """

    name: str
    items: Sequence[Item]
    frames: Frames
    classes: tuple[str, ...]
    epochs: int
    generation: int = 0
    picture: Any = None


def layers(run: WatchedRun, view: View) -> tuple[LayerSpec, ...]:
    """The layers of a run for a view, from the lowest up.

    Before the first epoch there are only image and truth. Derived layers have an epoch axis in front,
    whose world coordinate is the epoch's number, and behind it the axes of the stack that the image
    came from, if it did.
    """
    if not run.items:
        return ()
    item = run.items[min(view.item, len(run.items) - 1)]
    found = [*_images(item), _truth(run, item, view)]
    if run.epochs:
        found += [_modulated(run, item, view), _probability(run, item, view)]
        found += [_thresholded(run, item, view, role) for role in THRESHOLDED]
        if run.picture is not None:
            found.append(_recall_slope(run, item))
    return tuple(found)


def mark(root: object, role: Role) -> dict[str, Any]:
    """Metadata by which a run's layer is known again."""
    return {MARK: {"run": str(root), "role": role}}


def contrast_band(threshold: float) -> tuple[float, float]:
    """Contrast limits by which a :func:`two_colours` map shows p >= T, 0…1 or inf."""
    shown = min(threshold, BEYOND)
    return shown - BAND, shown + BAND


def move_threshold(layer: Any, threshold: float) -> bool:
    """Show another T on a layer of :func:`threshold_look`, but for its thumbnail.

    napari draws that anew with every change, which takes as long as all the rest; :func:`draw_thumbnail` does
    once T is at rest.

    Returns:
        Whether it was another.
    """
    band = contrast_band(threshold)
    if tuple(layer.contrast_limits) == band:
        return False
    layer._update_thumbnail = _nothing  # on this object alone: napari calls its class's again once it is gone
    try:
        layer.contrast_limits = band
    finally:
        del layer._update_thumbnail
    return True


def draw_thumbnail(layer: Any) -> None:
    """Draw a layer's thumbnail as the layer looks now."""
    layer._update_thumbnail()


def _nothing() -> None:
    pass


def two_colours(low: str | None, high: str | None, name: str) -> Any:
    """Colour map for values below T and from T on, with :func:`contrast_band`; None is see-through."""
    from napari.utils import Colormap

    pair = [[0, 0, 0, 0] if colour is None else [*colours.rgb(colour), 1] for colour in (low, high)]
    return Colormap(pair, controls=[0, SPLIT, 1], interpolation="zero", name=name)


def threshold_look(role: Role, cls: int = 0) -> dict[str, Any]:
    """Colours and blending of a thresholded layer: prediction, false positives or false negatives."""
    maps = {
        "prediction": (None, colours.class_colour(cls)),
        "false positives": (None, colours.FALSE_ALARM),
        "false negatives": (colours.MISSED, None),
    }
    return {
        "colormap": two_colours(*maps[role], name=role),
        "interpolation2d": "nearest",
        "interpolation3d": "nearest",
        "rendering": RENDERING[role],
        "blending": "translucent",
        "opacity": 0.4 if role == "prediction" else 0.85,
    }


class Indexed(Protocol):
    """An array, or what is indexed like one."""

    def __getitem__(self, key: Any, /) -> Any: ...


class Parts:
    """What is made of arrays of one shape, made only of the part that is indexed: a slice of a volume."""

    def __init__(self, make: Callable[..., NDArray[Any]], *arrays: NDArray[Any]) -> None:
        """Take the arrays that `make` is given, element by element."""
        self._make, self._arrays = make, arrays

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return self._make(*(array[key] for array in self._arrays))


def masked(
    p: NDArray[Any], truth: NDArray[np.bool_] | None, valid: NDArray[np.bool_] | None, role: Role
) -> NDArray[np.float32]:
    """Values whose two-colour map shows a role: p where the role can be, else what shows nothing.

    Args:
        p: probability (*S).
        truth: bool (*S); not needed for the prediction.
        valid: bool (*S); None is everywhere.
        role: "prediction", "false positives" or "false negatives".
    """
    where: Any = True if valid is None else valid
    if role != "prediction":
        assert truth is not None
        where = where & (truth if role == "false negatives" else ~truth)
    return np.where(where, p, np.float32(ABOVE if role == "false negatives" else BELOW)).astype(
        np.float32, copy=False
    )


def _name(run: WatchedRun, role: Role, cls: int | None) -> str:
    return f"{role} · {run.classes[cls]}" if cls is not None and len(run.classes) > 1 else role


def _place(
    item: Item,
    *,
    epochs: bool,
    scale: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Transform of a layer in an image's frame, with the epoch axis or without it."""
    scale = item.extents if scale is None else scale
    offset = item.offset if offset is None else offset
    found = derived_transform(item.source, origin=offset, scale_factor=scale)
    if epochs:
        # The epoch axis begins at 1, so that the slider's position is the epoch's number.
        return {**found, "translate": found["translate"] + np.eye(len(found["translate"]))[0]}
    return {key: value[1:, 1:] if np.ndim(value) == 2 else value[1:] for key, value in found.items()}


def _leading(item: Item) -> tuple[int, ...]:
    """Lengths of the axes in front of the image's own, if it is a plane of a stack."""
    return () if item.placement is None else item.placement.shape[: len(item.placement.plane)]


def _still(item: Item, array: NDArray[Any]) -> Any:
    """What is the same in every epoch, among the planes of its stack."""
    if item.placement is None or not item.placement.plane:
        return array
    plane = item.placement.plane
    return LazyStack(
        lambda index: array if index == plane else None, _leading(item), array.shape, array.dtype
    )


def _history(
    run: WatchedRun,
    item: Item,
    frame: Callable[[int], Indexed],
    shape: Sequence[int],
    dtype: DTypeLike,
    blank: float = 0,
    *,
    first: int = 1,
) -> LazyStack:
    """An array with an epoch axis in front, of frames of epoch first…E; there is nothing before."""
    plane = () if item.placement is None else item.placement.plane

    def at(index: tuple[int, ...]) -> Indexed | None:
        epoch = index[0] + 1
        return frame(epoch) if index[1:] == plane and epoch >= first else None

    return LazyStack(at, (run.epochs, *_leading(item)), shape, dtype, blank=blank)


def _images(item: Item) -> list[LayerSpec]:
    """The image: colour as RGB, other channels a layer each, of which only the first is visible.

    A channel axis would be the same slider as the epochs. Colour is for images only: the three channels of
    a volume are three measurements, and napari renders no RGB volume.
    """
    channels = item.image.shape[-1]
    if channels == 3 and len(item.shape) == 2:
        return [_image(item, "image", "image", item.image, rgb=True)]
    if channels == 1:
        return [_image(item, "image", "image", item.image[..., 0])]
    return [
        _image(
            item, f"image {at + 1}" if at else "image", f"image · channel {at + 1}", item.image[..., at], at
        )
        for at in range(min(channels, MOST_CHANNELS))
    ]


def _image(
    item: Item, role: Role, name: str, pixels: NDArray[Any], channel: int = 0, *, rgb: bool = False
) -> LayerSpec:
    # Where the user's own layer shows the image already, another one would only cover it.
    look: dict[str, Any] = {"visible": item.placement is None and not channel}
    return LayerSpec(
        role=role,
        kind="image",
        name=name,
        data=_still(item, pixels),
        key=(item.number, item.name),
        place=_place(item, epochs=False),
        contrast_limits=None if rgb else _limits(pixels),
        look=look | ({"rgb": True} if rgb else {"colormap": "gray", "rendering": IMAGE_RENDERING}),
    )


def outline_layer(run: WatchedRun, view: View, border: NDArray[np.uint8]) -> LayerSpec:
    """The prediction's outline in the image and epoch in view.

    Args:
        run: the run.
        view: what is in view.
        border: uint8 (*S), 1 on the outline.
    """
    item = run.items[view.item]
    return LayerSpec(
        role="outline",
        kind="image",
        name="outline",
        data=_still(item, border),
        key=(item.number, view),
        place=_place(item, epochs=False),
        contrast_limits=(0.0, 1.0),
        look={
            "colormap": two_colours(None, colours.CONFUSED, "outline"),
            "blending": "translucent",
            "interpolation2d": "nearest",
            "interpolation3d": "nearest",
            "rendering": "mip",
        },
    )


def in_place(run: WatchedRun, view: View, plane: NDArray[Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    """An array (*S) as the data of a layer on the image in view, all of its stack, and the transform."""
    item = run.items[view.item]
    whole = np.zeros((*_leading(item), *plane.shape), plane.dtype)
    whole[() if item.placement is None else item.placement.plane] = plane
    return whole, _place(item, epochs=False)


def _limits(pixels: NDArray[Any]) -> tuple[float, float]:
    low, high = float(np.nanmin(pixels)), float(np.nanmax(pixels))
    return (low, high) if low < high else (low, low + 1)


def _truth(run: WatchedRun, item: Item, view: View) -> LayerSpec:
    """What is right in the epoch in view."""
    epoch = run.epochs if view.follow or not view.epoch else min(view.epoch, run.epochs)
    truth = run.frames.truth(item.number, epoch)[view.cls]
    return LayerSpec(
        role="truth",
        kind="labels",
        name=_name(run, "truth", view.cls),
        data=_still(item, truth.astype(np.uint8)),
        key=(item.number, view.cls, item.name, item.version(epoch)),
        place=_place(item, epochs=False),
        contrast_limits=None,
        look={"visible": False, "opacity": 0.5, "colormap": label_colours({1: colours.CORRECT})},
    )


def _modulated(run: WatchedRun, item: Item, view: View) -> LayerSpec:
    cls = view.cls

    def grown(mask: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.uint8]:
        return np.where(mask, np.where(truth, np.uint8(TRUTH), np.uint8(ADDED)), np.uint8(0))

    def frame(epoch: int) -> Parts:
        truth = run.frames.truth(item.number, epoch)[cls]
        return Parts(grown, run.frames.modulated(item.number, epoch)[cls], truth)

    return LayerSpec(
        role="modulated mask",
        kind="labels",
        name=_name(run, "modulated mask", cls),
        data=_history(run, item, frame, item.shape, np.uint8, first=item.first),
        key=(item.number, cls, run.epochs, run.generation),
        place=_place(item, epochs=True),
        contrast_limits=None,
        look={
            "opacity": 0.7,
            "colormap": label_colours({TRUTH: colours.CORRECT, ADDED: colours.ADDED}),
            "features": {"meaning": ["background", "truth", "added"]},
        },
    )


def label_colours(named: Mapping[int, str]) -> Any:
    """Colour map of a labels layer; what is not named is see-through."""
    from napari.utils import DirectLabelColormap

    clear = np.zeros(4, np.float32)
    chosen: dict[int | None, Any] = {None: clear, 0: clear}
    for label, colour in named.items():
        chosen[label] = np.asarray([*colours.rgb(colour), 1], np.float32)
    return DirectLabelColormap(color_dict=chosen)


def _probability(run: WatchedRun, item: Item, view: View) -> LayerSpec:
    def shown(p: NDArray[Any], valid: NDArray[Any]) -> NDArray[np.float32]:
        return masked(p, None, valid, "prediction")

    def frame(epoch: int) -> Parts:
        valid = run.frames.valid(item.number, epoch)
        return Parts(shown, run.frames.probability(item.number, epoch)[view.cls], valid)

    return LayerSpec(
        role="probability",
        kind="image",
        name=_name(run, "probability", view.cls),
        data=_history(run, item, frame, item.shape, np.float32, BELOW, first=item.first),
        key=(item.number, view.cls, run.epochs, run.generation),
        place=_place(item, epochs=True),
        contrast_limits=(0.0, 1.0),
        look={
            "visible": False,
            "colormap": "viridis",
            "opacity": 0.7,
            "interpolation2d": "nearest",
            "rendering": "mip",
        },
    )


def _thresholded(run: WatchedRun, item: Item, view: View, role: Role) -> LayerSpec:
    cls = view.cls

    def shown(p: NDArray[Any], truth: NDArray[Any], valid: NDArray[Any]) -> NDArray[np.float32]:
        return masked(p, truth, valid, role)

    def frame(epoch: int) -> Parts:
        truth, valid = run.frames.truth(item.number, epoch)[cls], run.frames.valid(item.number, epoch)
        return Parts(shown, run.frames.probability(item.number, epoch)[cls], truth, valid)

    blank = ABOVE if role == "false negatives" else BELOW
    return LayerSpec(
        role=role,
        kind="image",
        name=_name(run, role, cls),
        data=_history(run, item, frame, item.shape, np.float32, blank, first=item.first),
        key=(item.number, cls, run.epochs, run.generation),
        place=_place(item, epochs=True),
        contrast_limits=contrast_band(view.threshold),
        look=threshold_look(role, cls),
    )


def _recall_slope(run: WatchedRun, item: Item) -> LayerSpec:
    """The plot stands right of the image, as high as the image; beside a volume, all through its depth."""
    picture = run.picture
    *behind, height, width = item.shape
    high, wide = picture.at(run.epochs).shape[:2]
    pixel = item.extents[-2] * height / high
    offset = (*item.offset[:-1], item.offset[-1] + item.extents[-1] * width * (1 + GAP))
    across = pixel
    if behind:  # of voxels that are no cubes
        steps = np.linalg.norm(item.transform.matrix[:-1, :-1], axis=0)
        across = pixel * float(steps[-2] / steps[-1])
    # One slice as thick as the volume: it is in view wherever the slider stands.
    thick = tuple(extent * length for extent, length in zip(item.extents, behind, strict=False))

    def frame(epoch: int) -> NDArray[np.uint8]:
        drawn: NDArray[np.uint8] = picture.at(epoch)
        return drawn.reshape(*(1 for _ in behind), *drawn.shape)

    look: dict[str, Any] = {"rgb": True}
    if behind:
        middle = {"position": (0, high / 2, wide / 2), "normal": (1, 0, 0), "thickness": 1}
        look |= {"depiction": "plane", "plane": middle}
    return LayerSpec(
        role="recall slope",
        kind="image",
        name="recall slope",
        data=_history(run, item, frame, (*(1 for _ in behind), high, wide, 4), np.uint8),
        key=(item.number, run.epochs, run.generation),
        place=_place(item, epochs=True, scale=(*thick, pixel, across), offset=offset),
        contrast_limits=None,
        look=look,
    )
