"""Prediction of an image of any size into an OME-Zarr folder that others can watch, tile row by tile row.

The folder is what the predicting process and a viewer share. `docs/run-directory.md` describes it.
"""

import ctypes
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import Any

import psutil

from engine import fingerprint, lock
from engine.data.normalize import white
from engine.data.rows import Rows, open_rows
from engine.disk import is_disk_full, sweep
from engine.errors import InputError
from engine.infer import BUDGET
from engine.streamed import ranges
from engine.streamed.progress import CancelledError, Progress
from engine.streamed.pyramid import Pyramid
from engine.streamed.state import State
from engine.trained import Part, Trained

FORMAT = 1
"""Version of the folder's layout, in meta.json."""
ARRAY = re.compile(r"probability(_\d+)?")
RESULTS = frozenset({"progress.json", "meta.json", "state.json", "zarr.json"})
OTHERS = frozenset({"cancel", "log.txt", "lock", lock.GUARD})
"""What may be in the folder before."""


MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Numbers of malloc.h."""


def give_memory_back() -> bool:
    """Have the C library give freed buffers back to the system at once, for the rest of this process.

    glibc keeps buffers of up to 32 MiB for later and scatters them, which doubles the memory of a
    streamed prediction, and lets it creep up with the image.

    Returns:
        Whether the C library can be told so: that of most Linux systems can.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, 1 << 16) and mallopt(TRIM_THRESHOLD, 1 << 17))


def stream(
    run: Path,
    image: Path,
    out: Path,
    *,
    checkpoint: str | None = None,
    device: str = "auto",
    tile: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    scheduler: str | None = None,
) -> bool:
    """Predict one image into the folder `out`, unless someone creates `cancel` in it.

    Args:
        run: run directory.
        image: a file, or the folder of a zarr array or an OME-Zarr image.
        out: folder for the result; new, empty, or with a `log.txt` and a `cancel`.
        checkpoint, device: as :meth:`Trained.open`.
        tile: longest side predicted at once, in pixels; the run's if None.
        overwrite: whether a result that is in the folder may be replaced.
        resume: whether to go on with a prediction that is in the folder, to the same bits.
        scheduler: address of a dask.distributed scheduler whose workers predict; this process if None.

    Returns:
        Whether it went to the end.

    Raises:
        InputError: a folder that is used, or a run or an image that cannot be; or what is in the folder
            is another prediction than the one to be gone on with; or a full disk.
    """
    if overwrite and resume:
        raise InputError("--overwrite begins anew and --resume goes on: leave one of the two out.")
    with claimed(out, overwrite, resume), reported(out) as progress:
        try:
            trained = Trained.open(run, checkpoint, device).tiled(tile)
            rows = open_rows(image, trained.channels, progress.look, trained.config.data.axes)
            if rows.dims != trained.dims:
                raise InputError(
                    f"{rows.name} has {rows.dims} axes of space, and the run {trained.root} was trained on "
                    f"images of {trained.dims}: data.axes of the run says which axis is which."
                )
            write(trained, rows, out, progress, device, scheduler)
        except CancelledError:
            progress.end("cancelled")
            return False
        except OSError as error:
            if is_disk_full(error):
                raise InputError(
                    f"the disk of {out} is full: free some space and go on with --resume; what was "
                    "predicted is kept."
                ) from error
            raise
        progress.end("finished")
    return True


def write(
    trained: Trained,
    rows: Rows,
    out: Path,
    progress: Progress,
    device: str = "auto",
    scheduler: str | None = None,
) -> None:
    """Predict what is not in the folder yet, a row of chunks after the other, and say last what is there.

    Raises:
        InputError: too little memory, or what is in the folder is another prediction.
    """
    require_memory(trained, rows, psutil.virtual_memory().available)
    progress.begin(ranges.tiles_of(trained, rows))
    pyramid = Pyramid.of(out.resolve(), len(trained.classes), rows.shape[:-1], rows.spacing)
    state = State.begin(pyramid, description(trained, rows, pyramid))
    if state.missing():
        affine = None if trained.resizes(rows) else trained.affine(rows, white(rows.dtype))
        if scheduler is None:
            ranges.predict_here(trained, rows, Part(None, affine, out), state, progress)
        else:
            # Here, for a cluster takes a second to load.
            from engine.streamed import farm

            farm.predict_there(trained, rows, Part(None, affine), state, progress, device, scheduler)
    state.finish()


