"""How the window bears a long run: 1000 epochs in one run directory, with the viewer attached to it.

python benchmarks/long_run.py [--epochs 1000] [--pause 0.2] [--size 256] [--keep]

Needs a display: xvfb-run -a -s "-screen 0 1280x800x24" python benchmarks/long_run.py

A process of its own writes a run of 4 watched images as a trainer does, an epoch every `--pause` seconds. The
window with all three docks follows it. For the epochs up to 10, 100 and 1000 the table says how long after an
epoch's event all of its layers were there, how long the workbench's callbacks held the main thread, how long
the worker took for a look at the directory, how much memory the viewer took and how large the directory was.
Then the run, now finished, is opened anew, and its plots are drawn with so many epochs. A viewer that is busy
leaves epochs out, and goes to the newest: they are not counted.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import tomli_w
import torch
from measured import Table, Target, options, report
from window import pump, smooth

from engine.record import FORMAT, Progress, RunReader, RunWriter, WatchedItem

WATCHED = 4
STAGES = (10, 100, 1000)
"""Epochs up to which a row of the table goes."""
MOST_CALLBACK = 50.0
ROUNDS = 9
Times = dict[str, list[float]]
"""Seconds, by what was measured meanwhile."""


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds an epoch")
    parser.add_argument("--size", type=int, default=256, help="of the watched images, px")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options(parser)
    given = parser.parse_args()
    if given.write is not None:
        write_run(given.write, given.size, given.epochs, given.pause)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("NAPARI_SMM_HOME", str(Path(folder) / "home"))
        root = Path(folder) / "run"
        app = timing_application()
        looks = time_looks(app)
        import napari

        from napari_smm.app import open_docks
        from napari_smm.qt.workbench import workbench

        viewer = napari.Viewer()
        open_docks(viewer)
        bench = workbench(viewer)
        for _ in range(50):
            app.processEvents()
            time.sleep(0.01)
        followed = follow(app, viewer, bench, root, given)
        opened = opening(app, bench, root, given.epochs)
        callbacks = app.spent
        tables = [
            stages_table(followed, app, looks, given),
            opened_table(opened, callbacks["opened"], looks["opened"], given.epochs),
            redrawing(app, root, stages_of(given.epochs)),
        ]
        viewer.close()
    report(
        "long-run", torch.device("cpu"), tables, targets(tables, given.epochs),
        keep=given.keep, about=(__doc__ or "").strip(),
    )  # fmt: skip


def stages_table(followed: "Followed", app: Any, looks: Times, given: argparse.Namespace) -> Table:
    """What the run cost as it went on."""
    columns = (
        "epochs up to", "seen", "event to layers ms", "longest ms", "callback ms", "longest callback ms",
        "it was of", "look ms", "longest look ms", "viewer MB", "files", "run directory MB",
    )  # fmt: skip
    rows = [
        (
            stage, len(delays), *milliseconds(delays), *milliseconds(app.spent[str(stage)]),
            app.longest.get(str(stage), (0.0, ""))[1], *milliseconds(looks[str(stage)]),
            followed.memory[stage] / 1e6, followed.sizes[str(stage)]["files"],
            followed.sizes[str(stage)]["bytes"] / 1e6,
        )
        for stage, delays in followed.delays.items()
    ]  # fmt: skip
    note = (
        f"{WATCHED} images of {given.size} × {given.size}. A callback is an event that Qt gives to an object "
        "of the workbench, a look is a snapshot of the run that the worker makes, both in processor time of "
        "their thread. Medians, and the longest. The directory is without checkpoints."
    )
    title = "A run with the viewer attached, by the number of epochs"
    return Table("run_by_epochs", title, columns, rows, note)


def opened_table(seconds: float, callbacks: Sequence[float], looks: Sequence[float], epochs: int) -> Table:
    """What it cost to open the run when it had finished."""
    columns = (
        "until all layers are there s",
        "callback ms",
        "longest callback ms",
        "look ms",
        "first look ms",
    )
    rows = [(seconds, *milliseconds(callbacks), *milliseconds(looks))]
    return Table("run_opened", f"A finished run of {epochs} epochs, opened", columns, rows)


def milliseconds(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and longest; NaN of none."""
    return (1e3 * median(seconds), 1e3 * max(seconds)) if seconds else (math.nan, math.nan)


