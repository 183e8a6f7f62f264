"""The outline of the prediction in view, drawn anew when the hand rests."""

from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_smm.qt.jobs import Jobs
from napari_smm.qt.threshold_source import ThresholdSource

REST_MILLISECONDS = 200
"""Stillness after which the outline is drawn."""
KIND = "outline"
"""Of the job."""


class OutlineSync(QObject):
    """Keeps an `outline` layer of a source while it is wanted."""

    dismissed = Signal()
    """The user deleted the layer, and so wants none."""

    def __init__(self, viewer: Any, jobs: Jobs, parent: QObject) -> None:
        """Draw nothing yet."""
        super().__init__(parent)
        self._viewer, self._jobs = viewer, jobs
        self._source: ThresholdSource | None = None
        self._wanted = False
        self._layer: Any = None
        self._due: object = None
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MILLISECONDS)
        self._rest.timeout.connect(self._ask)
        viewer.layers.events.removed.connect(self._on_removed)

    def layer(self) -> Any | None:
        """The outline's layer, if it is there."""
        return self._layer

    def follow(self, source: ThresholdSource | None) -> None:
        """Draw the outline of another source."""
        if source is not self._source:
            self._clear()
            self._source = source
            self.look()

    def want(self, wanted: bool) -> None:
        """Draw an outline, or none."""
        if wanted != self._wanted:
            self._wanted = wanted
            self.look()

    def look(self) -> None:
        """Something may have moved: draw again once nothing moves, if so."""
        key = self._source.outline_key() if self._wanted and self._source is not None else None
        if key is None:
            self._clear()
        elif key != self._due:
            self._due = key
            self._jobs.drop(KIND)
            self._rest.start()

    def close(self) -> None:
        """Let go of the viewer, and take the layer away."""
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._clear()
        self._source = None

    def _on_removed(self, event: Any) -> None:
        if event.value is self._layer:
            self._layer, self._wanted = None, False
            self._clear()
            self.dismissed.emit()

    def _ask(self) -> None:
        source = self._source
        if source is None:
            return
        key, job = source.outline_key(), source.outline_job()
        if key is not None and job is not None:
            self._jobs.ask(KIND, job, lambda found: self._show(key, found))

    def _show(self, key: object, found: tuple[Any, dict[str, Any], dict[str, Any]]) -> None:
        source = self._source
        if not self._wanted or source is None or source.outline_key() != key:
            return
        data, place, look = found
        if self._layer is not None and self._layer.ndim != len(data.shape):
            self._remove()
        if self._layer is None:
            layers = self._viewer.layers
            active = layers.selection.active
            self._layer = self._viewer.add_image(data, rgb=False, **place, **look)
            self._layer.editable = False
            if active is not None:
                layers.selection.active = active
            return
        self._layer.data = data
        for name, value in place.items():
            setattr(self._layer, name, value)

    def _clear(self) -> None:
        self._rest.stop()
        self._jobs.drop(KIND)
        self._due = None
        self._remove()

    def _remove(self) -> None:
        layer, self._layer = self._layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
