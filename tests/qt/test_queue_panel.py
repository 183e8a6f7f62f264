"""The queue of the Annotate dock: a list with reasons and places, and rankings by real processes."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hands import child, press, processes, said
from PIL import Image
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QCheckBox,
    QComboBox,
    QTreeWidget,
    QTreeWidgetItem,
)

from engine import suggestions_file
from engine.data.demo import demo_pair
from engine.suggestions_file import ImageEntry, PlaceEntry, Suggestions
from napari_smm.qt.annotate_dock import AnnotateDock

PATIENCE = 90_000
"""Milliseconds that a process may take to start on a busy machine."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_run: Path) -> Path:
    """A home of its own with a finished run in it."""
    monkeypatch.setenv("NAPARI_SMM_HOME", str(tmp_path / "home"))
    shutil.copytree(demo_run, tmp_path / "home" / "runs" / "demo")
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path, home: Path) -> Path:
    """Four images of 64 × 64 px, and an order in which to annotate three of them."""
    root = tmp_path / "images"
    root.mkdir()
    for number in range(4):
        Image.fromarray(demo_pair(100 + number, size=64)[0]).save(root / f"{number}.png")
    place = PlaceEntry(box=((8, 24), (40, 56)), score=0.7, reason="unsure here")
    images = [
        ImageEntry(image=name, rank=rank, score=1 / rank, reason=f"unsure about {rank} %", places=(place,))
        for rank, name in enumerate(("2.png", "0.png", "3.png"), start=1)
    ]
    found = Suggestions(
        run=str(home / "runs" / "demo"), checkpoint="last", epoch=6, order="uncertain",
        time=datetime.now(UTC), images=tuple(images),
    )  # fmt: skip
    suggestions_file.write(suggestions_file.path_of(root), found)
    return root


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def dock(viewer: Any, qtbot: QtBot, folder: Path) -> Iterator[AnnotateDock]:
    made = AnnotateDock(viewer)
    viewer.window.add_dock_widget(made, name="Annotate")
    made.open_folder(folder)
    qtbot.waitUntil(lambda: "annotation · 0" in viewer.layers, timeout=PATIENCE)
    made.queue.parentWidget().set_open(True)
    qtbot.waitUntil(lambda: bool(made.queue.queue) and made.queue.run.isEnabled(), timeout=PATIENCE)
    yield made
    made.shut()


def listed(dock: AnnotateDock) -> list[QTreeWidgetItem]:
    tree = child(dock, QTreeWidget, "annotate-queue")
    return [tree.topLevelItem(number) for number in range(tree.topLevelItemCount())]


def texts(dock: AnnotateDock) -> list[list[str]]:
    return [[item.text(column) for column in range(3)] for item in listed(dock)]


def shows(viewer: Any, qtbot: QtBot, name: str) -> None:
    qtbot.waitUntil(lambda: f"annotation · {name}" in viewer.layers, timeout=PATIENCE)


@pytest.mark.both_bindings
def test_the_list_and_its_places(qtbot: QtBot, dock: AnnotateDock, viewer: Any) -> None:
    assert texts(dock) == [
        ["1  2.png", "1", "unsure about 1 %"],
        ["2  0.png", "0.5", "unsure about 2 %"],
        ["3  3.png", "0.333", "unsure about 3 %"],
    ]
    assert child(dock, QComboBox, "queue-order").currentData() == "uncertain"
    assert said(dock.queue, "queue-note") == ""
    tree = child(dock, QTreeWidget, "annotate-queue")
    first, second, third = listed(dock)
    assert second.font(0).bold()
    assert not first.font(0).bold()
    # A double click goes to the image, one on a place centres it.
    spot = tree.visualItemRect(first).center()
    qtbot.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=spot)
    assert said(dock.queue, "queue-reason") == "unsure about 1 %"
    qtbot.mouseDClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=spot)
    shows(viewer, qtbot, "2")
    assert dock.annotator.current == "2.png"
    place = third.child(0)
    assert [place.text(column) for column in range(3)] == ["place 1", "0.7", "unsure here"]
    tree.itemActivated.emit(place, 0)
    shows(viewer, qtbot, "3")
    qtbot.waitUntil(lambda: dock.queue._target is None, timeout=PATIENCE)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], (15.5, 47.5))
    assert third.font(0).bold()