def targets(tables: Sequence[Table], epochs: int) -> list[Target]:
    """What may hold the main thread."""
    run, opened, plots = tables
    held = {
        f"median callback up to epoch {epochs}": run.rows[-1][4],
        f"median callback while a run of {epochs} epochs is opened": opened.rows[0][1],
        **{
            f"{name}, {count} epochs": ms
            for name, count, ms in plots.rows
            if count == epochs and name in HOLDING
        },
    }
    return [Target(what, float(ms), most=MOST_CALLBACK, unit="ms") for what, ms in held.items()]


def stages_of(epochs: int) -> list[int]:
    """The stages that a run of so many epochs has."""
    return [*(stage for stage in STAGES if stage < epochs), epochs]


# The writer, a process of its own


def write_run(root: Path, size: int, epochs: int, pause: float) -> None:
    """Write a run as a trainer does, and beside it how large its directory was at each stage.

    After its first epoch it waits until the viewer says that it is attached.
    """
    truth = smooth(size, 99) > 0.7
    pixels = (255 * smooth(size, 98)[0, ..., None]).astype(np.uint8)
    items = [
        WatchedItem(
            f"image {number}", "val" if number % 2 else "train", pixels, truth,
            np.ones((size, size), np.bool_), (0, 0), (1.0, 1.0),
        )
        for number in range(WATCHED)
    ]  # fmt: skip
    writer = RunWriter.create(root, Progress())
    writer.write_text("config.toml", tomli_w.dumps({"training": {"epochs": epochs}}))
    dataset = {"root": "generated", "classes": ["lesion"], "channels": 1, "grouped": False, "images": WATCHED}
    splits = {"train": [item.name for item in items], "val": [], "calib": [], "test": []}
    writer.write_json("run.json", {"format": FORMAT, "dataset": dataset, "splits": splits})
    writer.watch(items, epochs)
    writer.event("started", epochs=epochs)
    shown = [smooth(size, number) for number in range(3)]
    grown = [truth | (p > 0.95) for p in shown]
    rng = np.random.default_rng(0)
    sizes: dict[int, dict[str, int]] = {}
    attached = root.parent / "attached"
    for number in range(1, epochs + 1):
        began = time.monotonic()
        writer.write_watched(number, [shown[number % 3]] * WATCHED, [grown[number % 3]] * WATCHED)
        recall = number / (number + 30) + 0.02 * float(rng.standard_normal())
        dice = [min(1.0, 0.9 * recall + 0.01)]
        scores = {"loss": 1.1 / number, "dice": dice, "recall": [recall], "precision": [0.8], "skipped": [0]}
        writer.event(
            "epoch", epoch=number, epochs=epochs, loss=1 / number, lr=0.1, recall=recall,
            slope=None if number == 1 else 0.1 / number, gamma=None if number < epochs / 5 else 0.01 / number,
            updated=number % 3 == 0, warmup=number < epochs / 5, added=[1000], validation=scores,
            best=number % 10 == 0, last="", seconds={"epoch": pause},
        )  # fmt: skip
        if number in stages_of(epochs):
            kept = [path.stat().st_size for path in root.rglob("*") if path.is_file()]
            sizes[number] = {"files": len(kept), "bytes": sum(kept)}
            (root.parent / "sizes.json").write_text(json.dumps(sizes))
        while number == 1 and not attached.exists():
            time.sleep(0.05)
        time.sleep(max(0.0, pause - (time.monotonic() - began)))
    writer.event("finished", epoch=epochs, reason="epochs")
    writer.release()


# The window


def timing_application() -> Any:
    """A QApplication that times every event that it gives to the workbench's objects.

    ``spent`` has what each took of the main thread's own processor time, which is the same beside other work,
    and ``longest`` the longest, and whose it was.
    """
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    class Timing(QApplication):
        def __init__(self) -> None:
            super().__init__(sys.argv[:1])
            self.spent: Times = defaultdict(list)
            self.longest: dict[str, tuple[float, str]] = {}
            self.label = ""

        def notify(self, receiver: Any, event: Any) -> bool:  # Qt's name
            owner = receiver.parent() if isinstance(receiver, QTimer) else receiver
            if not type(owner).__module__.startswith("napari_smm"):
                return bool(super().notify(receiver, event))
            began = time.thread_time()
            try:
                return bool(super().notify(receiver, event))
            finally:
                seconds = time.thread_time() - began
                self.spent[self.label].append(seconds)
                longest = self.longest.get(self.label, (0.0, ""))
                self.longest[self.label] = max(longest, (seconds, type(owner).__name__))

    return Timing()


