"""Score trained runs on their test images, print the tables and save them with figures.

Writes into RUN/report/: test.csv (a row an image and class), test-thresholds.csv (the same over the
threshold), test.json (means, calibration, inference time) and PNG figures: training curves, test images
with false negatives and false positives, the masks as they grew, reliability, scores over the threshold.
Several runs are printed as one table, a row a run.

Images on which a --threshold RULE was chosen are scored like others, for a split is scored as a whole: they
are counted in a warning, and named in test.json, as their scores do not test that threshold.
"""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from engine import decision, figures, fingerprint, results, tables
from engine.command import Parser, run
from engine.data.dataset import Dataset
from engine.data.split import SPLITS
from engine.decision import Decision
from engine.errors import InputError
from engine.panels import shown
from engine.record import RunReader
from engine.scores import Scored, score
from engine.summary import Summary, commonest_frame, nanmean, summarise
from engine.tables import METRICS, TIME
from engine.threshold_use import choosing
from engine.timing import PASSES, Timing, inference_time
from engine.trained import Trained

COLUMNS = 100
"""Of a terminal."""
PANELS = 4
"""Test images in the figure: the two worst, the median and the best."""
TABLES: Mapping[str, tuple[str, ...]] = {
    "overlap, in %": ("dice", "cldice", "jaccard"),
    "misses and false alarms, in %": ("fnr", "fpr", "precision", "recall", "lesion_recall"),
    "calibration (NLL in nats a pixel) and time": ("nll", "brier", "ece"),
}
"""Title → columns of the printed tables, each narrow enough for a terminal. Time is in the last one."""


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``python -m engine.evaluate``."""
    parser = Parser("evaluate", __doc__ or "")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument("--split", default="test", choices=SPLITS, help="images to score (default: test)")
    parser.add_argument(
        "--size", default="native", choices=("native", "trained"),
        help="score at the images' own size, or at the size the network saw, as papers do (default: native)",
    )  # fmt: skip
    parser.add_argument("--threshold", metavar="T|RULE", help=decision.HELP)
    parser.add_argument("--checkpoint", help="best, last or a file (default: best if there is a val split)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    parser.add_argument("--no-figures", action="store_true", help="leave out the figures")
    options = parser.parse_args(arguments)
    options.threshold = decision.given(options.threshold)
    done = [evaluate(root, options) for root in options.runs]
    rules = " / ".join(sorted({decide(trained, options).words for trained, *_ in done}))
    head = (
        f"{options.split} split, {options.size} size, decision {rules}; mean ± half of the 95 % interval "
        "over images (lesion recall: of all lesions together, Wilson's interval)"
    )
    print(f"\n{textwrap.fill(head, COLUMNS, break_on_hyphens=False)}")
    called = names(options.runs)
    for name, (_, _, _, chose) in zip(called, done, strict=True):
        if chose:
            warning = f"warning: {name}: {no_test(chose, options)}"
            print(f"\n{textwrap.fill(warning, COLUMNS, break_on_hyphens=False)}")
    for title, columns in TABLES.items():
        print(f"\n{title}\n{table(done, called, columns, timed=title == list(TABLES)[-1])}")
    print()
    for line in dict.fromkeys(timing.words() for _, _, timing, _ in done):
        print(f"{TIME.title}: {line}")
    for name, (trained, *_) in zip(called, done, strict=True):
        if init := trained.info.get("init"):
            print(f"{name}: started from {init['run']} ({init['checkpoint']}, epoch {init['epoch']})")
    for name, (_, summary, *_) in zip(called, done, strict=True):
        if skipped := summary.undefined():
            print(f"{name}: not defined, and left out: {skipped}")
    return 0


def names(roots: Sequence[Path]) -> list[str]:
    """What run directories are called: the last part of their paths, and as much before it as tells them
    apart, such as `Dice/seed-0` and `CE/seed-0` of a comparison."""
    paths = [root.absolute() for root in roots]
    distinct, depth = len(set(paths)), 1
    while depth < max(len(path.parts) for path in paths):
        if len({path.parts[-depth:] for path in paths}) == distinct:
            break
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def no_test(chose: Sequence[str], options: Any) -> str:
    """That images chose the threshold by which they are scored, a sentence."""
    which = f"{len(chose)} of these {options.split} images" if len(chose) > 1 else f"{chose[0]}"
    return (
        f"T was chosen by {options.threshold} on {which}, so the scores there are no test of T, nor of what "
        "it promises."
    )


def evaluate(root: Path, options: Any) -> tuple[Trained, Summary, Timing, list[str]]:
    """Score one run and save all of its report.

    Returns:
        The run, its scores, its time, and the names of the images that chose the threshold.

    Raises:
        InputError: no run, or one that has no images in the split.
    """
    trained = Trained.open(root, options.checkpoint, options.device)
    decided = decide(trained, options)
    dataset = Dataset.open(trained.config.data, trained.info["splits"])
    if not dataset.splits[options.split]:
        raise InputError(
            f"the run {root} has no {options.split} images: try --split "
            f"{next(name for name in SPLITS if dataset.splits[name])}."
        )
    scored, digests = [], {}
    for sample in tqdm(
        dataset.samples(options.split), total=len(dataset.splits[options.split]), desc=root.name,
        unit="image", leave=False, disable=not sys.stderr.isatty(),
    ):  # fmt: skip
        scored.append(score(trained, sample, options.size == "native", decided.threshold))
        if decided.entry is not None:
            digests[sample.name] = fingerprint.image(sample.image)
    chose = [] if decided.entry is None else choosing(decided.entry, digests, options.split)
    summary = summarise(scored, trained.classes)
    timing = timed(trained, dataset, scored, options.split)
    head = {
        "split": options.split,
        "size": options.size,
        "decision": decided.words,
        "checkpoint": trained.file,
        "epoch": trained.epoch,
        "images": len(scored),
        **({} if decided.entry is None else {"chose_threshold": chose}),
    }
    folder = root / "report"
    content = results.content(head, summary, timing)
    results.write(folder, options.split, scored, trained.classes, content)
    if not options.no_figures:
        draw(trained, dataset, scored, summary, decided, options)
    return trained, summary, timing, chose


def decide(trained: Trained, options: Any) -> Decision:
    """How the run's probabilities become masks. Raises InputError for a rule that does not fit it."""
    return decision.decide(trained, options.threshold, options.size)


