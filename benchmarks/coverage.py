"""Whether thresholds with a guarantee keep it on real predictions: dsb2018 in 2D, hippocampus3d in 3D.

    python benchmarks/coverage.py --dsb FOLDER --hippocampus FOLDER [--splits 1000] [--out FOLDER]

The data sets are folders of images/ and masks/: the nuclei of the 2018 Data Science Bowl as PNG, and the
volumes of the Medical Segmentation Decathlon's Task04 as NIfTI, for which nibabel is needed
(python -m pip install nibabel). Either may be left out.

A small U-Net is trained on a small share of each data set; volumes slice by slice, since networks are 2D
here. All images that it was neither trained nor validated on are predicted once, the slices stacked into
volumes again. These images or volumes, the units, are then divided at random into calibration and test,
again and again. Each time each rule answers the calibration units with a threshold, and the test units say
what it keeps. A unit is kept if it misses at most ε of its lesion.

Training takes some 10 minutes a data set on one core, predicting 5, and the splits 5. Runs that are there
are used again by --dsb-run and --hippocampus-run.

In the tables, in %:
  kept        share of the test units that are kept; expected, (n + 1 − k) / (n + 1): what CLS gives where no
              two critical thresholds are equal, and the least where some are
  z           by how many standard errors the mean over the splits lies above that; below −3 is a breach
  95 %        of the splits lie between these; with the Beta-binomial law's bounds for one split
  short       share of calibrations that keep less than 1 − α of all units, if the units are the whole
              population and calibration draws from it with replacement; with what Beta(n + 1 − k, k) expects.
              Conditional promises that it is δ = 10 at most, CLS promises nothing of it
  precision   mean over test units and splits, and FNR likewise, each at its split's threshold
"""

import argparse
import csv
import math
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import beta, betabinom
from tqdm import tqdm

from engine.data.dataset import Dataset
from engine.thresholds import Choice, Curve, Lesions, Units, gather, lesion_probabilities
from engine.thresholds.specs import Cls, Conditional, Crc
from engine.trained import Trained

NETWORK = (
    "--quiet", "--data.layout=patterns", "--data.images=images/{id}.png", "--data.masks=masks/{id}.png",
    "--model.base_width=16", "--model.depth=3", "--modulation.name=none", "--optimizer.name=adam",
    "--optimizer.lr=1e-3", "--schedule.name=linear", "--training.threads=1", "--watch.train=0",
    "--watch.val=0",
)  # fmt: skip
NUCLEI = (
    "--data.split=[0.3, 0.05, 0.3, 0.35]", "--data.patch=128", "--data.patches_per_image=2",
    "--training.batch_size=8",
)  # fmt: skip
SLICES = (
    "--data.split=[0.23, 0.03, 0.37, 0.37]", "--data.patch=[64, 48]", "--data.patches_per_image=1",
    "--data.group=(.+)_[0-9]{3}[.]png", "--data.classes={anterior = [1], posterior = [2]}",
    "--training.batch_size=32",
)  # fmt: skip
EPOCHS = {"dsb": 15, "hippocampus": 8}
PAIRS = ((0.1, 0.1), (0.05, 0.1), (0.2, 0.05))
"""ε and α."""
DELTA = 0.1
GRID = np.arange(1, 200) / 200
"""T among which the best Dice is looked for."""

Floats = NDArray[np.float64]
Prediction = tuple[str, NDArray[np.float32], NDArray[np.bool_]]
"""Name of a unit, p (C, *S), truth (C, *S)."""


@dataclass(frozen=True)
class Pool:
    """Units that calibration and test are drawn from.

    Attributes:
        title: what is predicted.
        unit: image or volume.
        names: of the n units.
        units: their lesion probabilities.
        curves: of each unit those of the classes that it has.
        left_out: units without lesion.
    """

    title: str
    unit: str
    names: tuple[str, ...]
    units: Units
    curves: tuple[tuple[Curve, ...], ...]
    left_out: int

    def at(self, thresholds: Floats) -> tuple[Floats, Floats, Floats]:
        """Largest FNR, mean precision and mean Dice of each unit's classes at T (t,): each (n, t)."""
        each = np.array([np.mean([_rates(c, thresholds) for c in curves], axis=0) for curves in self.curves])
        worst = [np.max([_rates(c, thresholds)[0] for c in curves], axis=0) for curves in self.curves]
        return np.array(worst), each[:, 1], each[:, 2]

    def some(self, members: NDArray[np.intp]) -> Units:
        """Units for calibration, by their number."""
        return Units(tuple(self.units.values[number] for number in members))


