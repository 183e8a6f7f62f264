"""Take the pictures of the docs from a real run.

usage: xvfb-run -a -s "-screen 0 1280x800x24" python docs/screenshots.py [RUN] [--out docs/images]
           [--promise CALIBRATED IMAGE MASK] [--annotate FOLDER]

The pictures in the repository show a run on CHASE_DB1 (CC BY 4.0), made with

    python -m engine.train --preset smm --data.root CHASEDB1 --model.base_width=8 --training.epochs=40 \
        --data.patches_per_image=4 --optimizer.name=adam --optimizer.lr=0.003

and an image of the test split of a run on the nuclei of the 2018 Data Science Bowl (CC0), made with

    python -m engine.train --data.root DSB2018 --data.layout=patterns --data.images=images/{id}.png \
        --data.masks=masks/{id}.png --data.split="[0.3,0.05,0.3,0.35]" --data.patch=128 \
        --data.patches_per_image=2 --model.base_width=16 --model.depth=3 --modulation.name=none \
        --optimizer.name=adam --optimizer.lr=0.001 --schedule.name=linear --training.batch_size=8 \
        --training.epochs=15 --watch.train=0 --watch.val=0 --out CALIBRATED
    python -m engine.calibrate CALIBRATED --rule cls

The picture of annotating shows images of the same set, in a copy, for it is painted on: FOLDER/images and
FOLDER/masks, of which the first half is taken as painted.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import napari
from qtpy.QtWidgets import QApplication, QDockWidget

from engine.data.annotated import PALETTE, UNLABELLED, AnnotationClass
from napari_smm.app import open_docks
from napari_smm.layers import MARK
from napari_smm.qt.annotate_dock import AnnotateDock
from napari_smm.qt.predict_panel import PredictPanel
from napari_smm.qt.threshold_dock import ThresholdDock
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


def shoot_run(viewer: napari.Viewer, run: Path, out: Path) -> None:
    """The three docks on a watched run."""
    bench = workbench(viewer)
    show_run(viewer, bench, run)
    raise_dock(viewer, "Train")
    for dock in bench._docks:
        if dock.objectName() == "train-dock":
            dock.curves.set_open(True)
    viewer.reset_view()
    shoot(out / "workbench-train.png")
    raise_dock(viewer, "Threshold")
    item = bench.session.snapshot.item if bench.session.snapshot else None
    if item is not None:
        height, width = item.shape[-2:]
        viewer.scene.camera.center = (0, 0.5 * height, 0.42 * width)
        viewer.scene.camera.zoom *= 4
    shoot(out / "workbench-threshold.png")
    raise_dock(viewer, "Runs")
    viewer.reset_view()
    shoot(out / "workbench-runs.png")


def shoot_promise(viewer: napari.Viewer, run: Path, image: Path, mask: Path, out: Path) -> None:
    """The Threshold dock on a new image, with a threshold that promises something."""
    layer = viewer.add_image(iio.imread(image), name="nuclei")
    truth = viewer.add_labels((iio.imread(mask) > 0).astype("uint8"), name="truth", visible=False)
    bench = workbench(viewer)
    bench.session.watch(run)
    panel = PredictPanel(viewer)
    panel.choose_run(run)
    panel.choose_image(layer)
    pump(30, lambda: panel.begin.isEnabled() and panel.run.count() > 0)
    panel.start()
    pump(120, lambda: any(other.metadata.get(MARK) for other in viewer.layers))
    panel.shut()
    raise_dock(viewer, "Threshold")
    dock = next(dock for dock in bench._docks if isinstance(dock, ThresholdDock))
    probability = next(other for other in viewer.layers if other.metadata.get(MARK))
    probability.visible = False
    dock.choose_probability(probability, truth)
    dock.rules.choose("cls")
    pump(10, lambda: dock.rules.promise.text() != "" and dock._source.layer("prediction") is not None)
    viewer.reset_view()
    viewer.scene.camera.zoom *= 1.9
    shoot(out / "workbench-promise.png")
    dock.rules.choose("")
    viewer.layers.clear()


def shoot_annotation(viewer: napari.Viewer, folder: Path, out: Path) -> None:
    """The Annotate dock on an image of which the left part is labelled."""
    dock = raise_annotate(viewer)
    dock.open_folder(folder)
    pump(60, lambda: dock.layer() is not None)
    images = dock.annotator.images
    for _ in images[: len(images) // 2]:
        image = dock.annotator.current
        dock.accept()
        pump(60, lambda image=image: dock._layers.image != image)
    layer = dock.layer()
    assert layer is not None
    part = layer.data.copy()
    part[:, 2 * part.shape[1] // 3 :] = UNLABELLED
    dock.apply(part)
    dock.annotator.set_status(dock.annotator.current, "started")
    dock.annotator.set_status(images[0], "reviewed")
    dock._edit_classes((AnnotationClass("nucleus", 1, PALETTE[0]), AnnotationClass("debris", 2, PALETTE[1])))
    pump(20, lambda: dock.saving.text().startswith("✔"))
    dock._say("")
    viewer.reset_view()
    shoot(out / "annotate.png")


def raise_annotate(viewer: napari.Viewer) -> AnnotateDock:
    """The Annotate dock, at the front."""
    raise_dock(viewer, "Annotate")
    return next(dock for dock in workbench(viewer)._docks if isinstance(dock, AnnotateDock))


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", nargs="?")
    parser.add_argument("--promise", type=Path, nargs=3, metavar=("CALIBRATED", "IMAGE", "MASK"))
    parser.add_argument("--annotate", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_SMM_HOME"] = home
        viewer = napari.Viewer()
        viewer.window.resize(1280, 800)
        open_docks(viewer)
        if options.promise is not None:
            shoot_promise(viewer, *options.promise, options.out)
        if options.run is not None:
            shoot_run(viewer, options.run, options.out)
        if options.annotate is not None:
            shoot_annotation(viewer, options.annotate, options.out)
        viewer.close()


if __name__ == "__main__":
    main()
