"""The command napari-smm with its window."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari._app_model import get_app_model
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt

from engine.data.annotated import AnnotationClass, write_classes
from napari_smm import app


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    made = make_napari_viewer(show=True)
    app.open_docks(made)
    return made


def docks(viewer: Any) -> dict[str, Any]:
    """The plugin's dock widgets by their titles."""
    return {name: dock for name, dock in viewer.window._wrapped_dock_widgets.items() if "napari-smm" in name}


@pytest.mark.both_bindings
def test_the_docks_stand_at_the_right_one_behind_the_other(viewer: Any, qtbot: QtBot) -> None:
    opened = docks(viewer)
    assert list(opened) == [f"{name} (napari-smm)" for name in ("Train", "Annotate", "Threshold", "Runs")]
    window = viewer.window._qt_window
    for dock in opened.values():
        assert window.dockWidgetArea(dock) == Qt.DockWidgetArea.RightDockWidgetArea
    first = opened["Train (napari-smm)"]
    assert set(window.tabifiedDockWidgets(first)) == set(opened.values()) - {first}
    qtbot.waitUntil(lambda: not first.visibleRegion().isEmpty())


@pytest.mark.both_bindings
def test_the_menu_shows_and_hides_the_same_docks(viewer: Any) -> None:
    first = docks(viewer)["Train (napari-smm)"]
    get_app_model().commands.execute_command("napari-smm.train").result()
    assert first.isHidden()
    get_app_model().commands.execute_command("napari-smm.train").result()
    assert not first.isHidden()
    assert len(docks(viewer)) == 4


def test_runs_are_watched_and_images_opened(
    viewer: Any, qtbot: QtBot, demo_run: Path, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "cells.tif", np.arange(64, dtype=np.uint8).reshape(8, 8))
    (tmp_path / "mine").mkdir()
    tifffile.imwrite(tmp_path / "mine" / "nuclei.tif", np.zeros((8, 8), np.uint8))
    write_classes(tmp_path / "mine", [AnnotationClass("nucleus", 1, "#e69f00")])
    app.open_paths(viewer, [tmp_path / "cells.tif", demo_run, tmp_path / "mine"])
    assert "cells" in viewer.layers
    qtbot.waitUntil(lambda: "annotation · nuclei" in viewer.layers, timeout=20_000)
    qtbot.waitUntil(
        lambda: any(layer.name.startswith("modulated mask") for layer in viewer.layers), timeout=20_000
    )


def test_what_cannot_be_opened_is_said_in_the_window(viewer: Any, tmp_path: Path) -> None:
    from napari.utils.notifications import notification_manager

    (tmp_path / "cells.strange").write_bytes(b"no image")
    before = len(notification_manager.records)
    app.open_paths(viewer, [tmp_path / "cells.strange"])
    (said,) = notification_manager.records[before:]
    assert "cells.strange" in said.message


@pytest.mark.both_bindings
def test_the_command_opens_a_window_and_ends_with_it(demo_run: Path, tmp_path: Path) -> None:
    code = """
import sys
import napari
from napari.qt import get_qapp
from qtpy.QtCore import QTimer
from engine.data.annotated import AnnotationClass, write_classes
from napari_smm import app

def look():
    viewer = napari.current_viewer()
    if any(layer.name.startswith("prediction") for layer in viewer.layers):
        timer.stop()
        print(sorted(viewer.window._wrapped_dock_widgets), "torch" in sys.modules)
        viewer.close()

get_qapp()
timer = QTimer()
timer.timeout.connect(look)
timer.start(100)
sys.exit(app.main(sys.argv[1:]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(demo_run)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    docks = [f"{name} (napari-smm)" for name in sorted(app.DOCKS)]
    assert done.stdout.splitlines()[-1] == f"{docks} False"  # napari says before that PyQt5 goes
