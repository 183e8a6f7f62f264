"""Train a segmentation network, and leave a run directory that says everything about the run.

usage: python -m engine.train --data.root FOLDER [--preset NAME] [--init RUN] [--config FILE]
                              [--out DIR] [--SETTING=VALUE …]
       python -m engine.train --resume RUN

  --preset NAME   start from published or proven settings (below)
  --init RUN      start from the weights of an earlier run, or of one of its checkpoints; the network and how
                  it sees images (size, spacing, normalisation, colour) are that run's, whatever a preset says
  --config FILE   then take a TOML file's settings, such as another run's config.toml
  --SETTING=VALUE then these (below); a setting's value is written as in the file
  --out DIR       run directory to make; runs/DATE-TIME-DATA-METHOD if not given
  --resume RUN    go on with a run that was stopped or crashed, to the result that it would have had
  --layouts       list the folder layouts that are recognised, and stop
  --quiet         no progress bar

Examples:
  python -m engine.train --preset demo
  python -m engine.train --data.root ~/retina --data.size=512 --training.epochs=200
  python -m engine.train --preset few --init runs/retina-1 --data.root ~/more-retina
  python -m engine.train --preset smm --data.root ~/cracks --modulation.name=smm_v1 --out runs/cracks-1

Ctrl-C, or a file named `stop` in the run directory, ends a run cleanly after the batch it is in.

Several processes, on as many GPUs or on several hosts, train one run together, to the result that one would
have: torchrun --nproc-per-node=4 -m engine.train … --training.batch_size=8 (a multiple of the processes).
"""

import argparse
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from engine import __version__, checkpoint, flags
from engine.command import Parser, run
from engine.config import Layer, RunConfig, presets, read_file, read_preset, resolve, to_toml
from engine.data import journal
from engine.data.dataset import Dataset, first_page
from engine.data.layouts import known
from engine.device import device_name
from engine.errors import InputError
from engine.follow import TakenUp, event, restored, write_beginning
from engine.initial import inherited, open_dataset
from engine.loop import Epoch, fit
from engine.prepare import Prepared, misses_from, prepare
from engine.progress_bar import ProgressBar
from engine.ranks import ALONE, Ranks, joined
from engine.record import FORMAT, Progress, RunReader, RunWriter, WatchedItem, new_folder, plain
from engine.watch import gathered

