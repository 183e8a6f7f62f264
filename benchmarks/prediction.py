"""Memory and main-thread time of predicting a large open image from the window.

usage: python benchmarks/prediction.py [--size PIXELS] [--keep]

Needs a display: xvfb-run -a -s "-screen 0 1280x800x24" python benchmarks/prediction.py

A small network is trained on the embedded set for an epoch. It then predicts a generated image, once from
a zarr array on disk, which the process reads where it is, and once from a dask array of float64, which is
written for it first. Every event that Qt gives to one of the workbench's objects is timed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import zarr
from measured import Table, report
from window import pump, renderer, timed_application

TINY = ("--quiet", "--data.patch=32", "--model.base_width=4", "--model.depth=2", "--training.epochs=1")


def generate(path: Path, size: int) -> "zarr.Array[Any]":
    """An image uint8 (size, size) in chunks of 500² with structure at two scales."""
    array = zarr.create_array(store=path, shape=(size, size), chunks=(500, 500), dtype="uint8")
    rng = np.random.default_rng(0)
    for top in range(0, size, 500):
        coarse = np.kron(rng.integers(0, 150, (10, -(-size // 50))), np.ones((50, 50), int))[:, :size]
        array[top : top + 500] = (coarse + rng.integers(0, 100, coarse.shape))[: size - top]
    return array


class Peaks:
    """Largest resident memory of this process and of its children, in bytes, looked at 50 times a second."""

    def __init__(self) -> None:
        self.here = self.there = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(0.02):
            self.here = max(self.here, me.memory_info().rss)
            for child in me.children():
                try:
                    if "engine.predict" in child.cmdline():
                        self.there = max(self.there, child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()


def measure(app: Any, viewer: Any, panel: Any, image: Any, name: str) -> list[str | float]:
    """Predict an image. Returns its row of the table."""
    layer = viewer.add_image(image, name=name, contrast_limits=(0, 255))
    panel.choose_image(layer)
    for _ in range(30):
        app.processEvents()
        time.sleep(0.01)
    app.spent.clear()
    before = psutil.Process().memory_info().rss
    panel.longest = 0.0
    gaps: list[float] = []
    peaks = Peaks()
    began = last = time.perf_counter()
    panel.start()
    while panel.busy:
        app.processEvents()
        time.sleep(0.002)
        now = time.perf_counter()
        gaps.append(now - last)
        last = now
    took = time.perf_counter() - began
    peaks.end()
    state = panel.prediction.poll()
    if state.state != "finished":
        raise SystemExit(f"{name}: {state.state} {state.message}")
    levels = [tuple(level.shape) for level in viewer.layers[f"probability · {name}"].data]
    own = max(max(times) for times in app.spent.values())
    mebi = 2**20
    memory = [bytes_ / mebi for bytes_ in (peaks.there, before, peaks.here)]
    viewer.layers.clear()
    return [
        name,
        took,
        *memory,
        *(1000 * longest for longest in (panel.longest, own, max(gaps))),
        f"{levels}",
    ]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--keep", action="store_true", help="keep the results in benchmarks/results")
    given = parser.parse_args()
    size = given.size
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_SMM_HOME"] = str(Path(folder) / "home")
        run = Path(folder) / "home" / "runs" / "tiny"
        command = [sys.executable, "-m", "engine.train", "--data.root=demo", "--out", str(run), *TINY]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        stored = generate(Path(folder) / "image.zarr", size)
        app = timed_application()
        import dask.array
        import napari

        from napari_smm.qt.predict_panel import PredictPanel

        viewer = napari.Viewer()
        panel = PredictPanel(viewer)
        viewer.window.add_dock_widget(panel, name="Predict")
        pump(app, panel.run.isEnabled, 60)
        images = {"zarr on disk": stored, "dask, float64": dask.array.from_zarr(stored).astype(np.float64)}
        rows = [measure(app, viewer, panel, image, name) for name, image in images.items()]
        table = Table(
            "window-prediction", f"Predicting an open image of {size}² from the window",
            ("image", "s", "process MiB", "napari before", "napari MiB", "panel ms", "all ms", "gap ms",
             "levels"),
            rows,
            "Memory at its highest. The longest callback of the panel, that with what napari does in it, "
            f"and the longest gap between events; OpenGL by {renderer()}.",
        )  # fmt: skip
        report("window-prediction", torch.device("cpu"), [table], keep=given.keep)
        panel.shut()
        viewer.close()


if __name__ == "__main__":
    main()