def time_looks(app: Any) -> Times:
    """Takes note of the worker's processor time of every look at the run, by what is measured meanwhile."""
    import napari_smm.session as session

    looks: Times = defaultdict(list)
    look = session.look

    def timed(*arguments: Any) -> Any:
        began = time.thread_time()
        try:
            return look(*arguments)
        finally:
            looks[app.label].append(time.thread_time() - began)

    session.look = timed
    return looks


class Followed:
    """What was seen of a run that went on, by stage: seconds from epochs' events to their layers, bytes of
    the viewer, and files and bytes of the directory."""

    def __init__(self, stages: Sequence[int]) -> None:
        self.delays: dict[int, list[float]] = {stage: [] for stage in stages}
        self.memory: dict[int, int] = dict.fromkeys(stages, 0)
        self.sizes: dict[str, dict[str, int]] = {}


def follow(app: Any, viewer: Any, bench: Any, root: Path, given: argparse.Namespace) -> Followed:
    """Watch a run that another process writes, to its end."""
    command = [sys.executable, __file__, "--write", str(root), "--size", str(given.size)]
    command += ["--epochs", str(given.epochs), "--pause", str(given.pause)]
    writer = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    pump(app, lambda: (root / "run.json").exists(), 60)
    stages = stages_of(given.epochs)
    followed, arrived = Followed(stages), dict[int, float]()
    own = psutil.Process()

    def stage_of(epoch: int) -> int:
        return next(stage for stage in stages if epoch <= stage)

    app.label = "first"
    bench.session.watch(root)
    pump(app, lambda: bench.sync.layer("recall slope") is not None and not bench.sync.busy, 120)
    (root.parent / "attached").touch()

    def finished() -> bool:
        snapshot = bench.session.snapshot
        app.label = str(stage_of(snapshot.run.epochs))
        # The last layer of an epoch to be changed; its history is as long as the epochs that it shows.
        shown = len(bench.sync.layer("recall slope").data)
        if shown not in arrived:
            arrived[shown] = time.time()
            followed.memory[stage_of(shown)] = own.memory_full_info().uss
        return snapshot.state.status == "finished" and shown == given.epochs and not bench.sync.busy

    pump(app, finished, 60 + 5 * given.epochs)
    writer.wait()
    followed.sizes = json.loads((root.parent / "sizes.json").read_text())
    for event in RunReader(root).epochs():
        number = event["epoch"]
        if number in arrived and number > 1:
            said = datetime.fromisoformat(event["time"]).timestamp()
            followed.delays[stage_of(number)].append(arrived[number] - said)
    return followed


def opening(app: Any, bench: Any, root: Path, epochs: int) -> float:
    """Seconds until all layers of a finished run are there."""
    app.label = "left"
    bench.session.leave()
    pump(app, lambda: not bench.sync.busy, 30)
    app.label = "opened"
    began = time.perf_counter()
    bench.session.watch(root)

    def there() -> bool:
        snapshot = bench.session.snapshot
        return snapshot is not None and snapshot.run.epochs == epochs and not bench.sync.busy

    pump(app, there, 120)
    took = time.perf_counter() - began
    app.label = "after"
    return took


# Plots

HOLDING = ("recall and slope in the dock", "losses in the dock", "an epoch of the picture")


def redrawing(app: Any, root: Path, stages: Sequence[int]) -> Table:
    """How long each plot takes with so many epochs."""
    from engine.figures.epochs import read_history
    from napari_smm.qt.plot import LossPlot, RecallSlopePlot
    from napari_smm.recall_picture import draw

    whole = read_history(RunReader(root))
    plots = {"recall and slope in the dock": RecallSlopePlot(), "losses in the dock": LossPlot()}
    rows: list[tuple[str, int, float]] = []
    for name, plot in plots.items():
        plot.resize(400, 300)
        plot.show()
        for stage in stages:
            history = whole.until(stage)

            def shown(plot: Any = plot, history: Any = history) -> None:
                plot.set_history(history)
                plot.grab()

            rows.append((name, stage, 1e3 * timed(shown)))
        plot.close()
        plot.deleteLater()
    app.processEvents()
    for stage in stages:
        history = whole.until(stage)
        rows.append(
            ("the picture beside the image, in the worker", stage, 1e3 * timed(lambda h=history: draw(h)))
        )
        picture = draw(history)
        rows.append(("an epoch of the picture", stage, 1e3 * timed(partial(picture.at, stage))))
    return Table("plots_by_epochs", "Plots, by the number of epochs", ("plot", "epochs", "ms"), rows)


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes: the median of a few, after one that does not count."""
    call()
    seconds = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        call()
        seconds.append(time.thread_time() - began)
    return median(seconds)


if __name__ == "__main__":
    main()