LIBRARIES = ("torch", "numpy", "scikit-image", "scipy", "zarr")


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``python -m engine.train``."""
    with joined() as ranks:
        return command(arguments, ranks)


def command(arguments: Sequence[str], ranks: Ranks) -> int:
    """What a command line asks for, of one of the processes that train together."""
    parser = Parser("train", "", usage="see --help")
    parser.add_argument("--preset")
    parser.add_argument("--init")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--layouts", action="store_true")
    if {"-h", "--help"} & set(arguments):
        show(manual(), ranks)
        return 0
    options, rest = ranks.told(lambda: parser.parse_known_args(arguments))
    if options.layouts:
        show("\n\n".join(f"{kind.name}: {kind.title}\n{_indent(kind.tree)}" for kind in known()), ranks)
        return 0
    if options.resume is not None:
        with ranks.agreeing():
            if rest or options.preset or options.init or options.config or options.out:
                raise InputError("--resume goes on with the run's own settings: give no others beside it.")
        return resume(options.resume, quiet=options.quiet, ranks=ranks)
    config, out = ranks.told(lambda: settings(options, rest))
    return start(config, out, quiet=options.quiet, ranks=ranks)


def show(text: str, ranks: Ranks) -> None:
    """Print once."""
    if ranks.first:
        print(text)


def settings(options: argparse.Namespace, rest: Sequence[str]) -> tuple[RunConfig, Path]:
    """The run that the command line asks for, and its directory."""
    layers = [read_preset(options.preset)] if options.preset else []
    taken = [inherited(options.init)] if options.init else []
    layers += [layer for layer, _ in taken]
    layers += [read_file(options.config)] if options.config else []
    layers += [Layer("flags", with_init(flags.parse(rest), options.init))]
    config, notes = resolve(layers)
    for note in [*(note for _, note in taken), *notes]:
        print(f"note: {note}", file=sys.stderr)
    if not config.data.root:
        raise InputError(
            "there is nothing to train on: give a folder with --data.root, or try --preset demo."
        )
    config = config.located()
    return config, options.out or new_folder(Path("runs"), config.data.root, config.modulation.name)


def with_init(given: dict[str, Any], init: str | None) -> dict[str, Any]:
    """Settings of flags, with ``training.init`` of ``--init``. Raises InputError if it is given twice."""
    if init is None:
        return given
    training = given.get("training", {})
    if "init" in training:
        raise InputError("--init and --training.init both name a run to start from: one of them is needed.")
    return {**given, "training": {**training, "init": init}}


def manual() -> str:
    """The help: usage, presets and every setting."""
    lines = [f"  {name:<14}{about}" for name, about in presets().items()]
    return "\n\n".join(
        [(__doc__ or "").strip(), "Presets\n" + "\n".join(lines), "Settings", flags.describe(RunConfig)]
    )


def _indent(text: str) -> str:
    return "\n".join("    " + line for line in text.strip().splitlines())


def start(config: RunConfig, out: Path, *, quiet: bool = False, ranks: Ranks = ALONE) -> int:
    """Train into a new run directory. Returns the exit code.

    Args:
        config: the run.
        out: its directory.
        quiet: no progress bar.
        ranks: the processes that train together, of which each comes here. The first alone writes and speaks.

    Raises:
        InputError: anything that is refused before the first epoch. A directory that was made
            for the run is then removed again.
    """
    progress = Progress()
    if not ranks.first:
        return assist(config, out, progress, ranks)
    fresh = not out.exists()
    with ranks.agreeing():
        writer = RunWriter.create(out, progress)
    try:
        with writer.recorded():
            with ranks.agreeing():
                writer.write_text("config.toml", to_toml(config))
                dataset = open_dataset(config)
            ready = prepare(config, dataset, out / "cache", ranks=ranks)
            images, items = images_of(ready), items_of(ready)
            with ranks.agreeing():
                check_room(config, ready, items, out)
                if config.data.grows:
                    write_beginning(ready, out / journal.FOLDER)
                writer.write_json("run.json", {**identity(config, ready), **images})
                fresh = False
                origin = [] if ready.origin is None else [ready.origin.remark]
                for remark in [*origin, *dataset.remarks()]:
                    warn(writer, remark)
            return follow(writer, config, ready, items, progress, None, quiet)
    except (InputError, KeyboardInterrupt):
        if fresh:
            shutil.rmtree(out, ignore_errors=True)
        raise


def resume(out: Path, *, quiet: bool = False, ranks: Ranks = ALONE) -> int:
    """Go on with a stopped or crashed run, with any number of processes. Returns the exit code.

    Raises:
        InputError: no such run, one that has finished or is still running, or changed images.
    """
    progress = Progress()
    config, info, begun = ranks.told(lambda: recorded(out))
    if not ranks.first:
        return assist(config, out, progress, ranks, info, begun)
    with ranks.agreeing():
        writer = RunWriter.reopen(out, progress)
    with writer.recorded():
        with ranks.agreeing():
            dataset = reopen(out, config, info)
        ready = prepare(config, dataset, out / "cache", pretrained=not begun, ranks=ranks)
        items = items_of(ready)
        with ranks.agreeing():
            require_same_origin(info, ready)
        # Masks that are kept in files are too large to be held in memory besides.
        in_file = ("modulation",) if ready.modulation.disk_bytes else ()
        last = out / "checkpoints" / "last"
        state = dealt_state(lambda: checkpoint.load(last, in_file=in_file), ranks) if begun else None
        if config.data.grows:
            ready = taken_up_again(writer, config, ready, 0 if state is None else int(state["epoch"]))
            items = items_of(ready)
        versions = {name: version(name) for name in LIBRARIES}
        for name in LIBRARIES:
            if info["libraries"].get(name) != versions[name]:
                warn(
                    writer,
                    f"the run began with {name} {info['libraries'].get(name)} and goes on with "
                    f"{versions[name]}: its result may differ from an uninterrupted one.",
                )
        return follow(writer, config, ready, items, progress, state, quiet)


def dealt_state(load: Callable[[], dict[str, Any]], ranks: Ranks) -> dict[str, Any]:
    """The state to go on from, which the first process loads; of the masks, which are dealt out later, the
    others get the number of classes alone."""
    whole: dict[str, Any] = {}

    def light() -> dict[str, Any]:
        whole.update(load())
        masks = {
            key: x[:, :0].clone() for key, x in whole["modulation"].items() if isinstance(x, torch.Tensor)
        }
        return {**whole, "modulation": {**whole["modulation"], **masks}}

    told = ranks.told(light)
    return whole if ranks.first else told


def recorded(out: Path) -> tuple[RunConfig, dict[str, Any], bool]:
    """Settings and run.json of a run that is to go on, and whether it has a checkpoint."""
    reader = RunReader(out)
    info = reader.info()
    if reader.status() == "finished":
        raise InputError(f"the run {out} has finished all its epochs: there is nothing to resume.")
    config, _ = resolve([read_file(out / "config.toml")])
    return config, info, (out / "checkpoints" / "last").exists()


def assist(
    config: RunConfig, out: Path, progress: Progress, ranks: Ranks, info: dict[str, Any] | None = None,
    begun: bool = False,
) -> int:  # fmt: skip
    """Train as a process that is not the first: it comes wherever :func:`start` or, with ``info``,
    :func:`resume` waits for all, and leaves the run directory alone. Returns the exit code."""
    with ranks.agreeing():
        pass  # the first takes the run directory
    with ranks.agreeing():
        dataset = open_dataset(config) if info is None else reopen(out, config, info)
    ready = prepare(config, dataset, out / "cache", pretrained=not begun, ranks=ranks)
    if info is None:
        images_of(ready)
    items_of(ready)
    with ranks.agreeing():
        pass  # the first looks whether all can be written
    state = dealt_state(dict, ranks) if begun else None
    if state is None or not state["record"]["last"]:
        with interruptible(progress):
            for _ in fit(config, ready, resume=state, progress=progress):
                pass
    return 0


def reopen(out: Path, config: RunConfig, info: dict[str, Any]) -> Dataset:
    """The images of a run as it began with them."""
    if config.data.grows:
        return Dataset.again(config.data, first_page(out, config.data))
    return Dataset.open(config.data, info["splits"], info["dataset"]["fingerprint"])


def items_of(ready: Prepared) -> list[WatchedItem]:
    """On the first process, what the run directory keeps of all watched images."""
    return gathered(ready.watched, [item.record() for item in ready.watched], ready.ranks)


def taken_up_again(writer: RunWriter, config: RunConfig, ready: Prepared, done: int) -> Prepared:
    """What training had after a whole epoch; what the run directory tells of later ones is taken back."""
    journal.forget_after(writer.root / journal.FOLDER, done)
    writer.forget_after(done)
    ready = restored(ready, config, writer.root, done)
    info = RunReader(writer.root).info()
    writer.write_json("run.json", {**info, **images_of(ready)})
    return ready


def require_same_origin(info: dict[str, Any], ready: Prepared) -> None:
    """Refuse to go on, before the first checkpoint, from other weights than the run began with."""
    began = info.get("init")
    if ready.origin is not None and began is not None and ready.origin.weights != began["weights"]:
        raise InputError(
            f"the weights of {began['run']} ({began['checkpoint']}) have changed since the run began, so it "
            "cannot go on to the result it would have had: start a new run with the run's config.toml."
        )


def follow(
    writer: RunWriter, config: RunConfig, ready: Prepared, items: Sequence[WatchedItem], progress: Progress,
    state: dict[str, Any] | None, quiet: bool,
) -> int:  # fmt: skip
    """Train from a state to the end or a stop, and record every epoch."""
    done = 0 if state is None else int(state["epoch"])
    writer.watch(items, config.training.epochs)
    began = {"resumed_after": done} if state is not None else {}
    writer.event("started", pid=os.getpid(), host=platform.node(), epochs=config.training.epochs, **began)
    if state is not None:
        # A crash can lie between a checkpoint and its events.
        said = [(event["event"], event.get("epoch", 0)) for event in RunReader(writer.root).events()]
        pages = journal.read_pages(writer.root / journal.FOLDER, ready.dataset.found.root, max(1, done), done)
        announce(writer, state["record"], said, [entry for page in pages for entry in page.entries])
    ended = "" if state is None else state["record"]["last"]
    with interruptible(progress), ProgressBar(progress, config.training.epochs, done, quiet) as bar:
        bar.say(f"run directory {writer.root}")
        if not ended:
            for epoch in fit(config, ready, resume=state, progress=progress):
                if epoch.trend.warning:
                    warn(writer, epoch.trend.warning, bar.say)
                if epoch.taken is not None:
                    keep(writer, epoch.taken, config, ready.dataset.found.root, bar.say)
                save(writer, epoch, config)
                bar.show(epoch)
                done, ended = epoch.number, epoch.last
    if ended:
        writer.event("finished", epoch=done, reason=ended)
        return 0
    writer.event("stopped", epoch=done, reason=progress.reason)
    print(f"stopped after epoch {done}; go on with: python -m engine.train --resume {writer.root}")
    return 0


def save(writer: RunWriter, epoch: Epoch, config: RunConfig) -> None:
    """Record an epoch: arrays, then checkpoint, then the epoch's line."""
    writer.write_watched(epoch.number, [p for p, _ in epoch.watched], [mask for _, mask in epoch.watched])
    record = epoch_record(epoch, config)
    state = {**epoch.state(), "record": record}
    folder = writer.root / "checkpoints"
    if epoch.best:
        checkpoint.save(folder / "best", state)
    checkpoint.save(folder / "last", state)
    announce(writer, record, (), epoch.taken.entries if epoch.taken is not None else ())


