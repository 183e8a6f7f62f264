"""Score trained runs on their test images, print the table and save it with figures.

Writes RUN/report/test.csv (a row an image and class), test.json (means) and PNG figures: training
curves, test images with false negatives and false positives, and the masks as they grew. Several
runs are printed as one table, a row a run.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from engine import figures, metrics, tables
from engine.command import Parser, run
from engine.data.dataset import Dataset
from engine.data.split import SPLITS
from engine.data.store import Sample, framed
from engine.errors import InputError
from engine.record import RunReader, plain
from engine.tables import METRICS, Mean
from engine.trained import Trained

PANELS = 4
"""Test images in the figure: the two worst, the median and the best."""
BACKGROUND = "background"


@dataclass(frozen=True)
class Scored:
    """One test image with its prediction and scores.

    Attributes:
        name: of the image.
        scores: metric → float64 (C + 1,), the last for background; NaN where not defined.
    """

    name: str
    scores: dict[str, NDArray[np.float64]]


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``python -m engine.evaluate``."""
    parser = Parser("evaluate", __doc__ or "")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument("--split", default="test", choices=SPLITS, help="images to score (default: test)")
    parser.add_argument(
        "--size", default="native", choices=("native", "trained"),
        help="score at the images' own size, or at the size the network saw, as papers do (default: native)",
    )  # fmt: skip
    parser.add_argument("--threshold", type=float, help="T in p ≥ T; without it 0.5, or argmax (softmax)")
    parser.add_argument("--checkpoint", help="best, last or a file (default: best if there is a val split)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    parser.add_argument("--no-figures", action="store_true", help="leave out the figures")
    options = parser.parse_args(arguments)
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise InputError(f"--threshold {options.threshold} is no probability: 0 to 1 would work.")
    rows, rules = [], set()
    undefined: dict[Path, str] = {}
    for root in options.runs:
        trained = Trained.open(root, options.checkpoint, options.device)
        dataset = Dataset.open(trained.config.data, trained.info["splits"])
        if not dataset.splits[options.split]:
            raise InputError(
                f"the run {root} has no {options.split} images: try --split "
                f"{next(name for name in SPLITS if dataset.splits[name])}."
            )
        scored = score(trained, dataset, options.split, options.size == "native", options.threshold)
        summary = summarise(scored, trained.classes)
        rules.add(trained.rule(options.threshold))
        write(trained, scored, summary, options)
        if not options.no_figures:
            draw(trained, dataset, scored, options)
        rows += table_rows(root, trained, summary)
        if skipped := skipped_images(summary):
            undefined[root] = skipped
    images = f"{options.split} split, {options.size} size, decision {' / '.join(sorted(rules))}"
    print(f"\n{images}; mean ± half of the 95 % interval over images, in %")
    titles = [f"{title} {'↑' if more else '↓'}" for title, more in METRICS.values()]
    print(tables.text(["run", "images", *titles], rows))
    for root, entries in undefined.items():
        print(f"{root.name}: not defined, and left out: {entries}")
    return 0


def score(
    trained: Trained, dataset: Dataset, split: str, native: bool, threshold: float | None
) -> list[Scored]:
    """Predict and score every image of a split, each at one size."""
    scored = []
    samples = tqdm(
        dataset.samples(split), total=len(dataset.splits[split]), desc=trained.root.name, unit="image",
        leave=False, disable=not sys.stderr.isatty(),
    )  # fmt: skip
    for sample in samples:
        prediction, truth, valid = predicted(trained, sample, native, threshold)
        scored.append(Scored(sample.name, scores(prediction, truth, valid)))
    return scored


def predicted(
    trained: Trained, sample: Sample, native: bool, threshold: float | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Predicted masks, true masks, both bool (C, H, W), and valid pixels bool (H, W)."""
    p = trained.probability(sample.image, native=native)
    labels, valid = framed(sample, None if native else trained.config.data.size)
    truth = (labels == np.arange(1, len(trained.classes) + 1)[:, None, None]) & valid
    return trained.masks(p, threshold), truth, valid


def scores(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], valid: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """Every metric of one image, for each class and, last, for the background."""
    both = [
        torch.from_numpy(np.concatenate([masks, ~masks.any(axis=0, keepdims=True)]))[None]
        for masks in (prediction, truth)
    ]
    inside = torch.from_numpy(valid)[None, None]
    count = metrics.confusion(*both, valid=inside)
    table = {name: getattr(metrics, name)(count)[0].numpy() for name in METRICS if name != "cldice"}
    # The background has no skeleton of interest.
    classes = metrics.cldice(*(masks[:, :-1] for masks in both), valid=inside)[0].numpy()
    table["cldice"] = np.append(classes, np.nan)
    return table


def summarise(scored: Sequence[Scored], classes: Sequence[str]) -> dict[str, dict[str, Mean]]:
    """Class → metric → mean over images; "mean" is over each image's foreground classes, and
    "mean with background" over all."""
    summary: dict[str, dict[str, Mean]] = {}
    columns = [*classes, BACKGROUND]
    for name in METRICS:
        values = np.stack([image.scores[name] for image in scored])
        for column, label in enumerate(columns):
            summary.setdefault(label, {})[name] = tables.mean(values[:, column])
        summary.setdefault("mean", {})[name] = tables.mean(_nanmean(values[:, :-1]))
        summary.setdefault("mean with background", {})[name] = tables.mean(_nanmean(values))
    return summary


def _nanmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean along the classes, NaN where no class has a value."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=1)
    total = np.where(defined, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def table_rows(root: Path, trained: Trained, summary: dict[str, dict[str, Mean]]) -> list[list[str]]:
    """The run's lines in the printed table: the mean, and each class where there are several."""
    labels = ["mean", *(trained.classes if len(trained.classes) > 1 else ())]
    rows = []
    for label in labels:
        entries = summary[label]
        name = root.name if label == "mean" else f"  {label}"
        count = str(entries["dice"].count + entries["dice"].skipped)
        rows.append([name, count, *(tables.percent(entries[metric]) for metric in METRICS)])
    return rows


def skipped_images(summary: dict[str, dict[str, Mean]]) -> str:
    """How many images have no value of a metric, such as those where a class is absent and not predicted."""
    counts = {METRICS[name][0]: entry.skipped for name, entry in summary["mean"].items()}
    return ", ".join(f"{title} of {count} images" for title, count in counts.items() if count)


def write(
    trained: Trained, scored: Sequence[Scored], summary: dict[str, dict[str, Mean]], options: Any
) -> None:
    """Save the table per image and in the mean."""
    folder = trained.root / "report"
    folder.mkdir(exist_ok=True)
    columns = [*trained.classes, BACKGROUND]
    rows = [
        {"image": image.name, "class": label, **{m: float(image.scores[m][column]) for m in METRICS}}
        for image in scored
        for column, label in enumerate(columns)
    ]
    (folder / f"{options.split}.csv").write_text(tables.to_csv(rows), "utf-8")
    content = {
        "split": options.split,
        "size": options.size,
        "decision": trained.rule(options.threshold),
        "checkpoint": trained.file,
        "epoch": trained.epoch,
        "images": len(scored),
        "scores": {
            label: {name: asdict(entry) for name, entry in entries.items()}
            for label, entries in summary.items()
        },
    }
    (folder / f"{options.split}.json").write_text(json.dumps(plain(content), indent=2) + "\n", "utf-8")


def draw(trained: Trained, dataset: Dataset, scored: Sequence[Scored], options: Any) -> None:
    """Save the figures: curves, test images from worst to best, masks as they grew."""
    folder = trained.root / "report"
    reader = RunReader(trained.root)
    figures.save(figures.curves(reader), folder / "curves.png")
    if reader.watched():
        figures.save(figures.masks(reader), folder / "masks.png")
    dice = _nanmean(np.stack([image.scores["dice"][:-1] for image in scored]))
    ranked = sorted((i for i in range(len(scored)) if not np.isnan(dice[i])), key=lambda i: float(dice[i]))
    chosen = sorted({*ranked[:2], *ranked[len(ranked) // 2 :][:1], *ranked[-1:]}, key=ranked.index)[:PANELS]
    panels = []
    for place in chosen:
        index = dataset.splits[options.split][place]
        (sample,) = dataset.some([index])
        prediction, truth, valid = predicted(trained, sample, True, options.threshold)
        panels.append(figures.Panel(sample.name, sample.image, truth, prediction, valid))
    if panels:
        title = f"{options.split} images from worst to best, {trained.rule(options.threshold)}"
        figures.save(figures.panels(panels, title, names=trained.classes), folder / "panels.png")


if __name__ == "__main__":
    run(main)
