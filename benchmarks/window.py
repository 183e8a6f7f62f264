"""How long the workbench holds napari's main thread, and how soon an epoch is seen.

usage: python benchmarks/window.py [--epochs N] [--size PIXELS] [--slider-size PIXELS] [--keep]

Needs a display: xvfb-run -a -s "-screen 0 1280x800x24" python benchmarks/window.py

A process of its own writes a run of 4 watched images, an epoch a second, as a trainer would. The window
with all three docks shows it. Every event that Qt gives to one of the workbench's objects is timed. Then
the threshold is moved over one large image, against what a user would do instead: compute the masks and give
them to Labels layers. It is timed by the main thread's processor too, as other work on the machine disturbs
the clock.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from measured import Table, Target, ratio, report

from engine.record import FORMAT, Progress, RunReader, RunWriter, WatchedItem

WATCHED = 4
MOVES = 20
CPU = torch.device("cpu")
OURS, THREE, ONE = "ours, three layers and rates", "three masks computed, and counts", "one mask computed"


def smooth(size: int, seed: int) -> np.ndarray:
    """Probabilities float32 (1, size, size) with structure at many scales, as a network's."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size), np.float32)
    for scale in (8, 32, 128):
        coarse = rng.standard_normal((size // scale + 1, size // scale + 1)).astype(np.float32)
        total += np.kron(coarse, np.ones((scale, scale), np.float32))[:size, :size]
    total += 0.3 * rng.standard_normal(total.shape, dtype=np.float32)
    return (1 / (1 + np.exp(-total)))[None]


def write_run(root: Path, size: int, epochs: int, pause: float, images: int = WATCHED) -> None:
    """Write a run as a trainer does, `pause` seconds an epoch."""
    truth = smooth(size, 99) > 0.7
    pixels = (255 * smooth(size, 98)[0, ..., None]).astype(np.uint8)
    items = [
        WatchedItem(
            f"image {number}", "train", pixels, truth, np.ones((size, size), np.bool_), (0, 0), (1.0, 1.0)
        )
        for number in range(images)
    ]  # fmt: skip
    writer = RunWriter.create(root, Progress())
    writer.write_text("config.toml", tomli_w.dumps({"training": {"epochs": epochs}}))
    dataset = {"root": "generated", "classes": ["lesion"], "channels": 1, "grouped": False, "images": images}
    splits = {"train": [item.name for item in items], "val": [], "calib": [], "test": []}
    writer.write_json("run.json", {"format": FORMAT, "dataset": dataset, "splits": splits})
    writer.watch(items, epochs)
    writer.event("started", epochs=epochs)
    shown = [smooth(size, number) for number in range(3)]
    grown = [truth | (p > 0.95) for p in shown]
    for number in range(1, epochs + 1):
        began = time.monotonic()
        writer.write_watched(number, [shown[number % 3]] * images, [grown[number % 3]] * images)
        writer.event(
            "epoch", epoch=number, epochs=epochs, loss=1 / number, lr=0.1, recall=number / (number + 3),
            slope=None if number == 1 else 0.1 / number, gamma=None, updated=number % 3 == 0,
            warmup=number < epochs / 5, added=[1000], validation=None, best=False, last="",
            seconds={"epoch": pause},
        )  # fmt: skip
        time.sleep(max(0.0, pause - (time.monotonic() - began)))
    writer.event("finished", epoch=epochs, reason="epochs")
    writer.release()


def timed_application() -> Any:
    """A QApplication that times every event that it gives to the workbench's objects."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    class Timed(QApplication):
        def __init__(self) -> None:
            super().__init__(sys.argv[:1])
            self.spent: dict[str, list[float]] = defaultdict(list)
            self.label = ""

        def notify(self, receiver: Any, event: Any) -> bool:  # Qt's name
            owner = receiver.parent() if isinstance(receiver, QTimer) else receiver
            if not type(owner).__module__.startswith("napari_smm"):
                return bool(super().notify(receiver, event))
            began = time.perf_counter()
            try:
                return bool(super().notify(receiver, event))
            finally:
                self.spent[self.label + type(owner).__name__].append(time.perf_counter() - began)

    return Timed()


def pump(app: Any, condition: Any, seconds: float) -> None:
    """Let the window live until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("the window did not come that far in time")
        app.processEvents()
        time.sleep(0.002)


def streaming(app: Any, viewer: Any, root: Path, size: int, epochs: int) -> dict[str, Any]:
    """Watch a run that another process writes. Returns callbacks by kind, and the delays of epochs."""
    from napari_smm.qt.workbench import workbench

    command = [sys.executable, __file__, "--write", str(root), "--size", str(size), "--epochs", str(epochs)]
    writer = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    pump(app, lambda: (root / "run.json").exists(), 60)
    bench = workbench(viewer)
    arrived: dict[int, float] = {}
    app.label = "first layers: "
    bench.session.watch(root)
    pump(app, lambda: bench.sync.layer("recall slope") is not None and not bench.sync.busy, 120)
    first = bench.session.snapshot.run.epochs
    app.label = "streaming: "

    def finished() -> bool:
        snapshot = bench.session.snapshot
        if not bench.sync.busy and round(viewer.dims.point[0]) == snapshot.run.epochs:
            arrived.setdefault(snapshot.run.epochs, time.time())
        return snapshot.state.status == "finished" and snapshot.run.epochs == epochs and not bench.sync.busy

    pump(app, finished, 60 + 5 * epochs)
    app.label = "afterwards: "
    writer.wait()
    said = {
        event["epoch"]: datetime.fromisoformat(event["time"]).timestamp()
        for event in RunReader(root).epochs()
    }
    delays = [arrived[number] - said[number] for number in arrived if number > first]
    return {"delays": delays, "epochs": len(delays)}


def slider(app: Any, viewer: Any, size: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of a move of the threshold, ours and what a user would do instead, in turns.

    Ours moves prediction, false positives and false negatives, and all that the docks say. Instead, a user
    computes the three masks, gives each to a Labels layer, and counts what the rates need; or one mask alone.

    Returns:
        For each way its seconds: "main", of the main thread's processor; "clock"; and "drawn", by the clock
        until it is drawn.
    """
    from napari_smm.layers import THRESHOLDED
    from napari_smm.qt.workbench import workbench

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        write_run(root, size, 1, 0, images=1)
        bench = workbench(viewer)
        bench.session.watch(root)
        pump(app, lambda: bench.sync.layer("false negatives") is not None and not bench.sync.busy, 300)
        pump(app, lambda: bool(bench.session.snapshot.curves), 60)
        canvas = viewer.window._qt_viewer.canvas
        p = np.asarray(bench.sync.layer("probability").data[0])
        truth = np.asarray(bench.sync.layer("truth").data[0]) > 0
        ours = [bench.sync.layer(role) for role in THRESHOLDED]
        theirs = [
            viewer.add_labels(np.zeros(p.shape, np.uint8), name=f"{role}, computed") for role in THRESHOLDED
        ]

        def computed(threshold: float) -> None:
            predicted = p >= threshold
            masks = predicted, predicted & ~truth, truth & ~predicted
            for layer, mask in zip(theirs, masks, strict=True):
                layer.data = mask.view(np.uint8)
            [int(np.count_nonzero(mask)) for mask in masks]

        def computed_one(threshold: float) -> None:
            theirs[0].data = (p >= threshold).view(np.uint8)

        ways = {
            OURS: (ours, bench.session.set_threshold),
            THREE: (theirs, computed),
            ONE: (theirs[:1], computed_one),
        }
        taken: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ways}
        for number, threshold in enumerate(np.linspace(0.05, 0.95, 3 * MOVES)):
            name = list(ways)[number % 3]
            seen, move = ways[name]
            for layer in (*ours, *theirs):
                layer.visible = layer in seen
            for _ in range(3):
                app.processEvents()
            canvas.native.repaint()
            worked, began = time.thread_time(), time.perf_counter()
            move(float(threshold))
            taken[name]["main"].append(time.thread_time() - worked)
            taken[name]["clock"].append(time.perf_counter() - began)
            canvas.native.repaint()
            app.processEvents()
            taken[name]["drawn"].append(time.perf_counter() - began)
        viewer.layers.selection = set(theirs)
        viewer.layers.remove_selected()
        bench.session.leave()
        pump(app, lambda: not bench.sync.busy, 30)
    return taken


def renderer() -> str:
    """Name of what OpenGL draws with."""
    from vispy.gloo import gl

    return str(gl.glGetParameter(gl.GL_RENDERER))


def tables(
    result: dict[str, Any], spent: dict[str, list[float]], moved: dict[str, dict[str, list[float]]], size: int
) -> tuple[list[Table], list[Target]]:
    """What was measured, as tables and targets."""
    from qtpy import API_NAME, QT_VERSION

    def ms(seconds: list[float]) -> float:
        return 1000 * statistics.median(seconds)

    delays = result["delays"]
    rows = [[name, len(each), ms(each), 1000 * max(each)] for name, each in sorted(spent.items())]
    moves = [[name, *(ms(each[way]) for way in ("main", "clock", "drawn"))] for name, each in moved.items()]
    found = [
        Table(
            "window-events", "How long the workbench holds the main thread",
            ("events given to", "number", "median ms", "longest ms"), rows,
            f"{API_NAME} {QT_VERSION}, OpenGL by {renderer()}.",
        ),
        Table(
            "window-epochs", "From an epoch's event to all of its layers",
            ("epochs", "median ms", "longest ms"),
            [[len(delays), ms(delays), 1000 * max(delays)]] if delays else [],
        ),
        Table(
            "window-slider", f"A move of the threshold over {size}²",
            ("way", "ms of the main thread's processor", "ms by the clock", "ms until it is drawn"), moves,
            "Ours: three layers, the rates and all that the docks show. In turns; medians.",
        ),
    ]  # fmt: skip
    targets = [
        Target(f"slider move, {unit}, against {way}", ratio(moved[way][unit], moved[OURS][unit]), least)
        for way, unit, least in ((ONE, "main", 5.0), (THREE, "main", 5.0), (THREE, "drawn", 1.0))
    ]
    return found, targets


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20, help="to watch; 0 for the slider alone")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--slider-size", type=int, default=4096)
    parser.add_argument("--keep", action="store_true", help="keep the results in benchmarks/results")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write is not None:
        write_run(options.write, options.size, options.epochs, pause=1.0)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("NAPARI_SMM_HOME", str(Path(folder) / "home"))
        app = timed_application()
        import napari

        from napari_smm.app import open_docks

        viewer = napari.Viewer()
        open_docks(viewer)
        for _ in range(50):
            app.processEvents()
            time.sleep(0.01)
        result: dict[str, Any] = {"delays": []}
        if options.epochs:
            result = streaming(app, viewer, Path(folder) / "run", options.size, options.epochs)
        spent = {name: times for name, times in app.spent.items() if name}
        moved = slider(app, viewer, options.slider_size)
        found, targets = tables(result, spent, moved, options.slider_size)
        report(
            "window", CPU, found, targets, keep=options.keep, about="The workbench in napari, and its slider"
        )
        viewer.close()


if __name__ == "__main__":
    main()