def keep(
    writer: RunWriter, taken: TakenUp, config: RunConfig, root: Path, say: Callable[[str], None]
) -> None:
    """Record what an epoch took up, before anything else of it: the masks, watched truths, new images."""
    for message in taken.said:  # also in the same words, if another version of a file is as wrong
        writer.event("warning", message=message)
        say(f"note: {message}")
    if not taken.entries:
        return
    say(f"epoch {taken.epoch} {taken.words}")
    journal.write_page(writer.root / journal.FOLDER, root, taken.epoch, taken.entries, taken.labels)
    for place, item in taken.items:
        if place < writer.watching:
            writer.write_truth(place, taken.epoch, item)
        else:
            writer.watch([item], config.training.epochs)
    joined = [entry for entry in taken.entries if entry.new]
    if joined:
        info = RunReader(writer.root).info()
        info["dataset"]["images"] += len(joined)
        for entry in joined:
            info["splits"][entry.part].append(entry.case.name)
            info["digests"][entry.part][entry.case.name] = entry.digest
        writer.write_json("run.json", info)


def announce(
    writer: RunWriter, record: dict[str, Any], said: Collection[tuple[str, int]] = (),
    entries: Sequence[journal.Entry] = (),
) -> None:  # fmt: skip
    """Append an epoch's events, but for those that were ``said`` already: (event, epoch)."""
    number = record["epoch"]
    if entries and ("followed", number) not in said:
        writer.event("followed", epoch=number, **event(entries))
    if ("checkpoint", number) not in said:
        writer.event("checkpoint", epoch=number, files=["last", *(["best"] if record["best"] else [])])
    if ("epoch", number) not in said:
        writer.event("epoch", **record)


