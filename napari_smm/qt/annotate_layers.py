"""The layers of the image that is annotated: its pixels, and the one Labels layer that is painted on."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from engine.data.annotated import BACKGROUND, SEPARATOR, UNLABELLED, AnnotationClass
from engine.data.decode import stem
from engine.errors import InputError
from napari_smm.annotating_image import OpenedImage

SHADE = (0.5, 0.5, 0.5, 0.3)
"""Of background that was painted, while something is unlabelled: seen on dark and on bright images."""
CLEAR = (0.0, 0.0, 0.0, 0.0)
ODD = "#ff00ff"
"""Of values that no class has."""
OPACITY = 0.6
KEPT = 4
"""Images whose layers stay in memory, and with them what can be undone."""
KEPT_BYTES = 1 << 29
"""As many bytes of them at most, but for the one that is shown."""
EDITING = ("paint", "erase", "fill", "polygon")


def colormap(classes: Sequence[AnnotationClass], *, shaded: bool) -> DirectLabelColormap:
    """Colours of a Labels layer whose eraser paints *unlabelled*.

    Args:
        classes: their values and colours.
        shaded: whether background can be seen.
    """
    colors: dict[int | None, Any] = {each.value: each.color for each in classes}
    colors |= {BACKGROUND: SHADE if shaded else CLEAR, UNLABELLED: CLEAR, None: ODD}
    return DirectLabelColormap(color_dict=colors, background_value=UNLABELLED)


@dataclass(frozen=True, eq=False)
class Shown:
    """The layers of an image.

    Attributes:
        image: as its folder names it.
        pictures: its Image layers, the lowest first.
        labels: what is painted on.
    """

    image: str
    pictures: tuple[Image, ...]
    labels: Labels

    @property
    def layers(self) -> tuple[Any, ...]:
        """All, the lowest first."""
        return (*self.pictures, self.labels)

    @property
    def size(self) -> int:
        """Bytes."""
        return int(sum(np.asarray(layer.data).nbytes for layer in self.layers))


class AnnotateLayers(QObject):
    """Shows one image of a folder, and notices what is painted on it.

    Each image has layers of its own; those of the last few are kept, so that strokes can still be undone when
    one comes back.
    """

    painted = Signal(str)
    """Labels of this image have changed: by a stroke, an edit, or undoing or redoing one."""
    gone = Signal(str)
    """The user has removed the Labels layer of this image."""
    refused = Signal(str)
    """Why something that the user did with the layer was taken back, in a sentence."""
    selected = Signal(int)
    """Another value is painted with."""

    def __init__(self, viewer: Any, parent: QObject) -> None:
        """Show nothing yet."""
        super().__init__(parent)
        self._viewer = viewer
        self._classes: tuple[AnnotationClass, ...] = ()
        self._kept: OrderedDict[str, Shown] = OrderedDict()
        self._shown: Shown | None = None
        self._steps = (0, 0)
        self._last_label = 1
        self._leaving = False
        self._look: dict[str, Any] = {"mode": "paint"}
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.dims.events.ndisplay.connect(self._on_mode)

    @property
    def image(self) -> str | None:
        """The image that is shown."""
        return None if self._shown is None else self._shown.image

    @property
    def labels(self) -> Labels | None:
        """The layer that is painted on."""
        return None if self._shown is None else self._shown.labels

    @property
    def pictures(self) -> tuple[Image, ...]:
        """The Image layers that are shown."""
        return () if self._shown is None else self._shown.pictures

    def has(self, image: str) -> bool:
        """Whether an image's layers are in memory."""
        return image in self._kept

    def show(self, opened: OpenedImage | None, image: str = "") -> Shown:
        """Show an image in place of the one before.

        Args:
            opened: it, read; None where its layers are in memory still.
            image: its name in that case.
        """
        self.clear()
        shown = self._kept[image] if opened is None else self._made(opened)
        self._kept[shown.image] = shown
        self._kept.move_to_end(shown.image)
        for layer in shown.layers:
            self._viewer.layers.append(layer)
        self._shown = shown
        self._connect(shown.labels)
        self.recolour(self._classes, shaded=True)
        if self.knows(self._last_label):
            shown.labels.selected_label = self._last_label
        for name, value in self._look.items():
            setattr(shown.labels, name, value)
        self._viewer.layers.selection.active = shown.labels
        self._viewer.reset_view()
        return shown

    def clear(self, *, leave: bool = False) -> None:
        """Show nothing, or leave what is shown, but so that nobody paints on it."""
        shown, self._shown = self._shown, None
        if shown is None:
            return
        self._leaving = True
        try:
            self._disconnect(shown)
            # The tool and its size go along to the next image.
            names = ("mode", "brush_size", "contour", "opacity", "preserve_labels", "contiguous")
            self._look = {name: getattr(shown.labels, name) for name in names}
            # napari draws the buttons of a layer that comes back as if it moved the camera.
            shown.labels.mode = "pan_zoom"
            if leave:
                shown.labels.editable = False
                return
            for layer in reversed(shown.layers):
                if layer in self._viewer.layers:
                    self._viewer.layers.remove(layer)
        finally:
            self._leaving = False

    def trim(self) -> list[str]:
        """Let go of layers beyond what is kept. Returns their images."""
        gone = []
        while len(self._kept) > KEPT or (
            len(self._kept) > 1 and sum(shown.size for shown in self._kept.values()) > KEPT_BYTES
        ):
            image = next(image for image in self._kept if image != self.image)
            del self._kept[image]
            gone.append(image)
        return gone

    def forget(self) -> None:
        """Show nothing and keep nothing."""
        self.clear()
        self._kept.clear()

    def close(self) -> None:
        """Let go of the viewer; the layers that it shows stay."""
        if self._shown is not None:
            self._disconnect(self._shown)
        self._shown = None
        self._kept.clear()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.dims.events.ndisplay.disconnect(self._on_mode)

    # What is painted with

    def recolour(self, classes: Sequence[AnnotationClass], *, shaded: bool) -> None:
        """Show classes in their colours."""
        self._classes = tuple(classes)
        labels = self.labels
        if labels is None:
            return
        wanted = colormap(classes, shaded=shaded)
        found = labels.colormap
        same = isinstance(found, DirectLabelColormap) and _colors(found) == _colors(wanted)
        if not same or found.background_value != UNLABELLED:
            wanted.selection = labels.selected_label
            wanted.use_selection = labels.show_selected_label
            labels.colormap = wanted

    def knows(self, value: int) -> bool:
        """Whether a value means something."""
        return value in (BACKGROUND, UNLABELLED) or any(each.value == value for each in self._classes)

    def choose(self, value: int) -> None:
        """Paint with a value."""
        if self.labels is not None:
            self.labels.selected_label = value
            if self.labels.mode not in EDITING:
                self.labels.mode = "paint"

    def step_class(self, by: int) -> None:
        """Paint with the next class or the one before, background among them."""
        if self.labels is not None:
            values = [BACKGROUND, *(each.value for each in self._classes)]
            at = values.index(self.labels.selected_label) if self.labels.selected_label in values else 0
            self.labels.selected_label = values[(at + by) % len(values)]

    # Edits that can be undone

    def apply(self, labels: NDArray[np.uint8]) -> bool:
        """Put other labels in place of those that are shown. Returns whether any differs.

        Args:
            labels: uint8 (*S).

        Raises:
            InputError: no image is shown, or another shape or dtype.
        """
        layer = self._required()
        if labels.shape != layer.data.shape or labels.dtype != np.uint8:
            raise InputError(
                f"labels are {labels.dtype} of shape {labels.shape}: uint8 of the image's shape "
                f"{layer.data.shape} would work."
            )
        return self._edit(layer, tuple(slice(0, length) for length in labels.shape), labels)

    def fill_rest(self, *, slice_only: bool) -> bool:
        """Make background of all that is unlabelled, or of the slice in view. Returns whether anything was.

        Raises:
            InputError: no image is shown.
        """
        layer = self._required()
        key = tuple(slice(0, length) for length in layer.data.shape)
        if slice_only and layer.ndim > 2:
            key = self._slice_in_view(layer)
        region = np.asarray(layer.data)[key]
        return self._edit(layer, key, np.where(region == UNLABELLED, np.uint8(BACKGROUND), region))

    def _edit(self, layer: Labels, key: tuple[slice, ...], wanted: NDArray[np.uint8]) -> bool:
        """Put labels into a box of a layer, as one step to undo. Returns whether any differs."""
        found = np.asarray(layer.data)[key]
        differs = found != wanted
        if not differs.any():
            return False
        box = _box(differs)
        differs, wanted = differs[box], wanted[box]
        first = [side.start + inner.start for side, inner in zip(key, box, strict=True)]
        where = tuple(slice(at, at + size) for at, size in zip(first, differs.shape, strict=True))
        kept, layer.preserve_labels = layer.preserve_labels, False
        try:
            with layer.block_history():
                # As napari's brush does, for each value. What it keeps to undo it takes two bytes a pixel,
                # where data_setitem takes 26.
                for value in np.unique(wanted[differs]).tolist():
                    mask = differs & (wanted == value)
                    layer._paint_region_with_mask(where, mask, value, list(range(layer.ndim)), refresh=False)
        finally:
            layer.preserve_labels = kept
        layer.refresh()
        return True

    def check(self) -> None:
        """Notice what was undone or redone, of which napari tells nobody."""
        if self._shown is not None and self._count(self._shown.labels) != self._steps:
            self._on_paint()

    def _slice_in_view(self, layer: Labels) -> tuple[slice, ...]:
        """The plane of a layer that is seen, or that lies in the middle of what is seen in 3D."""
        dims = self._viewer.dims
        seen = {axis - (dims.ndim - layer.ndim) for axis in dims.displayed[-2:]}
        point = layer.world_to_data(dims.point)[-layer.ndim :]
        at = [
            int(np.clip(round(float(value)), 0, length - 1))
            for value, length in zip(point, layer.data.shape, strict=True)
        ]
        return tuple(
            slice(0, length) if axis in seen else slice(at[axis], at[axis] + 1)
            for axis, length in enumerate(layer.data.shape)
        )

    def _required(self) -> Labels:
        if self.labels is None:
            raise InputError("no image is open: open a folder and choose one.")
        return self.labels

    # Layers

    def _made(self, opened: OpenedImage) -> Shown:
        pictures = tuple(Image(data, **arguments) for data, arguments, _ in opened.layers)
        labels = Labels(
            opened.labels,
            name=f"annotation · {stem(Path(opened.image.split(SEPARATOR)[0]))}",
            colormap=colormap(self._classes, shaded=True),
            opacity=OPACITY,
            **{**opened.place, "metadata": dict(opened.place["metadata"])},
        )
        return Shown(opened.image, pictures, labels)

    def _connect(self, labels: Labels) -> None:
        self._steps = self._count(labels)
        labels.events.paint.connect(self._on_paint)
        # A stroke is told of at its end; a long one is to be saved before.
        labels.events.labels_update.connect(self._on_update)
        labels._overlays["brush_stroke"].events.active.connect(self._on_update)  # it may have been given up
        labels.events.data.connect(self._on_data)
        labels.events.mode.connect(self._on_mode)
        labels.events.selected_label.connect(self._on_selected)

    def _disconnect(self, shown: Shown) -> None:
        labels = shown.labels
        if self._count(labels) != self._steps:  # undone or redone since the last look
            self._steps = self._count(labels)
            self.painted.emit(shown.image)
        labels.events.paint.disconnect(self._on_paint)
        labels.events.labels_update.disconnect(self._on_update)
        labels._overlays["brush_stroke"].events.active.disconnect(self._on_update)
        labels.events.data.disconnect(self._on_data)
        labels.events.mode.disconnect(self._on_mode)
        labels.events.selected_label.disconnect(self._on_selected)

    def _count(self, labels: Labels) -> tuple[int, int]:
        return len(labels._undo_history), len(labels._redo_history)

    def _on_paint(self, event: Any = None) -> None:
        if self._shown is not None:
            self._steps = self._count(self._shown.labels)
            self.painted.emit(self._shown.image)

    def _on_update(self, event: Any = None) -> None:
        if self._shown is not None:
            self.painted.emit(self._shown.image)

    def _on_data(self, event: Any = None) -> None:
        self._on_paint()

    def _on_mode(self, event: Any = None) -> None:
        """In 3D napari paints on whatever surface a ray meets, the face of an unlabelled volume too."""
        labels = self.labels
        if labels is not None and self._viewer.dims.ndisplay == 3 and labels.mode in EDITING:
            labels.mode = "pan_zoom"
            self.refused.emit("Labels are painted in slices: napari's cube below the layers goes back to 2D.")

    def _on_selected(self, event: Any = None) -> None:
        labels = self.labels
        if labels is None:
            return
        value = int(labels.selected_label)
        if self.knows(value):
            self._last_label = value
            self.selected.emit(value)
            return
        labels.selected_label = self._last_label if self.knows(self._last_label) else self._classes[0].value
        self.refused.emit(f"{value} is no class: add one in the Annotate dock to paint with it.")

    def _on_removed(self, event: Any) -> None:
        shown = self._shown
        if self._leaving or shown is None or event.value is not shown.labels:
            return
        self._shown = None
        self._kept.pop(shown.image, None)
        self.gone.emit(shown.image)


def _colors(given: DirectLabelColormap) -> dict[Any, tuple[float, ...]]:
    return {label: tuple(np.round(np.asarray(color, float), 4)) for label, color in given.color_dict.items()}


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around what is true."""
    sides = []
    for axis in range(mask.ndim):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        sides.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(sides)
