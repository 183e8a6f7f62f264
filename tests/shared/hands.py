"""What a user does with a panel, for the tests of the window: find, press, read; and what goes on behind."""

from typing import Any

import psutil
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


def processes(command: str) -> list[psutil.Process]:
    """The living processes of a command, such as engine.predict, that were started from here."""

    def runs_it(child: psutil.Process) -> bool:
        try:
            return command in child.cmdline()
        except psutil.NoSuchProcess:  # it has ended, be it taken note of (gone) or not (a zombie)
            return False

    return [child for child in psutil.Process().children(recursive=True) if runs_it(child)]
