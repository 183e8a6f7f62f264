"""A combo box of the viewer's layers of one kind, kept in step with the layer list."""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QSizePolicy, QWidget


class LayerCombo(QComboBox):
    """Offers those layers of a viewer that a test lets through.

    Call :meth:`leave` when the owner closes, so that the viewer forgets it.
    """

    chosen = Signal(object)
    """The chosen layer, or None, when it changes."""

    def __init__(
        self,
        viewer: Any,
        wanted: Callable[[Any], bool],
        empty: str,
        parent: QWidget | None = None,
        *,
        none: bool = False,
    ) -> None:
        """Follow a viewer's layers.

        Args:
            viewer: napari's viewer.
            wanted: says whether a layer is offered.
            empty: what is said where there is none.
            parent: the owner.
            none: whether no layer can be chosen as well; `empty` is then the first entry.
        """
        super().__init__(parent)
        self._viewer = viewer
        self._wanted = wanted
        self._empty = empty
        self._none = none
        self._layers: list[Any] = []
        self._last: Any = None
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        events = viewer.layers.events
        events.inserted.connect(self._fill)
        events.removed.connect(self._fill)
        events.reordered.connect(self._fill)
        for layer in viewer.layers:
            layer.events.name.connect(self._fill)
        self._fill()
        self.currentIndexChanged.connect(self._notice)

    def layer(self) -> Any | None:
        """The chosen layer."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def choose(self, layer: Any) -> None:
        """Choose a layer, or none, if it is offered."""
        for index, offered in enumerate(self._layers):
            if offered is layer:
                self.setCurrentIndex(index)

    def refill(self) -> None:
        """Offer what the test lets through now."""
        self._fill()

    def say_empty(self, text: str) -> None:
        """Say something else where there is no layer."""
        self._empty = text
        if self._none or not self._layers:
            self.setItemText(0, text)

    def leave(self) -> None:
        """Let go of the viewer."""
        events = self._viewer.layers.events
        events.inserted.disconnect(self._fill)
        events.removed.disconnect(self._fill)
        events.reordered.disconnect(self._fill)
        for layer in self._viewer.layers:
            layer.events.name.disconnect(self._fill)
        self._layers, self._last = [], None

    def _fill(self, event: Any = None) -> None:
        if event is not None and event.type == "inserted":
            event.value.events.name.connect(self._fill)
        elif event is not None and event.type == "removed":
            event.value.events.name.disconnect(self._fill)
        kept = self.layer() if self._none else self.layer() or self._last
        # The topmost layer first, as in napari's own list.
        found = [layer for layer in reversed(self._viewer.layers) if self._wanted(layer)]
        self._layers = [None, *found] if self._none else found
        names = [layer.name for layer in found]
        self.blockSignals(True)
        self.clear()
        self.addItems([self._empty, *names] if self._none or not names else names)
        self.setEnabled(bool(names) or self._none)
        self.blockSignals(False)
        self.setCurrentIndex(0)
        self.choose(kept)
        self._notice()

    def _notice(self, index: int = 0) -> None:
        layer = self.layer()
        if layer is not self._last:
            self._last = layer
            self.chosen.emit(layer)