def epoch_record(epoch: Epoch, config: RunConfig) -> dict[str, Any]:
    """An epoch's line, in plain types."""
    record: dict[str, Any] = plain(
        {
            "epoch": epoch.number,
            "epochs": config.training.epochs,
            "loss": epoch.loss,
            "lr": epoch.lr,
            "recall": epoch.trend.recall,
            "slope": epoch.trend.slope,
            "gamma": epoch.trend.gamma,
            "updated": epoch.trend.updated,
            "warmup": epoch.trend.warmup,
            "added": epoch.trend.added,
            "validation": asdict(epoch.validation) if epoch.validation is not None else None,
            "best": epoch.best,
            "last": epoch.last,
            "seconds": {name: round(value, 4) for name, value in epoch.seconds.items()},
        }
    )
    return record


def identity(config: RunConfig, ready: Prepared) -> dict[str, Any]:
    """run.json, but for the images: what the run is, where and with what it runs."""
    return {
        "format": FORMAT,
        "engine": __version__,
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "host": platform.node(),
        "device": str(ready.device),
        "device_name": device_name(ready.device),
        "processes": ready.ranks.size,
        "precision": str(ready.dtype or "float32").removeprefix("torch."),
        "threads": config.training.threads or torch.get_num_threads(),
        "seed": config.training.seed,
        "parameters": sum(p.numel() for p in ready.network.parameters()),
        "head": config.head(len(ready.dataset.classes.names)),
        "misses_from": misses_from(config),
        "steps": ready.loader.steps,
        "init": None if ready.origin is None else ready.origin.record(),
        "command": ["python", "-m", "engine.train", *sys.argv[1:]],
    }