def description(trained: Trained, rows: Rows, pyramid: Pyramid) -> dict[str, Any]:
    """What meta.json says."""
    made = trained.predicted()
    digests = fingerprint.known_as(rows.bands(), rows.shape, rows.dtype)
    about = {
        "format": FORMAT,
        "run": str(trained.root.resolve()),
        "checkpoint": made.checkpoint,
        "epoch": made.epoch,
        "weights": made.weights,
        "path": made.path,
        "image": rows.name,
        "digest": digests[0],
        "split": next(filter(None, map(trained.seen_in, digests)), None),
        "classes": trained.classes,
        "head": trained.predictor.head,
        "shape": (len(trained.classes), *rows.shape[:-1]),
        "dims": rows.dims,
        "spacing": rows.spacing,
        "dtype": "float32",
        "levels": pyramid.names,
    }
    plain: dict[str, Any] = json.loads(json.dumps(about))  # as it will be read again
    return plain


def require_memory(trained: Trained, rows: Rows, free: float) -> None:
    """Raise InputError if the prediction needs more than the `free` bytes, as far as can be told before.

    What the network itself needs for a tile is not known here.
    """
    *sides, channels = rows.shape
    classes = len(trained.classes)
    if trained.resizes(rows):
        # The image, its float32 copy and that smoothed; the result, and a block of it as it is written.
        needed = prod(sides) * (channels * (rows.dtype.itemsize + 8) + 8 * classes)
        what = f"the run {trained.root} resizes images, which takes {rows.name} as a whole"
        way = "a run without data.size and data.spacing predicts it tile by tile"
    else:
        # A tile: raw and normalised, logits, weighted ones, weights; a block; sums in memory.
        tile = prod(min(length, trained.predictor.tile) for length in sides)
        needed = max(tile * 4 * (3 * channels + 3 * (classes + 1)) + BUDGET, 2 * rows.block)
        what = f"a tile or a chunk of {rows.name}"
        way = "a smaller --tile or smaller chunks of the image would take less"
    if needed > free:
        raise InputError(
            f"{what}: this needs about {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are "
            f"free; {way}."
        )


@contextmanager
def claimed(out: Path, overwrite: bool, resume: bool = False) -> Iterator[None]:
    """The folder, made, emptied or gone on with, for this process alone.

    Raises:
        InputError: it holds a result that may not be replaced, or anything else, or is in use.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"the folder {out} cannot be made: a file is in the way.") from None
    old = refuse_used(out, overwrite or resume)
    mine = lock.take(out)
    try:
        sweep(out)
        if old:
            uncancel(out)
        if old and not resume:
            empty(out)
        if old and resume:
            for chunk in out.rglob("*.partial"):  # of zarr, as what replaces a file of ours is `.*.new`
                chunk.unlink()
        yield
    finally:
        lock.free(out, mine)


def refuse_used(out: Path, overwrite: bool) -> bool:
    """Whether there is an earlier result. Raises InputError if it may not be replaced, or is none of ours."""
    names = {item.name for item in out.iterdir() if not item.name.startswith(".")}
    results = {name for name in names if name in RESULTS or _is_array(out / name)}
    if foreign := sorted(names - results - OTHERS):
        raise InputError(
            f"the folder {out} holds something else ({foreign[0]}): an empty or a new one is needed."
        )
    if results and not overwrite:
        raise InputError(
            f"the folder {out} holds a prediction: give another, or --overwrite; --resume goes on with one "
            "that was not finished."
        )
    return bool(results)


def uncancel(out: Path) -> None:
    """Remove a `cancel` that was meant for an earlier process, not for the one that begins."""
    last = max(((out / name).stat().st_mtime_ns for name in RESULTS if (out / name).exists()), default=0)
    with suppress(FileNotFoundError):
        if (out / "cancel").stat().st_mtime_ns <= last:
            (out / "cancel").unlink()


def empty(out: Path) -> None:
    """Remove an earlier result."""
    for item in list(out.iterdir()):
        if _is_array(item):
            shutil.rmtree(item)
        elif item.name in RESULTS:
            item.unlink()


def _is_array(path: Path) -> bool:
    return ARRAY.fullmatch(path.name) is not None


@contextmanager
def reported(out: Path) -> Iterator[Progress]:
    """Progress that says how the block ends, unless that says it itself."""
    progress = Progress(out)
    progress.write("running")
    try:
        yield progress
    except KeyboardInterrupt:
        progress.end("cancelled")
        raise
    except BaseException as error:
        # The first failure is what the user must see, so a full disk while noting it is let pass.
        with suppress(OSError):
            progress.end("failed", (str(error) or type(error).__name__).splitlines()[0])
        raise
