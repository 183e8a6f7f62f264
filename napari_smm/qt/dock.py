"""What all docks have in common: they join the viewer's workbench, and part from it when they close."""

from typing import Any

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QWidget

from napari_smm.qt.workbench import Workbench, workbench

PLUGIN = "napari-smm"
"""The plugin's name in its manifest."""


def bring_dock(viewer: Any, name: str) -> Any:
    """The plugin's dock of a name, opened if it is not, and brought to the front."""
    frame, dock = viewer.window.add_plugin_dock_widget(PLUGIN, name)
    frame.show()
    frame.raise_()
    return dock


class Dock(QWidget):
    """A widget of the workbench. Subclasses build themselves, then connect to ``self.session``,
    and undo their connections in :meth:`leave`."""

    def __init__(self, napari_viewer: Any) -> None:
        """Join the workbench of a viewer."""
        super().__init__()
        self.workbench: Workbench = workbench(napari_viewer)
        self.viewer: Any = self.workbench.viewer
        self.session = self.workbench.session
        self._docked = False
        self._left = False
        self.workbench.join(self)

    def leave(self) -> None:
        """Undo what the constructor connected. Called once."""

    def may_close(self) -> bool:
        """Whether the window may close; asks the user where something would be lost."""
        return True

    def shut(self) -> None:
        """Leave the workbench for good; harmless if it was left before."""
        if not self._left:
            self._left = True
            self.leave()
            self.workbench.part(self)

    def event(self, event: QEvent | None) -> bool:
        """Notice when napari takes the widget out of its dock, or the window goes away."""
        if event is not None:
            kind = event.type()
            if kind == QEvent.Type.ParentChange:
                if self.parent() is not None:
                    self._docked = True
                elif self._docked:
                    # napari lets go of a dock's widget without deleting it.
                    self.shut()
                    self.deleteLater()
            elif kind == QEvent.Type.Show:
                window = self.window()
                if window is not None and window is not self:
                    self.workbench.guard(window)
            elif kind == QEvent.Type.DeferredDelete:
                self.shut()
        return bool(super().event(event))
