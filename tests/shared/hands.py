"""What a user does with a panel, for the tests of the window: find, press, read."""

from typing import Any

from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QLabel, QWidget


def child(panel: QWidget, kind: type, name: str) -> Any:
    """The widget of a kind and an object name, which must be there."""
    found = panel.findChild(kind, name)
    assert found is not None, name
    return found


def press(qtbot: QtBot, panel: QWidget, name: str) -> None:
    """Click on a button, which must be enabled."""
    button = child(panel, QAbstractButton, name)
    assert button.isEnabled(), name
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def said(panel: QWidget, name: str) -> str:
    """What a label says, as long as it can be seen."""
    label = child(panel, QLabel, name)
    return str(label.text()) if label.isVisible() else ""