def images_of(ready: Prepared) -> dict[str, Any]:
    """What run.json says of the images; whole on the first process, where all come to it."""
    names = ready.dataset.names()
    stores = {"train": ready.train, "val": ready.val}
    digests = {part: ready.ranks.merged(store.digests if store else ()) for part, store in stores.items()}
    return {
        "dataset": ready.dataset.summary(),
        "splits": names,
        "digests": {part: dict(zip(names[part], each, strict=False)) for part, each in digests.items()},
    }


def warn(writer: RunWriter, message: str, say: Callable[[str], None] | None = None) -> bool:
    """Note a warning in the run, and show it once."""
    new = writer.warn(message)
    if new:
        (say or (lambda text: print(text, file=sys.stderr)))(f"note: {message}")
    return new


def check_room(config: RunConfig, ready: Prepared, items: Sequence[WatchedItem], out: Path) -> None:
    """Refuse a run that the disk has no room for, at its largest."""
    weights = sum(p.numel() * p.element_size() for p in ready.network.parameters())
    moments = 2 if config.optimizer.name in ("adam", "adamw") else 1
    kept = sum(x.nbytes for x in ready.modulation.state().values() if isinstance(x, torch.Tensor))
    masks = kept * int(ready.loader.frames.prod(dim=1).sum()) // int(ready.train.shapes.prod(dim=1).sum())
    # Last, best, and the one that is being written.
    checkpoints = 3 * (weights * (1 + moments) + masks)
    # Half precision and a byte a pixel; what compression saves is not counted on.
    sizes = [3 * item.truth.size for item in items]
    joining = config.watch.followed * max(sizes, default=0) if config.data.grows else 0
    watched = (sum(sizes) + joining) * config.training.epochs
    free = shutil.disk_usage(out).free
    need = checkpoints + watched + ready.modulation.disk_bytes * ready.ranks.local_size
    if need > free:
        raise InputError(
            f"there is no room on the disk of {out}: the run can need {need / 1e9:.2f} GB "
            f"({watched / 1e9:.2f} of them for watched images) and {free / 1e9:.2f} GB are free; give "
            "another --out, or fewer watch.train and watch.val."
        )


@contextmanager
def interruptible(progress: Progress) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run at the next batch; a second Ctrl-C ends it at once.

    Under torchrun the second does not: it passes the first on to processes that have heard it already, and
    ends them itself if they take too long.
    """
    relayed = "TORCHELASTIC_RUN_ID" in os.environ

    def ask(number: int, frame: FrameType | None) -> None:
        if progress.stop and number == signal.SIGINT and not relayed:
            raise KeyboardInterrupt
        progress.reason = signal.Signals(number).name
        progress.stop = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    run(main)