@dataclass(frozen=True)
class Splits:
    """Divisions of a pool into n units for calibration and all others for test.

    Attributes:
        members: (splits, n), numbers of the calibration units.
        test: bool (splits, units).
    """

    members: NDArray[np.intp]
    test: NDArray[np.bool_]

    @classmethod
    def draw(cls, units: int, n: int, count: int, rng: np.random.Generator) -> "Splits":
        """Draw calibration units without replacement."""
        members = np.array([rng.permutation(units)[:n] for _ in range(count)])
        test = np.ones((count, units), bool)
        np.put_along_axis(test, members, False, axis=1)
        return cls(members, test)

    def mean(self, values: NDArray[Any]) -> Floats:
        """Mean (splits,) over the test units of a value (splits, units); NaN is left out."""
        return np.asarray(mean(np.where(self.test, values, np.nan), axis=1))


def main() -> None:
    """Train or find, predict, divide again and again, and print markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dsb", type=Path, help="folder of dsb2018's images/ and masks/")
    parser.add_argument("--hippocampus", type=Path, help="folder of hippocampus3d's images/ and masks/")
    parser.add_argument("--dsb-run", type=Path, help="a run that this trained on dsb2018 before")
    parser.add_argument("--hippocampus-run", type=Path, help="a run that this trained on slices before")
    parser.add_argument("--epochs", type=int, help="of both trainings (default: 15 and 8)")
    parser.add_argument("--splits", type=int, default=1000, help="divisions of a pool (default: 1000)")
    parser.add_argument(
        "--n", type=int, nargs="+", default=[30, 100], help="calibration units (default: 30 100)"
    )
    parser.add_argument("--out", type=Path, help="folder to keep runs and slices in (default: none)")
    options = parser.parse_args()
    if not any((options.dsb, options.hippocampus, options.dsb_run, options.hippocampus_run)):
        parser.error("a data set or a run is needed: --dsb FOLDER or --hippocampus FOLDER would work.")
    with TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        for pool in pools(options, out):
            report(pool, options.n, options.splits)
            if pool.unit == "image" and options.dsb and (options.dsb / "index.csv").is_file():
                elsewhere(pool, options.dsb / "index.csv")


def pools(options: argparse.Namespace, out: Path) -> Iterator[Pool]:
    """The pools of both data sets, their networks trained where no run is given."""
    run = options.dsb_run
    if run is None and options.dsb is not None:
        run = train(options.dsb, out / "dsb", NUCLEI, options.epochs or EPOCHS["dsb"])
    if run is not None:
        yield gathered("dsb2018, nuclei", "image", predictions(run), ("nucleus",), 0)
    run = options.hippocampus_run
    if run is None and options.hippocampus is not None:
        write_slices(options.hippocampus, out / "slices")
        run = train(out / "slices", out / "hippocampus", SLICES, options.epochs or EPOCHS["hippocampus"])
    if run is not None:
        classes = ("anterior", "posterior")
        volumes = list(stacked(predictions(run)))
        for title, number in (*zip(classes, range(2), strict=True), ("both classes at once", None)):
            yield gathered(f"hippocampus3d, {title}", "volume", volumes, classes, number)


def train(root: Path, out: Path, flags: Sequence[str], epochs: int) -> Path:
    """Train a small network; returns the run directory."""
    command = [sys.executable, "-m", "engine.train", "--data.root", str(root), *NETWORK, *flags]
    subprocess.run([*command, f"--training.epochs={epochs}", "--out", str(out)], check=True)
    return out


def write_slices(source: Path, out: Path) -> None:
    """Write volumes (D, H, W) as PNGs of D slices; intensities from the 0.5th to the 99.5th percentile of
    the volume become 0 to 255."""
    try:
        import nibabel
    except ImportError:
        raise SystemExit("nibabel, which reads NIfTI, is missing: python -m pip install nibabel") from None
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for file in sorted((source / "images").glob("*.nii.gz")):
        volume = np.asarray(nibabel.load(file).dataobj, np.float32)
        mask = np.asarray(nibabel.load(source / "masks" / file.name).dataobj).astype(np.uint8)
        low, high = np.percentile(volume, (0.5, 99.5))
        grey = np.rint(((volume - low) / (high - low)).clip(0, 1) * 255).astype(np.uint8)
        for number, pair in enumerate(zip(grey, mask, strict=True)):
            for name, array in zip(("images", "masks"), pair, strict=True):
                Image.fromarray(array).save(out / name / f"{file.name.split('.')[0]}_{number:03}.png")


def predictions(run: Path) -> Iterator[Prediction]:
    """Predict the images of a run that it was neither trained nor validated on."""
    trained = Trained.open(run)
    dataset = Dataset.open(trained.config.data, trained.info["splits"])
    chosen = sorted((*dataset.splits["calib"], *dataset.splits["test"]))
    numbers = np.arange(1, len(trained.classes) + 1)[:, None, None]
    quiet = not sys.stderr.isatty()
    for sample in tqdm(dataset.some(chosen), total=len(chosen), desc=run.name, leave=False, disable=quiet):
        yield sample.name, trained.probability(sample.image), sample.labels == numbers


def stacked(slices: Iterator[Prediction]) -> Iterator[Prediction]:
    """Volumes (C, D, H, W) from slices (C, H, W) named after their volume and place in it."""
    found: dict[str, dict[int, tuple[Any, Any]]] = {}
    for name, p, y in slices:
        volume, place = re.fullmatch(r"(.+)_(\d{3})", name).groups()  # type: ignore[union-attr]
        found.setdefault(volume, {})[int(place)] = p, y
    for volume, members in found.items():
        pairs = [members[place] for place in range(len(members))]
        yield volume, np.stack([p for p, _ in pairs], axis=1), np.stack([y for _, y in pairs], axis=1)


def gathered(title: str, unit: str, predicted: Any, classes: tuple[str, ...], number: int | None) -> Pool:
    """The pool of one class, or of all at once (None); units without lesion are left out."""
    chosen = range(len(classes)) if number is None else (number,)
    names, values, curves = [], [], []
    for name, p, y in predicted:
        present = [c for c in chosen if y[c].any()]
        names.append(name)
        values.append([lesion_probabilities(p[c], y[c], name=name) for c in range(len(classes))])
        curves.append(tuple(Curve.of(p[c], y[c]) for c in present))
    lesions: Lesions = gather(names, classes, values)
    kept = [place for place, each in enumerate(curves) if each]
    units = lesions.units(number)
    return Pool(
        title, unit, tuple(names[i] for i in kept), units, tuple(curves[i] for i in kept), units.left_out
    )  # fmt: skip


def report(pool: Pool, sizes: Sequence[int], count: int) -> None:
    """Print what a pool's units keep at T = 0.5 and best Dice, and with each rule."""
    total = pool.units.n
    print(f"\n## {pool.title}\n")
    print(f"{total} {pool.unit}s, {pool.left_out} more without lesion left out; {count} splits.")
    fnr, precision, dice = pool.at(GRID)
    best = int(dice.mean(0).argmax())
    critical = pool.units.critical(PAIRS[0][0])
    print(f"Distinct critical thresholds at ε = {PAIRS[0][0]:g}: {np.unique(critical).size}.\n")
    print(f"| | {' | '.join(f'kept at ε = {e:g}' for e, _ in PAIRS)} | mean FNR | precision | Dice |")
    print("|---|" + "---|" * (len(PAIRS) + 3))
    for name, place in (("T = 0.5", 99), (f"T = {GRID[best]:g}, best Dice on all of them", best)):
        kept = " | ".join(percent((fnr[:, place] <= epsilon).mean()) for epsilon, _ in PAIRS)
        means = (mean(rate[:, place]) for rate in (fnr, precision, dice))
        print(f"| {name} | {kept} | {' | '.join(map(percent, means))} |")
    sizes = [n for n in sizes if n < total]
    rng = np.random.default_rng(0)
    drawn = {n: Splits.draw(total, n, count, rng) for n in sizes}
    again = {n: rng.integers(0, total, (count, n)) for n in sizes}
    print(
        "\n| rule | n | ε | α | k | kept (expected) | z | 95 % of splits (Beta-binomial) "
        "| short (expected) | precision |\n" + "|---" * 10 + "|"
    )
    for rule in (Cls, Conditional):
        for epsilon, alpha in PAIRS:
            more = {"delta": DELTA} if rule is Conditional else {}
            spec = rule(epsilon=epsilon, alpha=alpha, **more)
            for n, splits in drawn.items():
                print(coverage_row(pool, spec, n, splits, again[n]))
    print(
        "\n| rule | n | α | mean FNR (of the calibration units) | 95 % of splits | precision |\n"
        + "|---" * 6
        + "|"
    )
    for alpha in sorted({alpha for _, alpha in PAIRS}, reverse=True):
        for n, splits in drawn.items():
            print(risk_row(pool, Crc(alpha=alpha), n, splits))


