"""Train a segmentation network, and leave a run directory that says everything about the run.

usage: python -m engine.train --data.root FOLDER [--preset NAME] [--config FILE] [--out DIR] [--SETTING=VALUE …]
       python -m engine.train --resume RUN

  --preset NAME   start from published or proven settings (below)
  --config FILE   then take a TOML file's settings, such as another run's config.toml
  --SETTING=VALUE then these (below); a setting's value is written as in the file
  --out DIR       run directory to make; runs/DATE-TIME-DATA-METHOD if not given
  --resume RUN    go on with a run that was stopped or crashed, to the result that it would have had
  --layouts       list the folder layouts that are recognised, and stop
  --quiet         no progress bar

Examples:
  python -m engine.train --preset demo
  python -m engine.train --data.root ~/retina --data.size=512 --training.epochs=200
  python -m engine.train --preset smm --data.root ~/cracks --modulation.name=smm_v1 --out runs/cracks-1

Ctrl-C, or a file named `stop` in the run directory, ends a run cleanly after the batch it is in.
"""

import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from engine import __version__, checkpoint, flags
from engine.command import Parser, run
from engine.config import Layer, RunConfig, presets, read_file, read_preset, resolve, to_toml
from engine.data.dataset import Dataset
from engine.data.layouts import known
from engine.errors import InputError
from engine.loop import Epoch, fit
from engine.record import FORMAT, Progress, RunReader, RunWriter, WatchedItem

LIBRARIES = ("torch", "numpy", "scikit-image", "scipy", "zarr")


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``python -m engine.train``."""
    parser = Parser("train", "", usage="see --help")
    parser.add_argument("--preset")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--layouts", action="store_true")
    if {"-h", "--help"} & set(arguments):
        print(manual())
        return 0
    options, rest = parser.parse_known_args(arguments)
    if options.layouts:
        print("\n\n".join(f"{kind.name}: {kind.title}\n{_indent(kind.tree)}" for kind in known()))
        return 0
    if options.resume is not None:
        if rest or options.preset or options.config or options.out:
            raise InputError("--resume goes on with the run's own settings: give no others beside it.")
        return resume(options.resume, quiet=options.quiet)
    layers = [read_preset(options.preset)] if options.preset else []
    layers += [read_file(options.config)] if options.config else []
    layers += [Layer("flags", flags.parse(rest))]
    config, notes = resolve(layers)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if not config.data.root:
        raise InputError(
            "there is nothing to train on: give a folder with --data.root, or try --preset demo."
        )
    config = config.model_copy(update={"data": config.data.located()})
    return start(config, options.out or new_run(config), quiet=options.quiet)


def manual() -> str:
    """The help: usage, presets and every setting."""
    lines = [f"  {name:<14}{about}" for name, about in presets().items()]
    return "\n\n".join(
        [(__doc__ or "").strip(), "Presets\n" + "\n".join(lines), "Settings", flags.describe(RunConfig)]
    )


def _indent(text: str) -> str:
    return "\n".join("    " + line for line in text.strip().splitlines())


def new_run(config: RunConfig) -> Path:
    """A directory name that is not taken; nothing is ever read out of it."""
    stamp = datetime.now().strftime("%Y-%m-%d-%H%M%S")
    name = f"{stamp}-{Path(config.data.root).name}-{config.modulation.name}"
    path = Path("runs") / name
    number = 2
    while path.exists():
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return path


def start(config: RunConfig, out: Path, *, quiet: bool = False) -> int:
    """Train into a new run directory. Returns the exit code."""
    progress = Progress()
    fresh = not out.exists()
    writer = RunWriter.create(out, progress)
    begun = False
    try:
        with writer.recorded():
            writer.write_text("config.toml", to_toml(config))
            dataset = Dataset.open(config.data)
            check_room(config, dataset, out)
            writer.write_json("run.json", identity(config, dataset))
            epochs = fit(config, dataset, progress=progress, cache=out / "cache", on_watched=_watch(writer, config))
            for epoch in _shown(epochs, config, progress, quiet):
                if not begun:
                    begun = True
                save(writer, epoch, config)
            return finish(writer, progress, out)
    except InputError:
        # Nothing was trained: a directory that was made for this leaves with the mistake.
        if fresh and not begun:
            shutil.rmtree(out, ignore_errors=True)
        raise


def resume(out: Path, *, quiet: bool = False) -> int:
    """Go on with a stopped or crashed run. Returns the exit code."""
    progress = Progress()
    writer = RunWriter.reopen(out, progress)
    with writer.recorded():
        ...
    return 0
