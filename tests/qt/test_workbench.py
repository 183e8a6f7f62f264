"""The workbench's end: with its last dock, with the window, and what is asked before."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QMessageBox
from runs import MadeRun, watched_item

from napari_smm.qt.dock import Dock
from napari_smm.qt.workbench import workbench

PATIENCE = 60_000
"""Milliseconds that a busy machine may take for what is done in threads."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[MadeRun]:
    made = MadeRun(tmp_path / "run", [watched_item("a")], epochs=6).train(2)
    yield made
    made.writer.release()


def watching(qtbot: QtBot, viewer: Any, run: MadeRun) -> Dock:
    dock = Dock(viewer)
    viewer.window.add_dock_widget(dock, name="dock")
    dock.session.watch(run.root)
    qtbot.waitUntil(lambda: dock.workbench.living_run() is not None, timeout=PATIENCE)
    return dock


def answer(words: str, asked: list[str]) -> None:
    """Press a button of the question, once it is there."""

    def press() -> None:
        box = QApplication.activeModalWidget()
        if isinstance(box, QMessageBox):
            asked.append(box.text())
            next(button for button in box.buttons() if button.text().replace("&", "") == words).click()
        else:
            QTimer.singleShot(20, press)

    QTimer.singleShot(20, press)


def close_by_hand(qtbot: QtBot, viewer: Any) -> None:
    """Close the window from within the event loop, as a menu or a key does."""
    QTimer.singleShot(0, viewer.window._qt_window.close)
    qtbot.wait(300)


@pytest.mark.both_bindings
def test_the_user_is_asked_before_a_window_with_a_living_run_closes(
    qtbot: QtBot, make_napari_viewer: Callable[..., Any], run: MadeRun
) -> None:
    viewer = make_napari_viewer(show=True)
    dock = watching(qtbot, viewer, run)
    asked: list[str] = []
    answer("Don't close", asked)
    close_by_hand(qtbot, viewer)
    assert asked == ["run is still training."]
    assert viewer.window._qt_window.isVisible()
    assert not dock._left
    # What the other answers do, without closing what napari's fixture closes.
    answer("Keep running", asked)
    assert dock.workbench.may_close()
    assert not (run.root / "stop").exists()
    answer("Stop the run", asked)
    assert dock.workbench.may_close()
    assert (run.root / "stop").exists()
    assert len(asked) == 3
    run.end("stopped", reason="stop file")
    qtbot.waitUntil(lambda: dock.workbench.living_run() is None, timeout=PATIENCE)
    assert dock.workbench.may_close()  # there is nothing to ask


def test_who_closes_from_a_script_is_not_asked(
    qtbot: QtBot, make_napari_viewer: Callable[..., Any], run: MadeRun
) -> None:
    viewer = make_napari_viewer(show=True)
    dock = watching(qtbot, viewer, run)
    viewer.close()
    assert dock._left
    assert not (run.root / "stop").exists()
    run.epoch(3)  # nothing hinders the trainer


@pytest.mark.both_bindings
def test_a_broken_memory_of_folders_is_said_and_not_raised(
    qtbot: QtBot, make_napari_viewer: Callable[..., Any], home: Path
) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "remembered.json").write_text("{")
    bench = workbench(make_napari_viewer())
    said: list[str] = []
    bench.session.failed.connect(said.append)
    qtbot.waitUntil(lambda: bool(said), timeout=PATIENCE)
    assert "remembered.json" in said[0]
    bench.close()
