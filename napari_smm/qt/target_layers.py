"""The layers that show a threshold's target: what is predicted, and what of it is wrong."""

from typing import Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from engine.errors import InputError
from napari_smm.layers import (
    MARK,
    RANGE,
    REST,
    THRESHOLDED,
    Role,
    contrast_band,
    draw_thumbnail,
    move_threshold,
    threshold_look,
)
from napari_smm.placement import Transform
from napari_smm.targets import Masked, Target, labels_levels

PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
"""Where a layer lies."""


class TargetLayers(QObject):
    """Prediction, and with a truth false positives and false negatives, over a layer of probabilities.

    They lie where the target lies and follow it. A layer that the user removes stays away. Moving T
    changes contrast limits only.
    """

    gone = Signal()
    """The target was deleted, or given data that are no target; everything is closed."""
    changed = Signal()
    """The data of target or truth are others, so that what was counted is out of date. The target may be
    another, and without truth if that layer was deleted."""

    def __init__(
        self,
        viewer: Any,
        target_layer: Any,
        truth_layer: Any | None,
        cls: int,
        threshold: float,
        parent: QObject | None = None,
    ) -> None:
        """Add the layers.

        Args:
            viewer: napari's, which has both layers.
            target_layer: Image layer of probabilities.
            truth_layer: Labels layer of the same shape, or None.
            cls: number of the class, from 0.
            threshold: T in p >= T.
            parent: Qt's.

        Raises:
            InputError: the layers are no target, see :meth:`Target.of_layers`, or have no such class.
        """
        super().__init__(parent)
        self._viewer, self._target_layer, self._truth_layer = viewer, target_layer, truth_layer
        self._cls, self._threshold = cls, threshold
        self._layers: dict[Role, Any] = {}
        self._stale: list[Role] = []
        self._open = True
        self.target = Target.of_layers(target_layer, truth_layer)
        self.target.key(cls)
        self._rest = _timer(self, REST, self.show_painted)
        self._turn = _timer(self, 0, self._refresh)
        self._still = _timer(self, REST, self._draw_thumbnails)
        self._farewell = _timer(self, 0, self._leave)
        self._add()
        viewer.layers.events.removed.connect(self._on_removed)
        for name in PLACE:
            getattr(target_layer.events, name).connect(self._on_moved)
        target_layer.events.data.connect(self._on_data)
        if truth_layer is not None:
            _painted(truth_layer, self._on_painted, connect=True)

    @property
    def threshold(self) -> float:
        """T."""
        return self._threshold

    @property
    def cls(self) -> int:
        """Number of the class, from 0."""
        return self._cls

    def layer(self, role: Role) -> Any | None:
        """The layer of a role, if it is in the viewer."""
        return self._layers.get(role)

    def set_threshold(self, threshold: float) -> None:
        """Move T."""
        self._threshold = threshold
        with self._viewer.layers.events.blocker():  # the list of layers shows no contrast limits
            moved = [move_threshold(layer, threshold) for layer in self._layers.values()]
        if any(moved):
            self._still.start()

    def set_class(self, cls: int) -> None:
        """Show another class. Raises InputError if there is no such one."""
        self.target.key(cls)
        if cls != self._cls:
            self._cls = cls
            self._set_data()
            if prediction := self.layer("prediction"):
                prediction.colormap = self._look("prediction")["colormap"]

    def show_painted(self) -> None:
        """Show the truth as it is now. What is painted is heard of, but not what is undone."""
        if self._truth_layer is None:
            return
        if self.target.truth is not labels_levels(self._truth_layer)[0]:
            self._on_data()
            return
        self._stale = [role for role in self._layers if role != "prediction"]
        self._turn.start()
        self.changed.emit()

    def close(self, remove: bool = True) -> None:
        """Let go of viewer and layers, and remove those that were added unless they shall stay."""
        self._disconnect()
        self._farewell.stop()
        if remove:
            self._remove(*self._layers)
        self._layers.clear()

    # What the layers are made of

    def _add(self) -> None:
        roles = THRESHOLDED if self.target.truth is not None else THRESHOLDED[:1]
        active = self._viewer.layers.selection.active
        place = placed(self._target_layer, self.target)
        for role in roles:
            levels = self._levels(role)
            layer = self._viewer.add_image(
                levels if self._target_layer.multiscale else levels[0],
                name=f"{role} · {self.target.name}",
                metadata={MARK: {"role": role, "target": self.target.name}},
                rgb=False,
                multiscale=self._target_layer.multiscale,
                contrast_limits=contrast_band(self._threshold),
                **place,
                **self._look(role),
            )
            layer.contrast_limits_range = RANGE
            layer.editable = False
            self._layers[role] = layer
        if active is not None:
            # The user may be painting the truth: that layer stays chosen.
            self._viewer.layers.selection.active = active

    def _look(self, role: Role) -> dict[str, Any]:
        return threshold_look(role, self.target.number + self._cls)

    def _levels(self, role: Role) -> list[Masked]:
        truths = () if self._truth_layer is None else labels_levels(self._truth_layer)
        at_hand = {tuple(map(int, truth.shape)): truth for truth in truths}
        made = []
        for number, p in enumerate(self.target.levels):
            shape = tuple(map(int, p.shape))[self.target.class_axis is not None :]
            made.append(Masked(self.target, self._cls, role, number, at_hand.get(shape)))
        return made

    def _set_data(self) -> None:
        for role, layer in self._layers.items():
            levels = self._levels(role)
            layer.data = levels if layer.multiscale else levels[0]
            layer.editable = False
            layer.contrast_limits = contrast_band(self._threshold)

    # What comes from the viewer

    def _on_moved(self) -> None:
        place = placed(self._target_layer, self.target)
        for layer in self._layers.values():
            now = placed(layer)
            for name, value in place.items():
                if not _equal(now[name], value):
                    setattr(layer, name, value)

    def _on_data(self) -> None:
        try:
            self.target = Target.of_layers(self._target_layer, self._truth_layer)
            self.target.key(self._cls)
        except InputError:
            self._go()
            return
        if any(layer.ndim != len(self.target.shape) for layer in self._layers.values()):
            self._go()
            return
        self._set_data()
        self._on_moved()
        self.changed.emit()

    def _on_painted(self) -> None:
        self._rest.start()

    def _refresh(self) -> None:
        # A layer a turn, for a large one takes a while.
        if layer := self._layers.get(self._stale.pop()):
            layer.refresh(extent=False)
        if self._stale:
            self._turn.start()

    def _draw_thumbnails(self) -> None:
        for layer in self._layers.values():
            draw_thumbnail(layer)

    def _on_removed(self, event: Any) -> None:
        if event.value is self._target_layer:
            self._go()
        elif event.value is self._truth_layer:
            self._rest.stop()
            self._turn.stop()
            _painted(self._truth_layer, self._on_painted, connect=False)
            self._truth_layer = None
            self._farewell.start()
        else:
            for role, layer in list(self._layers.items()):
                if layer is event.value:
                    del self._layers[role]

    def _go(self) -> None:
        self._disconnect()
        self._farewell.start()

    def _leave(self) -> None:
        # Not while the viewer is removing: it may have ours on its list too, and look for them in vain.
        if not self._open:
            self.close()
            self.gone.emit()
            return
        self._remove(*(role for role in self._layers if role != "prediction"))
        self.target = Target.of_layers(self._target_layer, None)
        self.changed.emit()

    def _remove(self, *roles: Role) -> None:
        # From the top down: vispy 0.17 crashes while drawing when they go from the bottom up.
        for role in reversed(roles):
            layer = self._layers.pop(role, None)
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def _disconnect(self) -> None:
        if not self._open:
            return
        self._open = False
        self._rest.stop()
        self._still.stop()
        self._turn.stop()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        for name in PLACE:
            getattr(self._target_layer.events, name).disconnect(self._on_moved)
        self._target_layer.events.data.disconnect(self._on_data)
        if self._truth_layer is not None:
            _painted(self._truth_layer, self._on_painted, connect=False)


def placed(layer: Any, target: Target | None = None) -> dict[str, Any]:
    """Transform arguments by which another layer lies where a layer lies; without a target's class axis."""
    way = Transform.of_layer(layer)
    found: dict[str, Any] = {}
    first = 0 if target is None or target.class_axis is None else 1
    for name in PLACE:
        value = getattr(way, name)
        if name in ("rotate", "shear", "affine"):
            found[name] = np.asarray(value)[first:, first:]
        else:
            found[name] = value[first:]
    return found


def _painted(layer: Any, hear: Any, *, connect: bool) -> None:
    """Hear of whatever changes a Labels layer's data, or no longer."""
    for emitter in (layer.events.data, layer.events.labels_update, layer.events.paint):
        (emitter.connect if connect else emitter.disconnect)(hear)


def _timer(parent: QObject, milliseconds: int, call: Any) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(call)
    return timer


def _equal(first: Any, second: Any) -> bool:
    return np.array_equal(np.asarray(first, dtype=object), np.asarray(second, dtype=object))