@pytest.mark.both_bindings
def test_the_next_image_follows_the_list(qtbot: QtBot, dock: AnnotateDock, viewer: Any, home: Path) -> None:
    press(qtbot, dock, "annotate-next")
    shows(viewer, qtbot, "1")
    child(dock, QCheckBox, "queue-follow").setChecked(True)
    press(qtbot, dock, "annotate-next")
    shows(viewer, qtbot, "2")
    dock.layer().data_setitem((np.array([3]), np.array([4])), 1)
    press(qtbot, dock, "annotate-accept")
    shows(viewer, qtbot, "0")
    # What is annotated meanwhile is marked, by a sign too, and passed over.
    assert texts(dock)[0][0] == "1  ✔ 2.png"
    assert listed(dock)[0].font(0).strikeOut()
    press(qtbot, dock, "annotate-next")
    shows(viewer, qtbot, "3")
    press(qtbot, dock, "annotate-next")
    assert dock.annotator.current == "3.png"
    press(qtbot, dock, "annotate-previous")
    shows(viewer, qtbot, "0")
    # Another run makes the order an old one.
    shutil.copytree(home / "runs" / "demo", home / "runs" / "second")
    events = home / "runs" / "second" / "events.jsonl"
    events.write_text(events.read_text("utf-8").replace('"time": "20', '"time": "21'), "utf-8")
    dock.queue.search()
    qtbot.waitUntil(lambda: bool(said(dock.queue, "queue-note")), timeout=PATIENCE)
    assert said(dock.queue, "queue-note") == "⚠ This order is by demo; second is newer."


@pytest.mark.usefixtures("quick")
def test_a_ranking_in_the_window(qtbot: QtBot, dock: AnnotateDock, viewer: Any, folder: Path) -> None:
    order = child(dock, QComboBox, "queue-order")
    order.setCurrentIndex(order.findData("random"))
    dock.layer().data_setitem((np.array([3]), np.array([4])), 1)
    dock.annotator.set_status("0.png", "done")
    press(qtbot, dock, "queue-rank")
    assert not child(dock, QAbstractButton, "queue-rank").isVisible()
    states: set[str] = set()

    def done() -> bool:
        states.add(said(dock.queue, "queue-status"))
        return not dock.queue.busy

    qtbot.waitUntil(done, timeout=PATIENCE)
    assert "Starting…" in states
    assert said(dock.queue, "queue-status") == said(dock.queue, "queue-error") == ""
    qtbot.waitUntil(lambda: dock.queue.found.order == "random", timeout=PATIENCE)
    # What was painted a moment ago was saved before.
    assert sorted(row.image for row in dock.queue.queue) == ["1.png", "2.png", "3.png"]
    assert len(listed(dock)) == 3
    assert processes("engine.suggest") == []


def test_a_ranking_cancelled_closed_and_failed(
    qtbot: QtBot, dock: AnnotateDock, viewer: Any, home: Path
) -> None:
    before = texts(dock)
    press(qtbot, dock, "queue-rank")
    qtbot.waitUntil(lambda: dock.queue.ranking is not None, timeout=PATIENCE)
    qtbot.waitUntil(lambda: child(dock, QAbstractButton, "queue-cancel").isEnabled(), timeout=PATIENCE)
    press(qtbot, dock, "queue-cancel")
    qtbot.waitUntil(lambda: not dock.queue.busy, timeout=PATIENCE)
    assert said(dock.queue, "queue-status") == "■ Cancelled"
    assert texts(dock) == before
    runs = home / "runs"
    (runs / "demo").rename(runs / "gone")
    press(qtbot, dock, "queue-rank")
    qtbot.waitUntil(lambda: not dock.queue.busy, timeout=PATIENCE)
    assert "no run directory" in said(dock.queue, "queue-error")
    (runs / "gone").rename(runs / "demo")
    press(qtbot, dock, "queue-rank")
    qtbot.waitUntil(lambda: bool(processes("engine.suggest")), timeout=PATIENCE)
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: processes("engine.suggest") == [], timeout=PATIENCE)
