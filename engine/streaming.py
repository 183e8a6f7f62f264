"""Prediction of an image of any size into a folder that others can watch, tile row by tile row.

The folder is what the predicting process and a viewer share. `docs/run-directory.md` describes it.
"""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np
import psutil
import zarr
from numpy.typing import NDArray
from tqdm import tqdm

from engine import fingerprint, lock
from engine.data.rows import Rows, open_rows
from engine.disk import replace_text, sweep
from engine.errors import InputError
from engine.tiles import Box
from engine.trained import Trained

FORMAT = 1
"""Version of the folder's layout, in meta.json."""
CHUNK = 512
"""Height and width of the arrays' chunks, in pixels."""
LONGEST = 4096
"""The longest side, in pixels, that needs no smaller copy: graphics cards draw such an array whole."""
SECONDS = 0.25
"""Between two writings of progress.json."""
ARRAY = re.compile(r"probability(_\d+)?")
RESULTS = frozenset({"progress.json", "meta.json"})
OTHERS = frozenset({"cancel", "log.txt", "lock", lock.GUARD})
"""What may be in the folder before."""

State = Literal["running", "finished", "cancelled", "failed"]
Parts = Iterable[tuple[Box, NDArray[np.float32]]]


class CancelledError(Exception):
    """Someone created `cancel`."""


class Progress:
    """The folder's progress.json and `cancel`, and a bar on a terminal."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._done = self._tiles = 0
        self._written = -math.inf
        self._bar: tqdm[Any] | None = None

    def begin(self, tiles: int) -> None:
        """Announce the number of tiles."""
        self._tiles = tiles
        self._bar = tqdm(total=tiles, unit="tile", desc="predict", disable=None)
        self.write("running")

    def tick(self) -> None:
        """A tile is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        if monotonic() - self._written >= SECONDS:
            # A reader that has the file open just now, as Windows sees it, must not end the work.
            with suppress(PermissionError):
                self.write("running")
        self.look()

    def look(self) -> None:
        """Raise CancelledError if there is a `cancel`."""
        if (self._out / "cancel").exists():
            raise CancelledError

    def write(self, state: State, message: str = "") -> None:
        """Replace progress.json."""
        content = {"state": state, "done": self._done, "tiles": self._tiles, "message": message}
        replace_text(self._out / "progress.json", json.dumps(content) + "\n", durable=False)
        self._written = monotonic()

    def end(self, state: State, message: str = "") -> None:
        """Write how it ended, and close the bar."""
        if self._bar is not None:
            self._bar.close()
        self.write(state, message)


def stream(
    run: Path,
    image: Path,
    out: Path,
    *,
    checkpoint: str | None = None,
    device: str = "auto",
    tile: int | None = None,
    overwrite: bool = False,
) -> bool:
    """Predict one image into the folder `out`, unless someone creates `cancel` in it.

    Args:
        run: run directory.
        image: a file, or the folder of a zarr array.
        out: folder for the result; new, empty, or with a `log.txt` and a `cancel`.
        checkpoint, device: as :meth:`Trained.open`.
        tile: longest side predicted at once, in pixels; the run's if None.
        overwrite: whether a result that is in the folder may be replaced.

    Returns:
        Whether it went to the end.

    Raises:
        InputError: a folder that is used, or a run or an image that cannot be.
    """
    with claimed(out, overwrite), reported(out) as progress:
        try:
            trained = Trained.open(run, checkpoint, device).tiled(tile)
            rows = open_rows(image, trained.channels, progress.look)
            write(trained, rows, out, progress)
        except CancelledError:
            progress.end("cancelled")
            return False
        progress.end("finished")
    return True


def write(trained: Trained, rows: Rows, out: Path, progress: Progress) -> None:
    """Predict, make the smaller copies, and say last what is there."""
    shape = (len(trained.classes), *rows.shape[:-1])
    made = trained.predicted()
    progress.begin(trained.predictor.count(trained.frame(rows)))
    split = split_of(trained, rows)
    fill(allocate(out / "probability", shape), probabilities(trained, rows, progress))
    levels = shrink(out, progress.look)
    meta = {
        "format": FORMAT,
        "run": str(trained.root.resolve()),
        "checkpoint": made.checkpoint,
        "epoch": made.epoch,
        "weights": made.weights,
        "path": made.path,
        "image": rows.name,
        "split": split,
        "classes": trained.classes,
        "head": trained.predictor.head,
        "shape": shape,
        "dtype": "float32",
        "levels": levels,
    }
    replace_text(out / "meta.json", json.dumps(meta, indent=2) + "\n")


def split_of(trained: Trained, rows: Rows) -> Literal["train", "val"] | None:
    """The split of the run that has an image of the same pixels, as far as the run knows."""
    if not trained.knows_images:
        return None
    return trained.seen_in(fingerprint.image_of(rows.bands(), rows.shape, rows.dtype))


