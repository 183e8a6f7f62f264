"""Run directories that are opened in a real viewer, with a workbench and without one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import npe2
import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from runs import MadeRun, watched_item

from engine.errors import InputError
from napari_smm.layers import MARK, contrast_band
from napari_smm.qt.workbench import Workbench, workbench

PLUGIN = "napari-smm"
PATIENCE = 60_000
"""Milliseconds that a busy machine may take for what is done in threads."""


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    made = make_napari_viewer(show=True)
    assert PLUGIN in npe2.PluginManager.instance(), "the plugin is not installed: make install"
    return made


@pytest.fixture
def run(tmp_path: Path) -> Iterator[MadeRun]:
    made = MadeRun(tmp_path / "run", [watched_item("a"), watched_item("b", "val")], epochs=6).train(2)
    yield made
    made.writer.release()


@pytest.fixture
def bench(viewer: Any) -> Iterator[Workbench]:
    made = workbench(viewer)
    yield made
    made.close()


def arrived(qtbot: QtBot, bench: Workbench, epochs: int) -> None:
    def there() -> None:
        assert bench.session.snapshot is not None
        assert bench.session.snapshot.run.epochs == epochs
        assert not bench.sync.busy
        assert len(bench.sync.layer("probability").data) == epochs

    qtbot.waitUntil(there, timeout=PATIENCE)


def test_without_a_workbench_the_layers_stand_as_they_are(viewer: Any, run: MadeRun) -> None:
    added = viewer.open(run.root, plugin=PLUGIN)
    assert added[0].name == "image"
    assert len(added) == len(viewer.layers) == 8
    np.testing.assert_array_equal(
        np.asarray(viewer.layers["probability"].data), run.probability[0][:2, 0].astype(np.float32)
    )
    viewer.dims.set_point(0, 1)
    assert viewer.layers["probability"]._data_view is not None


def test_a_workbench_that_opens_later_takes_the_layers_over(qtbot: QtBot, viewer: Any, run: MadeRun) -> None:
    opened = viewer.open(run.root, plugin=PLUGIN)
    bench = workbench(viewer)
    bench.session.watch(run.root)
    arrived(qtbot, bench, 2)
    run.epoch(3)
    arrived(qtbot, bench, 3)
    assert list(viewer.layers) == opened
    bench.session.set_threshold(0.25)
    assert tuple(viewer.layers["prediction"].contrast_limits) == contrast_band(0.25)
    bench.close()


def test_an_open_workbench_watches_the_run_that_is_opened(
    qtbot: QtBot, viewer: Any, bench: Workbench, run: MadeRun
) -> None:
    assert viewer.open(run.root, plugin=PLUGIN) == []
    assert bench.session.root == run.root
    arrived(qtbot, bench, 2)
    run.epoch(3)
    arrived(qtbot, bench, 3)
    assert len(viewer.layers) == 8
    assert all(layer.metadata[MARK]["run"] == str(run.root) for layer in viewer.layers)


def test_a_run_that_waits_appears_once_it_has_begun(
    qtbot: QtBot, viewer: Any, bench: Workbench, tmp_path: Path
) -> None:
    run = MadeRun(tmp_path / "run", [watched_item("a")], epochs=6)
    events = (run.root / "events.jsonl").read_text()
    (run.root / "events.jsonl").write_text("")
    viewer.open(run.root, plugin=PLUGIN)
    (run.root / "events.jsonl").write_text(events)
    run.epoch(1)
    arrived(qtbot, bench, 1)
    run.writer.release()


def test_a_run_of_another_format_is_refused_in_a_sentence(
    viewer: Any, bench: Workbench, run: MadeRun
) -> None:
    (run.root / "run.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="has format 99, and this version reads format 1"):
        viewer.open(run.root, plugin=PLUGIN)
    assert bench.session.root is None
    assert len(viewer.layers) == 0
