"""Take the pictures of the docs from a real run.

usage: xvfb-run -a -s "-screen 0 1280x800x24" python docs/screenshots.py RUN [--out docs/images]

The pictures in the repository show a run on CHASE_DB1 (CC BY 4.0), made with

    python -m engine.train --preset smm --data.root CHASEDB1 --model.base_width=8 --training.epochs=40 \
        --data.patches_per_image=4 --optimizer.name=adam --optimizer.lr=0.003
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication, QDockWidget

from napari_smm.app import open_docks
from napari_smm.qt.workbench import Workbench, workbench


def pump(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Let the window live for a time, or until something holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        QApplication.processEvents()
        time.sleep(0.01)


def raise_dock(viewer: napari.Viewer, name: str) -> None:
    """Bring a dock to the front of its tabs."""
    for dock in viewer.window._qt_window.findChildren(QDockWidget):
        if dock.windowTitle().startswith(name) or dock.objectName().startswith(name):
            dock.raise_()
    pump(0.5)


def shoot(path: Path) -> None:
    """Save the whole screen."""
    pump(1.0)
    screen = QApplication.primaryScreen()
    assert screen is not None
    if not screen.grabWindow(0).save(str(path)):
        raise SystemExit(f"{path} could not be written")
    print(path)


def show_run(viewer: napari.Viewer, bench: Workbench, run: Path) -> None:
    """Watch the run until all is there."""
    bench.session.watch(run)
    pump(60, lambda: bench.sync.layer("recall slope") is not None and not bench.sync.busy)
    viewer.reset_view()


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_SMM_HOME"] = home
        viewer = napari.Viewer()
        viewer.window.resize(1280, 800)
        open_docks(viewer)
        bench = workbench(viewer)
        show_run(viewer, bench, options.run)
        raise_dock(viewer, "Train")
        for dock in bench._docks:
            if dock.objectName() == "train-dock":
                dock.curves.set_open(True)
        viewer.reset_view()
        shoot(options.out / "workbench-train.png")
        raise_dock(viewer, "Threshold")
        item = bench.session.snapshot.item if bench.session.snapshot else None
        if item is not None:
            height, width = item.shape[-2:]
            viewer.scene.camera.center = (0, 0.5 * height, 0.42 * width)
            viewer.scene.camera.zoom *= 4
        shoot(options.out / "workbench-threshold.png")
        raise_dock(viewer, "Runs")
        viewer.reset_view()
        shoot(options.out / "workbench-runs.png")
        viewer.close()


if __name__ == "__main__":
    main()
