"""The guard of these tests sees what it is there for."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import leaks
import pytest
from qtpy.QtCore import QObject, QThread, QTimer
from qtpy.QtWidgets import QApplication, QWidget

from napari_smm.qt.section import Section


@contextmanager
def window() -> Iterator[None]:
    made = QWidget()
    yield
    made.deleteLater()


@contextmanager
def dock_part() -> Iterator[None]:
    made = Section("A section")
    yield
    made.deleteLater()


@contextmanager
def timer() -> Iterator[None]:
    made = QTimer(QApplication.instance())
    made.start(60_000)
    yield
    made.stop()
    made.deleteLater()


@contextmanager
def thread() -> Iterator[None]:
    told = threading.Event()
    made = threading.Thread(target=told.wait)
    made.start()
    yield
    told.set()
    made.join()


@contextmanager
def qthread() -> Iterator[None]:
    made = QThread(QApplication.instance())
    made.start()
    yield
    made.quit()
    assert made.wait(5000)
    made.deleteLater()


@contextmanager
def process() -> Iterator[None]:
    made = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield
    made.communicate(b"\n")


@pytest.mark.both_bindings
@pytest.mark.parametrize(
    ("leak", "kind"),
    [
        (window, "windows"), (dock_part, "ours"), (timer, "timers"), (thread, "threads"),
        (qthread, "threads"), (process, "processes"),
    ],
)  # fmt: skip
def test_what_is_left_is_seen(
    leak: Callable[[], Any], kind: str, left_before: list[leaks.Census], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "PATIENCE", 0)
    before = leaks.census()
    with leak():
        assert kind in leaks.leaks_since(before)
    assert leaks.leaks_since(before) == {}


def test_what_ends_late_is_no_leak(left_before: list[leaks.Census]) -> None:
    before = leaks.census()
    threading.Timer(0.3, lambda: None).start()
    parent = QObject()
    QTimer(parent).start(60_000)
    del parent
    assert leaks.leaks_since(before) == {}


def test_a_process_that_was_left_is_ended(left_before: list[leaks.Census]) -> None:
    before = leaks.census()
    made = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    leaks.end_processes(before)
    made.communicate()
    assert made.returncode < 0
