"""Strokes on napari's canvas, as the mouse makes them."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

APART = 0.02
"""Seconds between two moves: vispy leaves out what comes faster, and napari waits with what comes fast."""
Point = tuple[float, float]
"""Row and column of what is seen of a layer."""


def place(viewer: Any, layer: Any, point: Point) -> QPointF:
    """Where the middle of a pixel of the plane in view is on the canvas."""
    canvas = viewer.window._qt_viewer.canvas
    node = canvas.layer_to_visual[layer].node
    row, column = point
    found = node.get_transform(map_from="visual", map_to="canvas").map((column + 0.5, row + 0.5))
    x, y = np.asarray(found)[:2] / np.asarray(found)[3]
    return QPointF(float(x), float(y))


def send(viewer: Any, kind: QEvent.Type, where: QPointF, button: Any, buttons: Any) -> None:
    """One event of the mouse."""
    native = viewer.window._qt_viewer.canvas.native
    beyond = QPointF(native.mapToGlobal(where.toPoint()))
    QApplication.sendEvent(
        native, QMouseEvent(kind, where, beyond, button, buttons, Qt.KeyboardModifier.NoModifier)
    )


def steps(viewer: Any, layer: Any, points: Sequence[Point]) -> Iterator[None]:
    """A stroke with the left button; yields before each event but the first, when time has to pass."""
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    places = [place(viewer, layer, point) for point in points]
    send(viewer, QEvent.Type.MouseMove, places[0], none, none)
    yield
    send(viewer, QEvent.Type.MouseButtonPress, places[0], left, left)
    yield
    for where in places[1:]:
        send(viewer, QEvent.Type.MouseMove, where, none, left)
        yield
    send(viewer, QEvent.Type.MouseButtonRelease, places[-1], left, none)


def stroke(viewer: Any, layer: Any, *points: Point) -> None:
    """Press, move and release the left button; a click where there is one point."""
    for _ in steps(viewer, layer, points):
        time.sleep(APART)
        QApplication.processEvents()


def double_click(viewer: Any, layer: Any, point: Point) -> None:
    """A double click with the left button, as Qt sends it."""
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    where = place(viewer, layer, point)
    send(viewer, QEvent.Type.MouseButtonDblClick, where, left, left)
    send(viewer, QEvent.Type.MouseButtonRelease, where, left, none)
