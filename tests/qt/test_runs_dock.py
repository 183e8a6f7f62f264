"""The Runs dock in a real viewer, with made runs, held ones and real trainers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import held_run
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QMimeData, QObject, QPoint, QPointF, Qt, QUrl, Slot
from qtpy.QtGui import QDesktopServices, QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QLabel, QPushButton, QTextBrowser, QTreeWidget, QWidget
from runs import MadeRun, watched_item

from engine.record import RunReader
from napari_smm import launch
from napari_smm.qt.runs_dock import RunsDock
from napari_smm.reattach import newest_living
from napari_smm.run_list import COLUMNS

PATIENCE = 20_000
"""Milliseconds that a look at the runs may take on a busy machine."""
TRAINER = 90_000
"""Milliseconds that a trainer may take to start or to give up."""


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def dock(viewer: Any) -> Iterator[RunsDock]:
    made = RunsDock(viewer)
    viewer.window.add_dock_widget(made, name="Runs")
    yield made
    made.shut()


@pytest.fixture
def held(home: Path) -> Iterator[Callable[..., tuple[Path, "subprocess.Popen[str]"]]]:
    """Starts processes that hold a made run each; kills them at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str = "held", linger: float = 0.0) -> tuple[Path, "subprocess.Popen[str]"]:
        root = home / "runs" / name
        command = [sys.executable, held_run.__file__, str(root), "2", str(linger)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return root, process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def made(root: Path, how: str = "finished", epochs: int = 2) -> Path:
    """A run of `epochs` epochs of 4 that ended somehow."""
    run = MadeRun(root, [watched_item("a")], epochs=4).train(epochs)
    if how == "crashed":
        run.crash()
    elif how == "failed":
        run.end(how, message="the loss is nan.", traceback="")
    else:
        run.end(how, reason="stop file")
    return root


def child(dock: QWidget, kind: type, name: str) -> Any:
    found = dock.findChild(kind, name)
    assert found is not None, name
    return found


def table(dock: RunsDock) -> dict[str, tuple[str, ...]]:
    """The list as it stands: run → its other columns."""
    tree = child(dock, QTreeWidget, "runs-list")
    items = [tree.topLevelItem(number) for number in range(tree.topLevelItemCount())]
    return {item.text(0): tuple(item.text(column) for column in range(1, len(COLUMNS))) for item in items}


def wait_for(qtbot: QtBot, wanted: Callable[[], object], timeout: int = PATIENCE) -> None:
    def holds() -> None:
        assert wanted()

    qtbot.waitUntil(holds, timeout=timeout)


def wait_for_runs(qtbot: QtBot, dock: RunsDock, count: int) -> None:
    wait_for(qtbot, lambda: len(table(dock)) == count)


def select(qtbot: QtBot, dock: RunsDock, name: str) -> None:
    """Click a run, and wait for what is said of it."""
    tree = child(dock, QTreeWidget, "runs-list")
    (item,) = [
        tree.topLevelItem(number)
        for number in range(tree.topLevelItemCount())
        if tree.topLevelItem(number).text(0).removeprefix("● ") == name
    ]
    tree.scrollToItem(item)
    place = tree.visualItemRect(item).center()
    qtbot.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert tree.selectedItems() == [item]

    def told() -> bool:
        details = dock.listing.details
        return details is not None and details.path.name == name

    wait_for(qtbot, told)


def status(dock: RunsDock, name: str) -> str:
    return next(texts[0] for run, texts in table(dock).items() if run.removeprefix("● ") == name)


def press(qtbot: QtBot, dock: RunsDock, name: str) -> None:
    button = child(dock, QPushButton, name)
    assert button.isEnabled(), name
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def enabled(dock: RunsDock) -> set[str]:
    """Buttons for the selected run that do something now."""
    names = ("watch", "stop", "resume", "open", "forget")
    return {name for name in names if child(dock, QPushButton, f"runs-{name}").isEnabled()}


def told(dock: RunsDock) -> str:
    return str(child(dock, QTextBrowser, "runs-details").toPlainText())


def error(dock: RunsDock) -> str:
    label = child(dock, QLabel, "runs-error")
    return str(label.text()) if label.isVisible() else ""


def test_an_empty_list_says_how_to_begin(qtbot: QtBot, dock: RunsDock, home: Path) -> None:
    label = child(dock, QLabel, "runs-empty")
    wait_for(qtbot, lambda: label.text().startswith("No runs yet in "))
    assert label.isVisible()
    assert str(home / "runs") in label.text()
    assert "press Train" in label.text()
    assert enabled(dock) == set()
    made(home / "runs" / "first")
    wait_for_runs(qtbot, dock, 1)
    assert child(dock, QTreeWidget, "runs-list").isVisible()
    assert not label.isVisible()


def test_every_status_has_its_word_and_its_buttons(
    qtbot: QtBot, dock: RunsDock, home: Path, held: Callable[..., Any]
) -> None:
    runs = home / "runs"
    for how in ("finished", "stopped", "failed", "crashed"):
        made(runs / how, how)
    (runs / "waiting").mkdir()
    (runs / "waiting" / "config.toml").write_text('[data]\nroot = "/d/eyes"\n[modulation]\nname = "smm_v2"\n')
    (runs / "waiting" / "log.txt").touch()
    (made(runs / "broken") / "run.json").write_text("{")
    held("running")
    wait_for_runs(qtbot, dock, 7)
    assert {run: texts[:2] for run, texts in table(dock).items()} == {
        "finished": ("✔ Finished", "2 / 4"),
        "stopped": ("■ Stopped", "2 / 4"),
        "failed": ("✖ Failed", "2 / 4"),
        "crashed": ("⚠ Crashed", "2 / 4"),
        "waiting": ("◌ Waiting", ""),
        "running": ("▶ Running", "2 / 4"),
        "broken": ("? Unreadable", ""),
    }
    assert table(dock)["waiting"][2:4] == ("eyes", "smm_v2")
    # Newest first; what cannot be read has no date.
    assert list(table(dock))[-1] == "broken"
    assert list(table(dock)).index("crashed") < list(table(dock)).index("finished")
    buttons = {
        "finished": {"watch", "open"},
        "stopped": {"watch", "open", "resume"},
        "failed": {"watch", "open", "resume"},
        "crashed": {"watch", "open", "resume"},
        "waiting": {"watch", "open"},
        "running": {"watch", "open", "stop"},
        "broken": {"open"},
    }
    for name, expected in buttons.items():
        select(qtbot, dock, name)
        assert enabled(dock) == expected, name
        assert str(runs / name) in told(dock)
    assert "run.json cannot be read" in told(dock)
    select(qtbot, dock, "failed")
    assert "the loss is nan." in told(dock)
    assert "best Dice 0.500 (epoch 1)" in told(dock)


@pytest.mark.both_bindings
@pytest.mark.parametrize("how", ["button", "double click", "enter"])
def test_watching_brings_the_past_epochs_and_marks_the_row(
    qtbot: QtBot, dock: RunsDock, viewer: Any, home: Path, how: str
) -> None:
    made(home / "runs" / "one")
    other = made(home / "runs" / "other")
    wait_for_runs(qtbot, dock, 2)
    select(qtbot, dock, "other")
    tree = child(dock, QTreeWidget, "runs-list")
    if how == "button":
        press(qtbot, dock, "runs-watch")
    elif how == "enter":
        qtbot.keyClick(tree, Qt.Key.Key_Return)
    else:
        place = tree.visualItemRect(tree.selectedItems()[0]).center()
        qtbot.mouseDClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert dock.session.root == other
    wait_for(qtbot, lambda: "probability" in viewer.layers and not dock.workbench.sync.busy)
    assert len(viewer.layers["probability"].data) == 2
    wait_for(qtbot, lambda: "● other" in table(dock))
    assert "one" in table(dock)
    assert [tree.topLevelItem(number).font(0).bold() for number in range(2)] == [
        name == "● other" for name in table(dock)
    ]
    assert "watch" not in enabled(dock)


def test_stopping_is_told_as_it_goes(
    qtbot: QtBot, dock: RunsDock, home: Path, held: Callable[..., Any]
) -> None:
    root, process = held(linger=3.0)
    wait_for_runs(qtbot, dock, 1)
    assert status(dock, "held") == "▶ Running"
    select(qtbot, dock, "held")
    press(qtbot, dock, "runs-stop")
    wait_for(qtbot, lambda: status(dock, "held") == "◑ Stopping…")
    assert process.poll() is None
    assert "stop" not in enabled(dock)
    assert process.wait(30) == 0
    wait_for(qtbot, lambda: status(dock, "held") == "■ Stopped")
    assert "resume" in enabled(dock)
    assert RunReader(root).status() == "stopped"


def test_a_killed_trainer_is_seen_with_its_last_words(
    qtbot: QtBot, dock: RunsDock, held: Callable[..., Any]
) -> None:
    _, process = held()
    wait_for_runs(qtbot, dock, 1)
    select(qtbot, dock, "held")
    os.kill(process.pid, signal.SIGKILL)
    wait_for(qtbot, lambda: status(dock, "held") == "⚠ Crashed")
    wait_for(qtbot, lambda: "epoch 1\nepoch 2" in told(dock))
    assert "without a word" in told(dock)
    assert enabled(dock) == {"watch", "open", "resume"}


@pytest.mark.usefixtures("quick")
def test_a_stopped_run_goes_on_and_is_watched(
    qtbot: QtBot, dock: RunsDock, home: Path, demo_run: Path
) -> None:
    root = home / "runs" / "again"
    shutil.copytree(demo_run, root)
    cut_after(root, 3)
    wait_for_runs(qtbot, dock, 1)
    assert status(dock, "again") == "■ Stopped"
    select(qtbot, dock, "again")
    press(qtbot, dock, "runs-resume")
    wait_for(qtbot, lambda: dock.session.root == root, TRAINER)
    assert root in dock.session.processes
    assert "resume" not in enabled(dock)
    wait_for(qtbot, lambda: status(dock, "again") in ("▶ Running", "✔ Finished"), TRAINER)
    wait_for(qtbot, lambda: status(dock, "again") == "✔ Finished", TRAINER)
    assert [event["epoch"] for event in RunReader(root).epochs()] == [1, 2, 3, 4, 5, 6]
    wait_for(qtbot, lambda: dock.session.processes[root].poll() == 0)


def cut_after(root: Path, epoch: int) -> None:
    """Make a finished run one that was stopped after an epoch; it has to be trained from the beginning."""
    lines = [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]
    kept = [e for e in lines if e["event"] in ("started", "warning") or e.get("epoch", epoch + 1) <= epoch]
    kept.append({"event": "stopped", "time": lines[-1]["time"], "epoch": epoch, "reason": "stop file"})
    (root / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    shutil.rmtree(root / "checkpoints")


@pytest.mark.usefixtures("quick")
def test_a_run_that_cannot_be_resumed_says_why(qtbot: QtBot, dock: RunsDock, home: Path) -> None:
    made(home / "runs" / "odd", "crashed")
    wait_for_runs(qtbot, dock, 1)
    select(qtbot, dock, "odd")
    press(qtbot, dock, "runs-resume")
    wait_for(qtbot, lambda: status(dock, "odd") == "◌ Waiting", TRAINER)
    wait_for(qtbot, lambda: status(dock, "odd") == "✖ Failed", TRAINER)
    log = launch.log_tail(home / "runs" / "odd")
    wait_for(qtbot, lambda: log[-1].removeprefix("error: ") in " ".join(told(dock).split()))


@pytest.mark.both_bindings
def test_a_folder_is_added_and_forgotten_and_stays_on_disk(
    qtbot: QtBot, dock: RunsDock, tmp_path: Path
) -> None:
    run = made(tmp_path / "server" / "eyes" / "far")
    wait_for(qtbot, lambda: dock.listing.looked_in)
    dock.add(tmp_path / "server")
    wait_for_runs(qtbot, dock, 1)
    assert launch.remembered() == [tmp_path / "server"]
    select(qtbot, dock, "far")
    forget = child(dock, QPushButton, "runs-forget")
    assert str(tmp_path / "server") in forget.toolTip()
    press(qtbot, dock, "runs-forget")
    wait_for_runs(qtbot, dock, 0)
    assert launch.remembered() == []
    assert RunReader(run).status() == "finished"
    assert enabled(dock) == set()


def test_a_folder_without_runs_is_listed_so_that_it_can_be_forgotten(
    qtbot: QtBot, dock: RunsDock, tmp_path: Path
) -> None:
    (tmp_path / "server").mkdir()
    dock.add(tmp_path / "server")
    wait_for_runs(qtbot, dock, 1)
    assert status(dock, "server") == "– No runs"
    assert child(dock, QLabel, "runs-count").text() == ""
    select(qtbot, dock, "server")
    assert enabled(dock) == {"open", "forget"}
    shutil.rmtree(tmp_path / "server")
    wait_for(qtbot, lambda: status(dock, "server") == "? Unreadable")
    press(qtbot, dock, "runs-forget")
    wait_for_runs(qtbot, dock, 0)


def test_a_folder_that_is_not_there_is_refused_in_a_sentence(
    qtbot: QtBot, dock: RunsDock, tmp_path: Path
) -> None:
    dock.add(tmp_path / "nowhere")
    wait_for(qtbot, lambda: error(dock) == f"⚠ there is no folder {tmp_path / 'nowhere'}.")
    dock.add(tmp_path)
    wait_for(qtbot, lambda: error(dock) == "")


def test_a_run_that_vanishes_while_it_is_shown(qtbot: QtBot, dock: RunsDock, home: Path) -> None:
    gone = made(home / "runs" / "gone")
    made(home / "runs" / "stays")
    wait_for_runs(qtbot, dock, 2)
    select(qtbot, dock, "gone")
    shutil.rmtree(gone)
    press(qtbot, dock, "runs-watch")
    assert error(dock) == f"⚠ there is no run directory {gone}."
    wait_for_runs(qtbot, dock, 1)
    assert dock.selected() is None
    assert told(dock) == ""
    assert enabled(dock) == set()
    assert dock.session.root is None


def test_broken_memory_of_folders_is_said(qtbot: QtBot, dock: RunsDock, home: Path) -> None:
    made(home / "runs" / "one")
    (home / "remembered.json").write_text("{")
    wait_for(qtbot, lambda: "remembered.json cannot be read" in error(dock))
    assert list(table(dock)) == ["one"]
    (home / "remembered.json").unlink()
    wait_for(qtbot, lambda: error(dock) == "")


def test_selection_and_scrolling_stay_when_runs_come(qtbot: QtBot, dock: RunsDock, home: Path) -> None:
    for number in range(60):
        bare(home / "runs" / f"{number:02d}", number)
    wait_for_runs(qtbot, dock, 60)
    assert next(iter(table(dock))) == "59"
    tree = child(dock, QTreeWidget, "runs-list")
    select(qtbot, dock, "20")
    at_top = tree.itemAt(1, 1).text(0)
    assert at_top != "59"
    selected = tree.selectedItems()[0]
    bare(home / "runs" / "newest", 70)
    bare(home / "runs" / "newer", 65)
    wait_for_runs(qtbot, dock, 62)
    assert list(table(dock))[:3] == ["newest", "newer", "59"]
    assert tree.selectedItems() == [selected]
    assert selected.text(0) == "20"
    assert tree.itemAt(1, 1).text(0) == at_top
    # Whoever is at the top sees what comes.
    tree.scrollToTop()
    bare(home / "runs" / "last", 80)
    wait_for_runs(qtbot, dock, 63)
    assert tree.itemAt(1, 1).text(0) == "last"
    assert tree.selectedItems() == [selected]


def bare(root: Path, minute: int) -> None:
    """The least that is a run: it began so many minutes after some hour, and finished."""
    root.mkdir(parents=True)
    stamp = f"2026-05-01T{10 + minute // 60}:{minute % 60:02d}:00.000+00:00"
    events = [{"event": "started", "epochs": 3}, {"event": "finished", "epoch": 3, "reason": "epochs"}]
    text = "".join(json.dumps({**event, "time": stamp}) + "\n" for event in events)
    (root / "run.json").write_text('{"format": 1}')
    (root / "events.jsonl").write_text(text)


def test_a_long_list_does_not_hold_the_window(qtbot: QtBot, dock: RunsDock, home: Path) -> None:
    for number in range(400):
        bare(home / "runs" / f"{number:03d}", number)
    wait_for(qtbot, lambda: len(dock.listing.rows) == 400)
    worst = 0.0
    for round_ in range(2):
        bare(home / "runs" / f"new {round_}", 500 + round_)
        wait_for(qtbot, lambda count=401 + round_: len(dock.listing.rows) == count)
        began = time.thread_time()
        dock._show()
        worst = max(worst, time.thread_time() - began)
    assert worst < 0.05


def test_nobody_looks_for_runs_while_the_dock_is_hidden(qtbot: QtBot, dock: RunsDock, home: Path) -> None:
    wait_for(qtbot, lambda: dock.listing.looked_in)
    dock.hide()
    before = dock.listing
    made(home / "runs" / "one")
    qtbot.wait(2500)
    assert dock.listing is before
    assert not dock._clock.isActive()
    dock.show()
    wait_for_runs(qtbot, dock, 1)


def drop(folder: Path, widget: QWidget) -> bool:
    """Drag a folder onto a widget and let go. Returns whether it was taken."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(folder))])
    held = (Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(widget, QDragEnterEvent(QPoint(5, 5), *held))
    let_go = QDropEvent(QPointF(5, 5), *held)
    QApplication.sendEvent(widget, let_go)
    return bool(let_go.isAccepted())


@pytest.mark.both_bindings
def test_a_run_that_is_dropped_is_watched_and_a_folder_of_runs_listed(
    qtbot: QtBot, dock: RunsDock, viewer: Any, tmp_path: Path
) -> None:
    one, other = made(tmp_path / "server" / "one"), made(tmp_path / "other")
    assert drop(tmp_path / "server", dock)
    wait_for_runs(qtbot, dock, 1)
    assert launch.remembered() == [tmp_path / "server"]
    assert drop(one, child(dock, QTreeWidget, "runs-list").viewport())
    assert dock.session.root == one
    assert drop(other, child(dock, QTextBrowser, "runs-details").viewport())
    assert dock.session.root == other
    # On the canvas, where napari would else ask which reader is to open the folder.
    assert drop(one, viewer.window._qt_viewer)
    assert dock.session.root == one


def test_other_things_that_are_dropped_on_the_canvas_are_napari_s(
    qtbot: QtBot, dock: RunsDock, viewer: Any, tmp_path: Path
) -> None:
    opened: list[list[str]] = []
    canvas = viewer.window._qt_viewer
    canvas._qt_open = lambda paths, **_: opened.append(paths)
    drop(tmp_path, canvas)
    assert opened == [[str(tmp_path)]]
    run = made(tmp_path / "run")
    dock.shut()
    drop(run, canvas)
    assert opened == [[str(tmp_path)], [str(run)]]
    assert not drop(run / "run.json", dock)


class FileManager(QObject):
    """Stands where the system's file manager would."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    @Slot(QUrl)
    def open(self, url: QUrl) -> None:
        self.opened.append(url.toLocalFile())


def test_the_folder_is_opened_in_the_system_s_file_manager(qtbot: QtBot, dock: RunsDock, home: Path) -> None:
    run = made(home / "runs" / "one two #3")
    wait_for_runs(qtbot, dock, 1)
    select(qtbot, dock, run.name)
    manager = FileManager()
    QDesktopServices.setUrlHandler("file", manager, "open")
    try:
        press(qtbot, dock, "runs-open")
    finally:
        QDesktopServices.unsetUrlHandler("file")
    assert manager.opened == [str(run)]


@pytest.mark.both_bindings
def test_the_dock_is_small_enough_and_lets_go_of_everything(
    qtbot: QtBot, dock: RunsDock, viewer: Any, home: Path
) -> None:
    made(home / "runs" / "a run with quite a long name that nobody would want to read in full")
    wait_for_runs(qtbot, dock, 1)
    dock._say("a sentence that is longer than the dock is wide, and so is broken into two or three lines.")
    least = dock.minimumSizeHint()
    assert least.width() <= 390
    assert least.height() <= 640
    tree = child(dock, QTreeWidget, "runs-list")
    for width in (330, 390, 600):
        dock.resize(width, 640)
        ends = [tree.columnViewportPosition(c) + tree.columnWidth(c) for c in range(len(COLUMNS))]
        # No column is cut at the right end.
        assert tree.viewport().width() in ends
    session = dock.session
    dock.shut()
    assert len(session.watched) == 0
    assert len(session.failed) == 0
    assert not dock._clock.isActive()
    dock.shut()


@pytest.mark.both_bindings
def test_a_run_goes_on_without_the_dock_and_is_found_again(
    qtbot: QtBot, viewer: Any, home: Path, held: Callable[..., Any]
) -> None:
    first = RunsDock(viewer)
    frame = viewer.window.add_dock_widget(first, name="Runs")
    root, process = held()
    wait_for_runs(qtbot, first, 1)
    select(qtbot, first, "held")
    press(qtbot, first, "runs-watch")
    viewer.window.remove_dock_widget(frame)
    assert first.session.root is None
    assert process.poll() is None
    assert newest_living([home / "runs"]) == root
    second = RunsDock(viewer)
    viewer.window.add_dock_widget(second, name="Runs")
    wait_for_runs(qtbot, second, 1)
    assert status(second, "held") == "▶ Running"
    second.shut()
