"""The outline of the live prediction, drawn anew when the hand rests."""

from concurrent.futures import Future
from typing import Any

from qtpy.QtCore import QObject, QTimer

from napari_smm.decisions import drawn
from napari_smm.feed import Snapshot
from napari_smm.layers import LayerSpec, View, mark
from napari_smm.qt.workbench import Workbench

REST_MILLISECONDS = 200
"""Stillness after which the outline is drawn."""
LOOK_MILLISECONDS = 30


class OutlineSync(QObject):
    """Keeps an `outline` layer while the view asks for one."""

    def __init__(self, bench: Workbench, parent: QObject | None = None) -> None:
        """Follow a workbench."""
        super().__init__(parent)
        self._bench = bench
        self._layer: Any = None
        self._key: object = None
        self._order: Future[LayerSpec] | None = None
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MILLISECONDS)
        self._rest.timeout.connect(self._ask)
        self._look = QTimer(self)
        self._look.setInterval(LOOK_MILLISECONDS)
        self._look.timeout.connect(self._take)
        bench.session.updated.connect(self._on_updated)
        bench.session.viewed.connect(self._on_viewed)
        bench.session.watched.connect(self._on_watched)
        bench.viewer.layers.events.removed.connect(self._on_removed)

    def close(self) -> None:
        """Let go of the workbench, and take the layer away."""
        self._rest.stop()
        self._look.stop()
        session = self._bench.session
        session.updated.disconnect(self._on_updated)
        session.viewed.disconnect(self._on_viewed)
        session.watched.disconnect(self._on_watched)
        self._bench.viewer.layers.events.removed.disconnect(self._on_removed)
        self._clear()

    def _on_updated(self, snapshot: Snapshot) -> None:
        if snapshot.view.outline and self._wanted() != self._key:
            self._rest.start()

    def _on_viewed(self, view: View) -> None:
        if not view.outline:
            self._clear()
        elif self._wanted() != self._key:
            self._rest.start()

    def _on_watched(self, root: object) -> None:
        self._clear()

    def _on_removed(self, event: Any) -> None:
        if event.value is self._layer:
            self._layer, self._key = None, None
            self._bench.session.set_view(outline=False)

    def _wanted(self) -> object:
        session = self._bench.session
        view = session.view
        return session.root, view.item, view.cls, view.threshold, session.epoch

    def _ask(self) -> None:
        snapshot, view = self._bench.session.snapshot, self._bench.session.view
        if self._order is not None or snapshot is None or not snapshot.item or not snapshot.run.epochs:
            return
        self._key = self._wanted()
        epoch = self._bench.session.epoch
        self._order = self._bench.session.run(drawn, snapshot.run, view, epoch)
        self._look.start()

    def _take(self) -> None:
        if self._order is None or not self._order.done():
            return
        order, self._order = self._order, None
        self._look.stop()
        spec = order.result()
        if not self._bench.session.view.outline:
            return
        if self._wanted() != self._key:
            self._rest.start()  # the hand has moved on
            return
        if self._layer is None:
            layers = self._bench.viewer.layers
            active = layers.selection.active
            metadata = mark(self._bench.session.root, "outline")
            self._layer = self._bench.viewer.add_image(spec.data, metadata=metadata, **spec.arguments())
            self._layer.editable = False
            if active is not None:
                layers.selection.active = active
        else:
            self._layer.data = spec.data
            for name, value in spec.place.items():
                setattr(self._layer, name, value)

    def _clear(self) -> None:
        layer, self._layer, self._key = self._layer, None, None
        if layer is not None and layer in self._bench.viewer.layers:
            self._bench.viewer.layers.remove(layer)
