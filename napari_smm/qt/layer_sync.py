"""Puts a session's layers into the viewer: added once, then updated in place, a layer a turn."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_smm.feed import Snapshot
from napari_smm.layers import (
    MARK,
    RANGE,
    REST,
    THRESHOLDED,
    LayerSpec,
    Role,
    View,
    contrast_band,
    draw_thumbnail,
    mark,
    move_threshold,
)
from napari_smm.session import Session


class LayerSync(QObject):
    """Keeps the layers of the watched run as the session wants them.

    Layers that the user removes stay away until another run is watched. Their visibility, opacity
    and colours are the user's, once they are there.
    """

    changed = Signal()
    """Layers have come, or gone."""

    def __init__(self, viewer: Any, session: Session, parent: QObject | None = None) -> None:
        """Begin to follow a session."""
        super().__init__(parent)
        self._viewer = viewer
        self._session = session
        self._layers: dict[Role, Any] = {}
        self._specs: dict[Role, LayerSpec] = {}
        self._dismissed: set[Role] = set()
        self._leaving: deque[Any] = deque()
        self._jobs: deque[Callable[[], None]] = deque()
        self._newer: Snapshot | None = None
        self._moving = False
        self._text = ""
        self.longest = 0.0
        self._turn = QTimer(self)
        self._turn.setInterval(0)
        self._turn.timeout.connect(self._work)
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST)
        self._rest.timeout.connect(self._draw_thumbnails)
        session.watched.connect(self._on_watched)
        session.updated.connect(self._on_updated)
        session.viewed.connect(self._on_viewed)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.dims.events.current_step.connect(self._on_step)

    def layer(self, role: Role) -> Any | None:
        """The layer of a role, if it is in the viewer."""
        return self._layers.get(role)

    @property
    def busy(self) -> bool:
        """Whether layers are still to be changed."""
        return bool(self._jobs or self._leaving or self._newer)

    def close(self) -> None:
        """Let go of session and viewer. The layers stay."""
        self._turn.stop()
        self._rest.stop()
        self._jobs.clear()
        self._newer = None
        self._leaving.clear()
        self._clear_caption()
        self._session.watched.disconnect(self._on_watched)
        self._session.updated.disconnect(self._on_updated)
        self._session.viewed.disconnect(self._on_viewed)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.dims.events.current_step.disconnect(self._on_step)

    # What comes in

    def _on_watched(self, root: object) -> None:
        self._jobs.clear()
        self._newer = None
        if root is not None:
            # From the top down: vispy 0.17 crashes while drawing when they go from the bottom up.
            self._leaving.extend(reversed(self._layers.values()))
        self._layers, self._specs, self._dismissed = {}, {}, set()
        self._clear_caption()
        self.changed.emit()
        self._start()

    def _on_updated(self, snapshot: Snapshot) -> None:
        # Of what arrives meanwhile only the newest is applied. What was begun is brought to its end before:
        # with epochs shorter than all layers take, the last layers would never come.
        self._newer = snapshot
        self._start()

    def _order(self, snapshot: Snapshot) -> None:
        """Line up what a snapshot changes."""
        for spec in snapshot.layers:
            if not self._same(spec):
                self._jobs.append(partial(self._apply, spec))
        self._jobs.append(partial(self._go_to, snapshot))
        self._jobs.append(self._caption)

    def _caption(self) -> None:
        """Name epoch and image on the canvas: napari's slider counts from 0, and says no name."""
        snapshot, overlay = self._session.snapshot, self._viewer.canvas.overlays.text
        if snapshot is None or snapshot.item is None or overlay.text != self._text:
            return  # there is nothing to say, or the text is the user's own
        item = snapshot.item
        epoch = f"epoch {self._session.epoch} of {snapshot.state.total}" if snapshot.run.epochs else "epoch 0"
        self._text = f"{epoch} · {item.split} image {item.name}"
        overlay.text = self._text
        overlay.visible = True

    def _clear_caption(self) -> None:
        overlay = self._viewer.canvas.overlays.text
        if self._text and overlay.text == self._text:
            overlay.text, overlay.visible = "", False
        self._text = ""

    def _same(self, spec: LayerSpec) -> bool:
        shown = self._specs.get(spec.role)
        return shown is not None and (shown.key, shown.name) == (spec.key, spec.name)

    def _on_viewed(self, view: View) -> None:
        self._threshold(view)
        snapshot = self._session.snapshot
        if snapshot is not None and view.epoch:
            self._point(view.epoch)
            self._caption()

    def _on_removed(self, event: Any) -> None:
        for role, layer in list(self._layers.items()):
            if layer is event.value:
                del self._layers[role]
                self._specs.pop(role, None)
                self._dismissed.add(role)
                self.changed.emit()

    def _on_step(self) -> None:
        """The user moved napari's own slider."""
        axis = self._epoch_axis()
        snapshot = self._session.snapshot
        if self._moving or axis is None or snapshot is None:
            return
        epoch = round(self._viewer.dims.point[axis])
        if 1 <= epoch <= snapshot.run.epochs and epoch != self._session.epoch:
            self._session.show_epoch(epoch)

    # What goes out, a layer a turn

    def _start(self) -> None:
        if self.busy and not self._turn.isActive():
            self._turn.start()

    def _work(self) -> None:
        began = time.perf_counter()
        # What the viewer says of its dims meanwhile is not the user's hand.
        self._moving = True
        try:
            if self._leaving:
                self._remove(self._leaving.popleft())
            elif self._jobs:
                self._jobs.popleft()()
            elif self._newer:
                newer, self._newer = self._newer, None
                self._order(newer)
        finally:
            self._moving = False
        if not self.busy:
            self._turn.stop()
        self.longest = max(self.longest, time.perf_counter() - began)

    def _apply(self, spec: LayerSpec) -> None:
        if spec.role in self._dismissed:
            return
        layer = self._layers.get(spec.role) or self._adopted(spec)
        if layer is None:
            self._add(spec)
        else:
            self._update(layer, spec)
        self._specs[spec.role] = spec
        self._name_axis()

    def _name_axis(self) -> None:
        axis = self._epoch_axis()
        if axis is not None and self._viewer.dims.axis_labels[axis] != "epoch":
            labels = list(self._viewer.dims.axis_labels)
            labels[axis] = "epoch"
            self._viewer.dims.axis_labels = labels

    def _adopted(self, spec: LayerSpec) -> Any | None:
        """A layer that is there already: of a run directory that was opened, or of a closed dock."""
        known = mark(self._session.root, spec.role)[MARK]
        layer = next((layer for layer in self._viewer.layers if layer.metadata.get(MARK) == known), None)
        if layer is not None:
            layer.editable = False
            if spec.role in THRESHOLDED:
                layer.contrast_limits_range = RANGE
            self._layers[spec.role] = layer
            self._specs[spec.role] = replace(spec, key=(), name="")
            self.changed.emit()
        return layer

    def _add(self, spec: LayerSpec) -> None:
        active = self._viewer.layers.selection.active
        add = self._viewer.add_labels if spec.kind == "labels" else self._viewer.add_image
        layer = add(spec.data, metadata=mark(self._session.root, spec.role), **spec.arguments())
        layer.editable = False
        if spec.role in THRESHOLDED:
            layer.contrast_limits_range = RANGE
            # T may have moved since this was ordered.
            layer.contrast_limits = contrast_band(self._session.view.threshold)
        self._layers[spec.role] = layer
        self.changed.emit()
        if spec.role == "recall slope" and all(MARK in other.metadata for other in self._viewer.layers):
            self._viewer.reset_view()  # it stands beside the image, out of view
        if active is not None and active is not layer:
            # The user may be painting on another layer: that one stays chosen.
            self._viewer.layers.selection.active = active

    def _update(self, layer: Any, spec: LayerSpec) -> None:
        shown = self._specs[spec.role]
        if shown.key != spec.key:
            layer.data = spec.data
            layer.editable = False
        if not _equal(shown.place, spec.place):
            for name, value in spec.place.items():
                setattr(layer, name, value)
        if spec.role in THRESHOLDED:
            # T may have moved since this was ordered.
            layer.contrast_limits = contrast_band(self._session.view.threshold)
        elif shown.key[:1] != spec.key[:1] and spec.contrast_limits is not None:
            layer.contrast_limits = spec.contrast_limits
        if shown.name != spec.name:
            layer.name = spec.name

    def _threshold(self, view: View) -> None:
        shown = [layer for role in THRESHOLDED if (layer := self._layers.get(role)) is not None]
        # The list of layers shows no contrast limits: told of them, it would be drawn anew with each.
        with self._viewer.layers.events.blocker():
            moved = [move_threshold(layer, view.threshold) for layer in shown]
        if any(moved):
            self._rest.start()

    def _draw_thumbnails(self) -> None:
        for role in THRESHOLDED:
            if (layer := self._layers.get(role)) is not None:
                draw_thumbnail(layer)

    def _go_to(self, snapshot: Snapshot) -> None:
        if snapshot.run.epochs:
            self._point(self._session.epoch)

    def _point(self, epoch: int) -> None:
        axis = self._epoch_axis()
        if axis is None or round(self._viewer.dims.point[axis]) == epoch:
            return
        before, self._moving = self._moving, True
        try:
            self._viewer.dims.set_point(axis, epoch)
        finally:
            self._moving = before

    def _epoch_axis(self) -> int | None:
        layer = self._layers.get("probability") or self._layers.get("modulated mask")
        return None if layer is None else self._viewer.dims.ndim - layer.ndim

    def _remove(self, layer: Any) -> None:
        if layer in self._viewer.layers:
            self._viewer.layers.remove(layer)


def _equal(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(np.asarray(first[key], dtype=object), np.asarray(second[key], dtype=object))
        for key in first
    )