def coverage_row(pool: Pool, spec: Cls | Conditional, n: int, splits: Splits, again: NDArray[np.intp]) -> str:
    """A row of the table: what one rule keeps of the test units, over all splits.

    Args:
        spec: the rule.
        n: calibration units.
        splits: of the pool.
        again: (splits, n) calibration units drawn with replacement, for which the pool is the population.
    """
    choices = answers(pool, spec, splits.members)
    head = f"| {spec.name} | {n} | {spec.epsilon:g} | {spec.alpha:g} "
    k, m = choices[0].rank, pool.units.n - n
    if not choices[0].enough or k is None:
        return f"{head}| | needs {choices[0].needed} | | | | |"
    fnr, precision = unit_rates(pool, choices)
    kept = splits.mean(fnr <= spec.epsilon)
    law = betabinom(m, n + 1 - k, k)
    z = (kept.mean() - law.mean() / m) / (law.std() / m / math.sqrt(len(kept)))
    band = " – ".join(map(percent, np.quantile(kept, (0.025, 0.975))))
    promised = " – ".join(percent(count / m) for count in law.ppf((0.025, 0.975)))
    whole = (unit_rates(pool, answers(pool, spec, again))[0] <= spec.epsilon).mean(1)
    short, expected = (whole < 1 - spec.alpha).mean(), beta(n + 1 - k, k).cdf(1 - spec.alpha)
    return (
        f"{head}| {k} | {percent(kept.mean())} ({percent(law.mean() / m)}) | {z:+.1f} | {band} ({promised}) "
        f"| {percent(short)} ({percent(expected)}) | {percent(splits.mean(precision).mean())} |"
    )


