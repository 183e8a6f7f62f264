"""Dice on held-out images after training on a few, or on scribbles in them, and from an earlier run.

    python benchmarks/few_images.py FOLDER --side 128 --train 3 --way default few [--scribbles 0.05]
        [--where kind=fluorescence] [--init RUN] [--seed 0] [-- --training.epochs=50 …]

The images of FOLDER (images, masks and index.csv below it or below train and test) are cut to, or with
--shrink resized to, SIDE × SIDE pixels. The first of a shuffled list are trained on, by `python -m
engine.train` in a process of one thread, the last are held out. A way is a preset, or default. Scribbles
leave that share of the pixels labelled, in strokes over foreground and background alike, and 255, which
counts nowhere, on the rest.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.draw import line
from skimage.morphology import dilation, disk

from engine.trained import Trained

HELD = 24
"""Images that are held out, or as many as there are, at most half."""
IGNORED = 255
Pair = tuple[str, NDArray[np.uint8], NDArray[np.uint8]]


def main() -> None:
    arguments, settings = sys.argv[1:], []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, settings = arguments[:cut], arguments[cut + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--where", default="", help="COLUMN=VALUE of index.csv that images must have")
    parser.add_argument("--train", nargs="+", type=int, default=[3])
    parser.add_argument("--way", nargs="+", default=["default", "demo", "few"])
    parser.add_argument("--scribbles", type=float, default=1.0)
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--init", help="run to start from; FOLDER itself if it is trained on too")
    parser.add_argument("--keep", type=Path, help="folder for the runs")
    options = parser.parse_args(arguments)
    for seed in options.seed:
        pairs = chosen(options, seed)
        held = min(HELD, len(pairs) // 2)
        for count in options.train:
            for way in options.way:
                measure(options, pairs[:count], pairs[-held:], way, seed, settings)


def chosen(options: argparse.Namespace, seed: int) -> list[Pair]:
    """The images that take part, in an order of the seed."""
    with (options.folder / "index.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column, _, value = options.where.partition("=")
    rows = [row for row in rows if not column or row[column] == value]
    rows = [row for row in rows if min(int(row["width"]), int(row["height"])) >= options.side]
    order = np.random.default_rng(seed).permutation(len(rows))
    return [pair(options, rows[place]) for place in order[: 100 if len(rows) > 100 else len(rows)]]


def pair(options: argparse.Namespace, row: dict[str, str]) -> Pair:
    """An image (SIDE, SIDE, 3) and its mask (SIDE, SIDE), 0 and 1."""
    file = options.folder / row["image"]
    mask = next((file.parents[1] / "masks").glob(f"{file.stem}.*"))
    side, found = options.side, []
    for path, mode, how in ((file, "RGB", Image.Resampling.BOX), (mask, "L", Image.Resampling.NEAREST)):
        picture = Image.open(path).convert(mode)
        left, top = ((length - side) // 2 for length in picture.size)
        box = (left, top, left + side, top + side)
        found.append(np.asarray(picture.resize((side, side), how) if options.shrink else picture.crop(box)))
    return file.stem, found[0], (found[1] > 0).astype(np.uint8)


def scribbled(mask: NDArray[np.uint8], share: float, seed: int) -> NDArray[np.uint8]:
    """A mask of which but a share is labelled: strokes 3 px wide between random pixels of one class each,
    cut to that class, half of the labelled pixels in either class where there are as many."""
    rng = np.random.default_rng(seed)
    out = np.full_like(mask, IGNORED)
    for value in (0, 1):
        own = np.argwhere(mask == value)
        target = share * mask.size / 2
        while len(own) and (out == value).sum() < min(target, 0.9 * len(own)):
            start = own[rng.integers(len(own))]
            near = own[(np.abs(own - start) <= 15).all(axis=1)]
            stroke = np.zeros(mask.shape, bool)
            stroke[line(*start, *near[rng.integers(len(near))])] = True
            out[dilation(stroke, disk(1)) & (mask == value)] = value
    return out


def measure(
    options: argparse.Namespace, train: list[Pair], held: list[Pair], way: str, seed: int, settings: list[str]
) -> None:  # fmt: skip
    """Train one way, and print Dice of the held-out images."""
    with TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        for name, image, mask in train:
            labels = mask if options.scribbles == 1 else scribbled(mask, options.scribbles, seed)
            for part, array in (("images", image), ("masks", labels)):
                (root / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / part / f"{name}.png")
        run = Path(folder) / "run"
        if options.keep:
            run = options.keep / f"{options.folder.name}-{way}-{len(train)}-{seed}"
        given = ["--quiet", "--data.root", str(root), "--out", str(run), "--training.threads=1"]
        given += [f"--training.seed={seed}", *([] if way == "default" else ["--preset", way])]
        given += ["--init", options.init] if options.init else []
        given += ["--data.classes={ foreground = [1] }", "--data.rest=ignore"] * (options.scribbles < 1)
        began = processor_seconds()
        subprocess.run(
            [sys.executable, "-m", "engine.train", *given, *settings], check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        seconds = processor_seconds() - began
        trained = Trained.open(run, device="cpu")
        seen = slice(trained.channels)  # of gray images the first of three equal ones
        dice = [dice_of(trained.probability(image[..., seen])[0] >= 0.5, mask > 0) for _, image, mask in held]
        lines = [json.loads(text) for text in (run / "events.jsonl").read_text("utf-8").splitlines()]
        epochs = [each["seconds"] for each in lines if each["event"] == "epoch"]
        watched = sum(each["watched"] for each in epochs) / sum(each["epoch"] for each in epochs)
        print(
            f"{options.folder.name} {way} {' '.join(settings)}: {len(train)} images, seed {seed}: "
            f"Dice {np.nanmean(dice):.3f} of {len(held)}, {seconds:.0f} s of CPU, {len(epochs)} epochs "
            f"of {trained.info['steps']} steps, {watched:.0%} of their time for watched images",
            flush=True,
        )


def processor_seconds() -> float:
    """Of all processes that were waited for."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def dice_of(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice; NaN where both are empty."""
    total = int(prediction.sum()) + int(truth.sum())
    return 2 * int((prediction & truth).sum()) / total if total else float("nan")


if __name__ == "__main__":
    main()
