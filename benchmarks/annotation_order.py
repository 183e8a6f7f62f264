"""Dice against the number of annotated images, for images taken as suggested and taken at random.

    python benchmarks/annotation_order.py DSB2018 --out FOLDER [--orders varied random] [--seeds 5]
        [--result FILE.md] [--figure FILE.png]

DSB2018 is the folder of the 2018 Data Science Bowl's nuclei, in any layout that training recognises. All
images are resized to 128². A fifth of the images of each kind (fluorescence, colour, bright field) and size
are kept apart for the test. The others are the pool. A seed draws the first images; from these a U-Net is
trained from scratch. Then each order chooses the next images of the pool by what that network predicts of
them, the network is trained anew, from scratch, on all that were chosen, and so on. Every training takes the
same number of steps, whatever the number of images, with the same settings. Truth is seen of chosen images
only. The test images are scored by nobody's choice.

What is done is kept in FOLDER/results.jsonl, a line a training; a killed benchmark goes on from there, and
orders may be added later. Trainings are repeatable, so the same command gives the same numbers on a machine.

The test is paired over seeds, as both orders begin with the same images: two-sided t-test of the mean Dice
over all numbers of images after the first.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from torch import Tensor

from engine import metrics
from engine.config import Layer, RunConfig, resolve
from engine.data import store
from engine.data.dataset import Dataset
from engine.figures.page import legend_below, page, plot_axes, save
from engine.figures.strokes import band_opacity, stroke
from engine.infer import Predictor
from engine.loop import fit
from engine.prepare import prepare
from engine.suggestion import Seen, appearance, candidate, ranked
from engine.suggestion.specs import Order, Random
from engine.suggestions_file import DEFAULT, ORDERS

SIDE = 128
TEST_SHARE = 0.2
BATCH = 32
KINDS = ("fluorescence", "colour", "bright field")
Floats = NDArray[np.float64]
Line = dict[str, Any]


def main() -> None:
    """Train what is missing, then print, and write, what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DSB2018")
    parser.add_argument("--out", type=Path, required=True, help="folder for resized images and results")
    parser.add_argument("--orders", nargs="+", default=[DEFAULT, "random"], choices=ORDERS)
    parser.add_argument("--numbers", nargs="+", type=int, default=[4, 8, 16, 32], help="of images")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--passes", type=int, default=576, help="images (with repeats) seen by a training")
    parser.add_argument("--width", type=int, default=8, help="base width of the U-Net")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--only-report", action="store_true", help="train nothing")
    parser.add_argument("--result", type=Path, help="markdown file to write")
    parser.add_argument("--figure", type=Path, help="PNG file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    lines = Lines(options.out / "results.jsonl", settings(options))
    if not options.only_report:
        small = resized_copy(options.data, options.out / "images")
        bench = Bench.open(small, options)
        for order in options.orders:
            for seed in seeds:
                Curve(bench, lines, order, seed, options.numbers).run()
    result = Result.of(lines.read(), options.orders, seeds, options.numbers)
    text = markdown(result, options)
    print(text)
    if options.result is not None:
        options.result.write_text(text, "utf-8")
    if options.figure is not None:
        draw(result, options.figure)


def settings(options: argparse.Namespace) -> Line:
    """What all lines of a results file must agree in."""
    return {"passes": options.passes, "width": options.width, "lr": options.lr, "side": SIDE}


@dataclass(frozen=True)
class Lines:
    """results.jsonl: first the settings, then a line a training."""

    path: Path
    settings: Line

    def read(self) -> list[Line]:
        """The lines of trainings, those of other settings refused; half a last line is cut off."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.settings) + "\n")
        whole = [text for text in self.path.read_text().splitlines(keepends=True) if text.endswith("\n")]
        first, *others = map(json.loads, whole)
        if first != self.settings:
            sys.exit(f"{self.path} is of {first}, and this is {self.settings}: another --out would work.")
        return others

    def find(self, order: str, seed: int, number: int) -> Line | None:
        """The line of a training, if it is done."""
        key = (order, seed, number)
        return next((x for x in self.read() if (x["order"], x["seed"], x["number"]) == key), None)

    def add(self, line: Line) -> None:
        """Append a line, whole or not at all, as seen by :meth:`read`."""
        kept = [json.dumps(each) + "\n" for each in (self.settings, *self.read(), line)]
        new = self.path.with_suffix(".new")
        new.write_text("".join(kept))
        new.replace(self.path)


def resized_copy(root: Path, out: Path) -> Path:
    """The data set as images/ID.png and masks/ID.png of SIDE², with a list of kinds and sizes, made once."""
    table = out / "kinds.json"
    if table.exists():
        return out
    dataset = Dataset.open(resolve([Layer("benchmark", {"data": {"root": str(root)}})])[0].data)
    kinds = {}
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for sample in dataset.some(range(len(dataset.found.cases))):
        image = store.resized(sample.image, (SIDE, SIDE), labels=False)
        mask = store.resized(sample.labels, (SIDE, SIDE), labels=True)
        Image.fromarray(image).save(out / "images" / f"{sample.name}.png")
        Image.fromarray((mask > 0).astype(np.uint8) * 255).save(out / "masks" / f"{sample.name}.png")
        kinds[sample.name] = [kind_of(sample.image), *sample.image.shape[:2]]
    table.write_text(json.dumps(kinds))
    return out


def kind_of(image: NDArray[Any]) -> str:
    """Fluorescence, colour or bright field, by channels and brightness, of (H, W, 3) uint8."""
    if (image != image[..., :1]).any():
        return "colour"
    return "bright field" if np.median(image) > 127 else "fluorescence"


@dataclass(frozen=True)
class Bench:
    """Images, and how a network is trained on some of them.

    Attributes:
        dataset: all resized images.
        kinds: of each image, its kind, height and width.
        options: of the command line.
        image: normalised, float32 (N, channels, SIDE, SIDE).
        truth: bool (N, 1, SIDE, SIDE).
    """

    dataset: Dataset
    kinds: list[tuple[str, int, int]]
    options: argparse.Namespace
    image: Tensor
    truth: Tensor

    @classmethod
    def open(cls, root: Path, options: argparse.Namespace) -> "Bench":
        """Decode all images."""
        dataset = Dataset.open(config(root, options, 4, 0).data)
        count = len(dataset.found.cases)
        filled = store.fill(dataset.some(range(count)), 1, dataset.data, None)
        frames = filled.read(
            filled.whole(range(count)), torch.zeros(count, dtype=torch.int64), torch.device("cpu")
        )
        kinds = json.loads((root / "kinds.json").read_text())
        return cls(
            dataset, [tuple(kinds[case.name]) for case in dataset.found.cases], options, frames.image,
            frames.truth,
        )  # fmt: skip

    @cached_property
    def test(self) -> list[int]:
        """Images kept apart: the same share of each kind and size."""
        rng = np.random.default_rng(2018)
        groups: dict[tuple[str, int, int], list[int]] = {}
        for index, kind in enumerate(self.kinds):
            groups.setdefault(kind, []).append(index)
        chosen = [
            rng.permutation(groups[key])[: round(TEST_SHARE * len(groups[key]))] for key in sorted(groups)
        ]
        return sorted(int(index) for part in chosen for index in part)

    @cached_property
    def pool(self) -> list[int]:
        """All other images."""
        kept = set(self.test)
        return [index for index in range(len(self.kinds)) if index not in kept]

    @cached_property
    def looks(self) -> Floats:
        """Appearance of all images."""
        return np.stack([appearance(image.permute(1, 2, 0).numpy()) for image in self.image])

    def name(self, index: int) -> str:
        """Of an image."""
        return self.dataset.found.cases[index].name

    def train(self, chosen: Sequence[int], seed: int) -> Predictor:
        """A network trained from scratch on some images."""
        splits = {"train": tuple(chosen), "val": (), "calib": (), "test": ()}
        made = config(Path(self.dataset.data.root), self.options, len(chosen), seed)
        ready = prepare(made, replace(self.dataset, splits=splits))
        for _ in fit(made, ready):
            pass
        return ready.predictor

    def predict(self, predictor: Predictor, chosen: Sequence[int]) -> NDArray[np.float32]:
        """Probabilities float32 (n, 1, SIDE, SIDE) of some images."""
        parts = [chosen[first : first + BATCH] for first in range(0, len(chosen), BATCH)]
        return np.concatenate([predictor.probability(self.image[list(part)]).numpy() for part in parts])

    def dice(self, predictor: Predictor) -> Floats:
        """Dice of each test image at T = 0.5."""
        masks = torch.from_numpy(self.predict(predictor, self.test) >= 0.5)
        return np.asarray(metrics.dice(metrics.confusion(masks, self.truth[self.test]))[:, 0].numpy())

    def choose(self, order: Order, predictor: Predictor | None, known: list[int], count: int) -> list[int]:
        """The next images of the pool."""
        free = [index for index in self.pool if index not in set(known)]
        nothing = np.zeros((1, SIDE, SIDE), np.float32)
        p = [nothing] * len(free) if predictor is None else self.predict(predictor, free)
        seen = [
            Seen.cut(self.name(index), each, (0.5,), ("nucleus",))
            for index, each in zip(free, p, strict=True)
        ]
        found = ranked(
            order, [candidate(order, each, 0) for each in seen], self.looks[free], self.looks[known]
        )
        places = {self.name(index): index for index in free}
        return [places[each.image] for each in found[:count]]


def config(root: Path, options: argparse.Namespace, images: int, seed: int) -> RunConfig:
    """The settings of a training: so many passes over images, whatever their number."""
    if options.passes % images:
        sys.exit(f"--passes {options.passes} is no multiple of {images} images: trainings would differ.")
    given = {
        "data": {"root": str(root), "patch": SIDE},
        "model": {"name": "unet", "base_width": options.width, "depth": 4},
        "modulation": {"name": "none"},
        "training": {
            "epochs": options.passes // images, "batch_size": 4, "seed": seed, "device": "cpu", "threads": 1
        },
        "optimizer": {"name": "adam", "lr": options.lr},
        "schedule": {"name": "linear"},
        "watch": {"train": 0, "val": 0},
    }  # fmt: skip
    return resolve([Layer("benchmark", given)])[0]


@dataclass(frozen=True)
class Curve:
    """One order with one seed."""

    bench: Bench
    lines: Lines
    order: str
    seed: int
    numbers: Sequence[int]

    def run(self) -> None:
        """Train for each number of images, but for what is done already."""
        rng = np.random.default_rng(self.seed)
        pool = self.bench.pool
        chosen = [pool[place] for place in rng.permutation(len(pool))[: self.numbers[0]]]
        spec = ORDERS[self.order]
        order = spec(seed=self.seed) if issubclass(spec, Random) else spec()
        predictor: Predictor | None = None
        for step, number in enumerate(self.numbers):
            name = "start" if step == 0 else self.order
            if step > 0:
                done = self.lines.find(name, self.seed, number)
                if done is not None:
                    places = {self.bench.name(index): index for index in pool}
                    chosen, predictor = [places[each] for each in done["images"]], None
                    continue
                if predictor is None and self.order != "random":
                    predictor = self.bench.train(chosen, self.seed)
                assert isinstance(order, Order)
                chosen = chosen + self.bench.choose(order, predictor, chosen, number - len(chosen))
            elif self.lines.find(name, self.seed, number) is not None:
                continue
            predictor = self._train(name, chosen)

    def _train(self, name: str, chosen: list[int]) -> Predictor:
        began = time.perf_counter()
        predictor = self.bench.train(chosen, self.seed)
        dice = self.bench.dice(predictor)
        kinds = np.array([self.bench.kinds[index][0] for index in self.bench.test])
        line = {
            "order": name, "seed": self.seed, "number": len(chosen), "dice": float(np.nanmean(dice)),
            "kinds": {kind: float(np.nanmean(dice[kinds == kind])) for kind in KINDS},
            "chosen": {kind: sum(self.bench.kinds[i][0] == kind for i in chosen) for kind in KINDS},
            "images": [self.bench.name(index) for index in chosen],
            "seconds": time.perf_counter() - began,
        }  # fmt: skip
        self.lines.add(line)
        shown = {key: value for key, value in line.items() if key != "images"}
        print(json.dumps(shown), file=sys.stderr, flush=True)
        return predictor


@dataclass(frozen=True)
class Result:
    """Dice and more of all trainings.

    Attributes:
        orders: names.
        numbers: of images.
        seeds: those of which all trainings are done.
        lines: order → (seeds, numbers) lines of results.jsonl.
    """

    orders: tuple[str, ...]
    numbers: tuple[int, ...]
    seeds: tuple[int, ...]
    lines: Mapping[str, list[list[Line]]]

    @classmethod
    def of(
        cls, lines: Sequence[Line], orders: Sequence[str], seeds: Sequence[int], numbers: Sequence[int]
    ) -> "Result":
        """Take what belongs together."""
        known = {(line["order"], line["seed"], line["number"]): line for line in lines}

        def row(order: str, seed: int) -> list[Line | None]:
            names = ["start", *[order] * (len(numbers) - 1)]
            return [known.get((name, seed, number)) for name, number in zip(names, numbers, strict=True)]

        whole = [seed for seed in seeds if all(None not in row(order, seed) for order in orders)]
        if not whole:
            sys.exit("no seed is done yet for all orders.")
        found = {
            order: [[line for line in row(order, seed) if line is not None] for seed in whole]
            for order in orders
        }
        return cls(tuple(orders), tuple(numbers), tuple(whole), found)

    def values(self, order: str, kind: str = "") -> Floats:
        """Dice in %, (seeds, numbers), of all test images or of a kind."""
        return np.array(
            [
                [100 * (line["kinds"][kind] if kind else line["dice"]) for line in row]
                for row in self.lines[order]
            ]
        )

    def share(self, order: str, kind: str) -> Floats:
        """Mean number of chosen images of a kind, (numbers,)."""
        return np.array([[line["chosen"][kind] for line in row] for row in self.lines[order]]).mean(axis=0)


def paired(one: Floats, other: Floats) -> tuple[float, float, float, float]:
    """Mean difference over seeds, its 95 % interval, and p of the paired t-test; NaN for one seed."""
    difference = one - other
    if len(difference) < 2 or not difference.std():
        return float(difference.mean()), np.nan, np.nan, np.nan
    found = stats.ttest_rel(one, other)
    interval = found.confidence_interval(0.95)
    return float(difference.mean()), float(interval.low), float(interval.high), float(found.pvalue)


def markdown(result: Result, options: argparse.Namespace) -> str:
    """Tables."""
    head = ["order", *(f"{number} images" for number in result.numbers), "mean after the first"]
    rows = [row_of(result, order) for order in result.orders]
    text = [
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, 1 thread, Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {np.__version__}; seeds {', '.join(map(str, result.seeds))}.",
        f"U-Net of base width {options.width}, from scratch, {options.passes} image passes "
        f"({options.passes // 4} steps of 4) a training, Adam {options.lr:g} decayed linearly, flips and "
        f"quarter turns; {SIDE}².",
        "",
        "Mean Dice over the test images in %, mean ± standard deviation over seeds.",
        "",
        table(head, rows),
        "",
    ]
    text += [*comparisons(result), "The unluckiest seed of each:", ""]
    rows = [[order, *(f"{low:.2f}" for low in result.values(order).min(axis=0))] for order in result.orders]
    text += [table(head[:-1], rows), ""]
    for kind in KINDS:
        rows = [[order, *cells(result.values(order, kind))] for order in result.orders]
        text += [f"Test images of {kind} alone:", "", table(head[:-1], rows), ""]
        text += comparisons(result, kind)
    rows = [
        [
            order,
            *(
                " / ".join(f"{result.share(order, kind)[place]:.1f}" for kind in KINDS)
                for place in range(len(result.numbers))
            ),
        ]
        for order in result.orders
    ]
    text += [f"Images chosen, mean over seeds: {' / '.join(KINDS)}.", "", table(head[:-1], rows), ""]
    return "\n".join(text)


def row_of(result: Result, order: str) -> list[str]:
    """An order's line."""
    values = result.values(order)
    return [order, *cells(values), *cells(values[:, 1:].mean(axis=1, keepdims=True))]


def cells(values: Floats) -> list[str]:
    """Mean ± standard deviation over seeds of (seeds, n)."""
    if len(values) < 2:
        return [f"{value:.2f}" for value in values[0]]
    return [f"{column.mean():.2f} ± {column.std(ddof=1):.2f}" for column in values.T]


def comparisons(result: Result, kind: str = "") -> list[str]:
    """Each order against random, and an empty line; nothing where there is no random order."""
    others = [order for order in result.orders if order != "random"]
    lines = [comparison(result, order, kind) for order in others if "random" in result.orders]
    return [*lines, ""] if lines else []


def comparison(result: Result, order: str, kind: str = "") -> str:
    """An order against random, in words."""
    one, other = result.values(order, kind), result.values("random", kind)
    mean, low, high, p = paired(one[:, 1:].mean(axis=1), other[:, 1:].mean(axis=1))
    each = [
        f"{number}: {difference:+.2f} (p {chance:.2g})"
        for number, (difference, _, _, chance) in zip(
            result.numbers[1:],
            (paired(one[:, place], other[:, place]) for place in range(1, len(result.numbers))),
            strict=True,
        )
    ]
    return (
        f"- **{order} − random**: {mean:+.2f} points over all numbers after the first (95 % interval "
        f"{low:+.2f} to {high:+.2f}, paired t-test over {len(result.seeds)} seeds, p = {p:.2g}); "
        f"by number of images {'; '.join(each)}."
    )


def called(order: str) -> str:
    """An order in the figure's legend."""
    return f"suggested ({order})" if order == DEFAULT else order


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def draw(result: Result, path: Path) -> None:
    """Dice against the number of images, mean and standard deviation over seeds, of all and of two kinds."""
    panels = {"": "all test images", KINDS[0]: KINDS[0], KINDS[1]: "colour (histology)"}
    figure = page(7.2, 2.7, "Dice against annotated images, 2018 Data Science Bowl")
    for axes, (kind, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for place, order in enumerate(result.orders):
            values = result.values(order, kind)
            mean = values.mean(axis=0)
            axes.plot(result.numbers, mean, marker="o", markersize=3, **stroke(place))
            if len(values) > 1:
                sd = values.std(axis=0, ddof=1)
                opacity = band_opacity(len(result.orders))
                axes.fill_between(
                    result.numbers,
                    mean - sd,
                    mean + sd,
                    color=stroke(place)["color"],
                    alpha=opacity,
                    linewidth=0,
                )
        plot_axes(axes, title, "Dice in %")
        axes.set_xlabel("annotated images", fontsize=8)
        axes.xaxis.set_major_locator(FixedLocator(list(result.numbers)))
    handles = [
        Line2D([], [], label=called(order), marker="o", markersize=3, **stroke(place))
        for place, order in enumerate(result.orders)
    ]
    legend_below(figure, handles)
    save(figure, path)


if __name__ == "__main__":
    main()