def probabilities(trained: Trained, rows: Rows, progress: Progress) -> Parts:
    """What :meth:`Trained.probability` gives for the image, float32 (C, rows, W) from top to bottom.

    Raises:
        InputError: the image, or as much of it as is needed at once, does not fit in memory.
    """
    require_memory(trained, rows, psutil.virtual_memory().available)
    yield from trained.probabilities(rows, progress.tick)


def require_memory(trained: Trained, rows: Rows, free: float) -> None:
    """Raise InputError if the prediction needs more than the `free` bytes, as far as can be told before.

    What the network itself needs for a tile is not known here.
    """
    height, width, channels = rows.shape
    classes = len(trained.classes)
    if trained.config.data.size is not None:
        # The image, its float32 copy and that smoothed; the result, and its rows as they are written.
        needed = height * width * (channels * (rows.dtype.itemsize + 8) + 8 * classes)
        what = f"the run {trained.root} resizes images, which takes {rows.name} as a whole"
        way = "a run without data.size predicts it tile by tile"
    else:
        tall = min(height, trained.predictor.tile)
        # A row of tiles: raw and normalised, summed logits, weights, probabilities, rows not yet written.
        band = tall * width * 4 * (3 * channels + 5 * (classes + 1))
        needed = max(band, 2 * rows.block)
        what = f"a row of tiles or of chunks of {rows.name}"
        way = "a smaller --tile or smaller chunks of the image would take less"
    if needed > free:
        raise InputError(
            f"{what}: this needs about {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are "
            f"free; {way}."
        )


def allocate(path: Path, shape: tuple[int, ...]) -> "zarr.Array[Any]":
    """An array float32 (C, H, W) of zeros, in chunks of all classes."""
    return zarr.create_array(
        store=path, shape=shape, chunks=(shape[0], *(min(CHUNK, length) for length in shape[1:])),
        dtype="float32", fill_value=0.0, zarr_format=3, dimension_names=("c", "y", "x"),
    )  # fmt: skip


def fill(array: "zarr.Array[Any]", parts: Parts) -> None:
    """Write blocks, each of which is a chunk."""
    for box, p in parts:
        array[(slice(None), *box)] = p


def shrink(out: Path, look: Callable[[], None]) -> list[str]:
    """Write copies `probability_1`, `probability_2` … of half the size each, until none is too long.

    A pixel is the mean of the 2 × 2 above it, or of those that there are at an odd end. `look` is
    called before each chunk.

    Returns:
        The names of all arrays, the largest first.
    """
    names = ["probability"]
    large = zarr.open_array(out / "probability", mode="r")
    while max(large.shape[1:]) > LONGEST:
        classes, height, width = large.shape
        names.append(f"probability_{len(names)}")
        small = allocate(out / names[-1], (classes, -(-height // 2), -(-width // 2)))
        for top in range(0, height, 2 * CHUNK):
            for left in range(0, width, 2 * CHUNK):
                look()
                block = np.asarray(large[:, top : top + 2 * CHUNK, left : left + 2 * CHUNK])
                half = halved(block)
                small[:, top // 2 : top // 2 + half.shape[1], left // 2 : left // 2 + half.shape[2]] = half
        large = small
    return names


def halved(p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of 2 × 2 pixels, (C, H, W) → (C, ⌈H/2⌉, ⌈W/2⌉); an odd end is repeated."""
    _, height, width = p.shape
    even = np.pad(p, [(0, 0), (0, height % 2), (0, width % 2)], mode="edge")
    rows = even[:, ::2] + even[:, 1::2]
    return np.asarray((rows[:, :, ::2] + rows[:, :, 1::2]) / np.float32(4))


@contextmanager
def claimed(out: Path, overwrite: bool) -> Iterator[None]:
    """The folder, made or emptied, for this process alone.

    Raises:
        InputError: it holds a result that may not be replaced, or anything else, or is in use.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"the folder {out} cannot be made: a file is in the way.") from None
    old = refuse_used(out, overwrite)
    mine = lock.take(out)
    try:
        sweep(out)
        if old:
            empty(out)
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
        raise InputError(f"the folder {out} holds a prediction: give another, or --overwrite.")
    return bool(results)


def empty(out: Path) -> None:
    """Remove an earlier result, and with it a `cancel` that was meant for it, not for what begins."""
    last = max(((out / name).stat().st_mtime_ns for name in RESULTS if (out / name).exists()), default=0)
    for item in list(out.iterdir()):
        if _is_array(item):
            shutil.rmtree(item)
        elif item.name in RESULTS or (item.name == "cancel" and item.stat().st_mtime_ns <= last):
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
