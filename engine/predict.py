"""Predict images with a trained run: probability maps and masks at each image's own size.

Each IMAGE is a file, or a folder whose images are all predicted. For NAME.png it writes
NAME_probability.tif (float32, one page a class) and NAME_mask.png; a mask of a TIFF is a TIFF. Masks
of one class are 0 and 255, of several 0 … C. Resolution and calibration are carried over. A --threshold
that promises something of several classes also gives each class its own mask, NAME_mask_CLASS.png.

With --stream OUT, one IMAGE, which may be the folder of a zarr array (H, W) or (H, W, channels) that
does not fit in memory, is predicted tile row by tile row into the folder OUT: probability (zarr,
float32, class × H × W), smaller copies probability_1, probability_2 …, and meta.json. Meanwhile
OUT/progress.json says how far it is, and creating a file OUT/cancel ends it. Several are predicted one
after the other into OUT/NAME1, OUT/NAME2 … .
"""

import os
import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine import decision
from engine.command import Parser, existing, run
from engine.data.decode import ENDINGS, Source
from engine.data.layouts import Case
from engine.data.read import read_image
from engine.decision import Decision
from engine.errors import InputError
from engine.metadata import read_metadata, write_png, write_tiff
from engine.streaming import stream
from engine.threshold_use import said
from engine.thresholds_file import Entry
from engine.trained import Trained


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``python -m engine.predict``."""
    parser = Parser("predict", __doc__ or "")
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files or folders")
    parser.add_argument("--out", type=Path, help="folder for the results (default: RUN/predictions)")
    parser.add_argument("--threshold", metavar="T|RULE", help=decision.HELP)
    parser.add_argument("--checkpoint", help="best, last or a file (default: best if there is a val split)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    parser.add_argument("--tile", type=int, help="longest side predicted at once, px (default: the run's)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    parser.add_argument("--stream", type=Path, metavar="OUT", help="predict images of any size into a folder")
    options = parser.parse_args(arguments)
    options.threshold = decision.given(options.threshold)
    if options.tile is not None and options.tile < 32:
        raise InputError(f"--tile {options.tile} is too small: 32 or more would work.")
    if options.stream is not None:
        return predict_stream(options)
    trained = Trained.open(options.run, options.checkpoint, options.device).tiled(options.tile)
    decided = decision.decide(trained, options.threshold)
    out = options.out or options.run / "predictions"
    # Labels give a pixel to one class, so a promise about each class needs each class's own mask.
    own = trained.classes if decided.guarantees and len(trained.classes) > 1 else ()
    jobs = plan(options.images, out, options.overwrite, own)
    out.mkdir(parents=True, exist_ok=True)
    for image, results in tqdm(jobs.items(), unit="image", desc="predict"):
        p, metadata = predict(trained, image), read_metadata(image)
        with replacing(results[0]) as path:
            write_tiff(path, p, metadata, axes="CYX", names=trained.classes)
        for target, mask in zip(results[1:], masks(trained, p, decided, own), strict=True):
            with replacing(target) as path:
                (write_tiff if target.suffix == ".tif" else write_png)(path, mask, metadata)
    print(f"{len(jobs)} image{'s' * (len(jobs) != 1)} predicted into {out} ({decided.words})")
    if decided.entry is not None:
        say(decided.entry, out, own)
    return 0


def say(entry: Entry, out: Path, own: Sequence[str]) -> None:
    """Print what is promised of the masks, or that nothing is."""
    for words in said(entry):
        print(words)
    if own:
        print(f"The promises are about each class's own mask, {out / 'NAME_mask_CLASS'}, not about labels.")


def masks(
    trained: Trained, p: NDArray[np.float32], decided: Decision, own: Sequence[str]
) -> list[NDArray[np.uint8]]:
    """The mask uint8 (H, W) of an image, and behind it, where wanted, each class's own, 0 and 255."""
    label = trained.label_map(p, decided.threshold)
    if len(trained.classes) == 1:
        return [label * np.uint8(255)]
    each = trained.masks(p, decided.threshold).astype(np.uint8) * np.uint8(255) if own else ()
    return [label, *each]


def predict_stream(options: Namespace) -> int:
    """Predict with ``--stream``. Returns the exit code, 130 after a cancel as after Ctrl-C."""
    for flag in ("out", "threshold"):
        if getattr(options, flag) is not None:
            raise InputError(
                f"--{flag} goes with masks and TIFF files, and --stream writes probabilities as zarr: "
                "leave one of the two out."
            )
    for out, image in streamed(options.images, options.stream).items():
        done = stream(
            options.run, image, out, checkpoint=options.checkpoint, device=options.device,
            tile=options.tile, overwrite=options.overwrite,
        )  # fmt: skip
        print(f"predicted into {out}" if done else "cancelled")
        if not done:
            return 130
    return 0


def streamed(given: Sequence[str], out: Path) -> dict[Path, Path]:
    """Folder → image: `out` itself for one image, else a folder in it of each image's name.

    Raises:
        InputError: two images of one name.
    """
    images = [Path(path).expanduser() for path in given]
    if len(images) == 1:
        return {out: images[0]}
    folders: dict[Path, Path] = {}
    for image in images:
        folder = out / image.stem
        if folder in folders:
            raise InputError(
                f"{folders[folder]} and {image} would both be predicted into {folder}: "
                "predict them one after the other, each with its own --stream."
            )
        folders[folder] = image
    return folders


def predict(trained: Trained, path: Path) -> NDArray[np.float32]:
    """Probabilities float32 (C, H, W) of an image file."""
    image = read_image(Case(name=path.stem, images=(Source(path),), masks=()), trained.channels)
    return trained.probability(image)


def plan(
    given: Sequence[str], out: Path, overwrite: bool, own: Sequence[str] = ()
) -> dict[Path, tuple[Path, ...]]:
    """Each image's results: probability map, mask, and masks of the classes that have one of their own.

    Raises:
        InputError: no images, two results of one name, or results that exist.
    """
    images = [file for path in map(existing, given) for file in listed(path)]
    jobs: dict[Path, tuple[Path, ...]] = {}
    taken: dict[Path, Path] = {}
    for image in dict.fromkeys(images):
        ending = ".tif" if image.suffix.lower() in (".tif", ".tiff") else ".png"
        names = [f"{image.stem}_mask{part}{ending}" for part in ("", *parts(own))]
        results = (out / f"{image.stem}_probability.tif", *(out / name for name in names))
        if results[0] in taken:
            raise InputError(
                f"{taken[results[0]]} and {image} would both be written to {results[0].name}: "
                "predict them one after the other, each with its own --out."
            )
        taken[results[0]] = image
        jobs[image] = results
        there = next((result for result in results if result.exists()), None)
        if there is not None and not overwrite:
            raise InputError(f"{there} exists already: give another --out, or --overwrite.")
    return jobs


def parts(classes: Sequence[str]) -> list[str]:
    """What the names of the classes' own masks end in: the class, or its number where two look alike."""
    safe = [re.sub(r"[^\w.-]+", "-", name) for name in classes]
    return [f"_{name if safe.count(name) == 1 else number}" for number, name in enumerate(safe, start=1)]


def listed(path: Path) -> list[Path]:
    """A file, or the images of a folder in order."""
    if path.is_file():
        return [path]
    images = sorted(item for item in path.iterdir() if item.is_file() and item.suffix.lower() in ENDINGS)
    if not images:
        raise InputError(
            f"the folder {path} holds no images: files ending in {', '.join(sorted(ENDINGS))} are."
        )
    return images


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` if the block succeeds, so that no half-written result is left."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


if __name__ == "__main__":
    run(main)