def timed(trained: Trained, dataset: Dataset, scored: Sequence[Scored], split: str) -> Timing:
    """Time the network on the first images of the size that most have."""
    chosen = [dataset.splits[split][place] for place in commonest_frame(scored)[:PASSES]]
    return inference_time(trained, dataset.some(chosen), len(chosen))


def table(
    done: Sequence[tuple[Trained, Summary, Timing, list[str]]],
    called: Sequence[str],
    columns: Sequence[str],
    *,
    timed: bool,
) -> str:
    """A row a run for the mean, and below it one for each class where there are several."""
    rows = []
    for run_name, (trained, summary, timing, _) in zip(called, done, strict=True):
        for label in ("mean", *(trained.classes if len(trained.classes) > 1 else ())):
            entries, whole = summary.scores[label], label == "mean"
            name = run_name if whole else f"  {label}"
            row = [name, str(entries["dice"].count + entries["dice"].skipped)]
            row += [tables.cell(column, entries[column]) for column in columns]
            rows.append(row + [f"{timing.median_ms:.3g}" if whole else ""] * timed)
    headings = [*(METRICS[column].heading for column in columns), *[TIME.heading] * timed]
    return tables.text(["run", "images", *headings], rows)


def draw(
    trained: Trained, dataset: Dataset, scored: Sequence[Scored], summary: Summary, decided: Decision,
    options: Any,
) -> None:  # fmt: skip
    """Save the figures: curves, masks as they grew, calibration, test images from worst to best."""
    folder = trained.root / "report"
    reader = RunReader(trained.root)
    figures.save(figures.curves(reader), folder / "curves.png")
    if reader.watched():
        figures.save(figures.masks(reader), folder / "masks.png")
    title = f"{options.split} split, {len(scored)} {'volume' if trained.dims == 3 else 'image'}"
    title += "s" * (len(scored) != 1)
    figures.save(figures.reliability_diagram(summary.reliability, title), folder / "reliability.png")
    figures.save(figures.threshold_curves(summary.over_t, title), folder / "thresholds.png")
    dice = nanmean(np.stack([image.scores["dice"][:-1] for image in scored]))
    ranked = sorted((i for i in range(len(scored)) if not np.isnan(dice[i])), key=lambda i: float(dice[i]))
    chosen = sorted({*ranked[:2], *ranked[len(ranked) // 2 :][:1], *ranked[-1:]}, key=ranked.index)[:PANELS]
    indices = [dataset.splits[options.split][place] for place in chosen]
    panels = list(shown(trained, dataset, indices, native=True, threshold=decided.threshold))
    if panels:
        ranking = " at the trained size" if options.size == "trained" else ""
        noun = "volumes" if trained.dims == 3 else "images"
        title = f"{options.split} {noun} from worst to best{ranking}, {decided.words}"
        figures.save(figures.panels(panels, title, names=trained.classes), folder / "panels.png")


if __name__ == "__main__":
    run(main)