def risk_row(pool: Pool, spec: Crc, n: int, splits: Splits) -> str:
    """A row of the table of CRC: the mean FNR of the test units, over all splits."""
    choices = answers(pool, spec, splits.members)
    head = f"| {spec.name} | {n} | {spec.alpha:g} "
    if not choices[0].enough:
        return f"{head}| needs {choices[0].needed} | | |"
    fnr, precision = unit_rates(pool, choices)
    missed = splits.mean(fnr)
    ours = np.mean([fnr[each, members].mean() for each, members in enumerate(splits.members)])
    band = " – ".join(map(percent, np.quantile(missed, (0.025, 0.975))))
    shown = percent(splits.mean(precision).mean())
    return f"{head}| {percent(missed.mean())} ({percent(float(ours))}) | {band} | {shown} |"


def answers(pool: Pool, spec: Any, members: NDArray[np.intp]) -> list[Choice]:
    """What a rule answers to each set of calibration units."""
    rule = spec.bind()
    return [rule(pool.some(each)) for each in members]


def unit_rates(pool: Pool, choices: Sequence[Choice]) -> tuple[Floats, Floats]:
    """FNR and precision of every unit at every choice's threshold, each (choices, units)."""
    thresholds, which = np.unique([choice.threshold for choice in choices], return_inverse=True)
    fnr, precision, _ = pool.at(thresholds)
    return fnr.T[which], precision.T[which]


def elsewhere(pool: Pool, index: Path) -> None:
    """Print what is kept where calibration and use are not of the same source: kinds of microscopy."""
    with index.open(newline="") as file:
        kinds = {row["stem"]: row["kind"] for row in csv.DictReader(file)}
    kind = np.array([kinds[name] for name in pool.names])
    spec = Cls(epsilon=PAIRS[0][0], alpha=PAIRS[0][1])
    print(f"\nCLS with ε = {spec.epsilon:g}, α = {spec.alpha:g}, calibrated on one kind, kept of another:\n")
    for source in sorted(set(kind)):
        choice = spec.bind()(pool.some(np.flatnonzero(kind == source)))
        if not choice.enough:
            continue
        fnr = pool.at(np.array([choice.threshold]))[0][:, 0]
        for target in sorted({*kind} - {source}):
            kept = (fnr[kind == target] <= spec.epsilon).mean()
            counts = f"n = {choice.n}, {int((kind == target).sum())} images"
            print(f"- {source} → {target} ({counts}): {percent(kept)}")


def _rates(curve: Curve, thresholds: Floats) -> tuple[Floats, Floats, Floats]:
    """FNR, precision (NaN where nothing is predicted) and Dice at T (t,)."""
    tp, fp = curve.above(thresholds)
    lesion = curve.positives.total
    with np.errstate(invalid="ignore"):
        return (lesion - tp) / lesion, tp / (tp + fp), 2 * tp / (tp + fp + lesion)


def mean(values: Floats, axis: int | None = None) -> Any:
    """Mean without NaN; NaN of nothing else."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(axis) / there.sum(axis)


def percent(share: float) -> str:
    """In percent, with one digit."""
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
