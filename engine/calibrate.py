"""Choose a decision threshold by a rule, and say what it promises of new images.

Rules with a guarantee are calibrated on images that the run has never seen, by default its calib split:
  cls          with probability 1 − α a new image misses at most ε of its lesion
  conditional  the same of a calibration that is made once: with confidence 1 − δ, in 1 − α of all new images
  crc          on average a new image misses at most α of its lesion
Rules without one take what was best on the val split, and promise nothing of new images:
  dice         the highest mean Dice
  precision    the lowest T with a mean precision of --wanted or more
  recall       the highest T with a mean recall of --wanted or more

Writes RUN/thresholds.json, where `predict` and `evaluate` find it (--threshold cls), and for rules with a
guarantee RUN/calibration.npz, from which the window's sliders answer, and RUN/report/guarantee-RULE.png.
"""

import math
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine import calibration, figures, tables, thresholds_file
from engine.calibration import Calibration
from engine.calibration_images import Gathered, Images, gathered, of_folder, of_split
from engine.command import Parser, run
from engine.data.split import SPLITS
from engine.disk import is_disk_full
from engine.errors import InputError
from engine.promises import Answer, Unit, answered, by, entries, left_out
from engine.record import RunReader
from engine.threshold_use import commands, said, worst
from engine.thresholds import mean_rates, softmax
from engine.thresholds.rules import least_alpha
from engine.thresholds.specs import AnyGuarantee, AnyWish, Guarantee, Rule
from engine.thresholds_file import RULES, ClassEntry, Entry, named_rule
from engine.trained import Trained

WIDTH = 100
"""Of a terminal."""
NUMBERS = ("epsilon", "alpha", "delta", "wanted")
"""Settings of the rules, which are flags."""


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``python -m engine.calibrate``."""
    options = parse(arguments)
    rule = chosen_rule(options)
    trained = Trained.open(options.run, options.checkpoint, options.device).tiled(options.tile)
    thresholds_file.check(options.run, options.run / "report")
    made = guarantee(trained, rule, options) if isinstance(rule, Guarantee) else wish(trained, rule, options)
    use(trained, made, options)
    return 0


def parse(arguments: Sequence[str]) -> Namespace:
    """The command line. Raises InputError for what cannot be used."""
    parser = Parser("calibrate", __doc__ or "")
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--rule", required=True, choices=tuple(RULES), help="see above")
    for name in NUMBERS:
        parser.add_argument(f"--{name}", type=float, metavar="SHARE", help=_help(name))
    parser.add_argument(
        "--data", metavar="FOLDER",
        help="images and masks that were not trained on, laid out as the run's (default: a split of the run)",
    )  # fmt: skip
    parser.add_argument("--layout", help="of FOLDER, if it is not the run's data.layout")
    parser.add_argument("--group", help="of FOLDER, if it is not the run's data.group (regular expression)")
    parser.add_argument(
        "--split", choices=SPLITS[1:],
        help="of the run's images (default: calib for a guarantee, val for a rule without)",
    )  # fmt: skip
    parser.add_argument(
        "--unit", choices=("image", "group"),
        help="what the promise is about: images, or groups (patients) of which every image keeps it "
        "(default: groups where the layout knows them)",
    )  # fmt: skip
    parser.add_argument(
        "--together", action="store_true", help="one T and one promise for all classes at once"
    )
    parser.add_argument(
        "--count-empty", action="store_true",
        help="count images without lesion, which cannot miss one, as calibration images too",
    )  # fmt: skip
    parser.add_argument(
        "--size", default="native", choices=("native", "trained"),
        help="decide at the images' own size, or at the size the network saw (default: native)",
    )  # fmt: skip
    parser.add_argument("--checkpoint", help="best, last or a file (default: best if there is a val split)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    parser.add_argument("--tile", type=int, help="longest side predicted at once, px (default: the run's)")
    parser.add_argument("--no-figures", action="store_true", help="leave out the figure")
    options = parser.parse_args(arguments)
    if options.data is not None:
        if not options.data.strip():
            raise InputError("--data '' names no folder: the path of one with images and masks would work.")
        options.data = Path(options.data)
    if options.tile is not None and options.tile < 32:
        raise InputError(f"--tile {options.tile} is too small: 32 or more would work.")
    for name in ("layout", "group"):
        if getattr(options, name) is not None and options.data is None:
            raise InputError(f"--{name} is about another folder of images: give it with --data FOLDER.")
    if options.data is not None and options.split is not None:
        raise InputError("--data and --split both say which images: leave one of the two out.")
    return options


def _help(name: str) -> str:
    """Help of a rule's setting, from the first spec that has it, and the rules that do."""
    having = [rule for rule, spec in RULES.items() if name in spec.model_fields]
    about = dict.fromkeys(str(RULES[rule].model_fields[name].description).rstrip(".") for rule in having)
    default = RULES[having[0]].model_fields[name].default
    return f"{'; or '.join(about)} (rules {', '.join(having)}; default: {default:g})".replace("%", "%%")


def chosen_rule(options: Namespace) -> Rule:
    """The rule with its settings.

    A share that only another promise has is noted and not used, so that promises can be compared by their
    name alone.

    Raises:
        InputError: flags that make no sense for the rule.
    """
    given = {name: value for name in NUMBERS if (value := getattr(options, name)) is not None}
    spec = RULES[options.rule]
    if issubclass(spec, Guarantee):
        for name in set(given) & {"epsilon", "delta"} - set(spec.model_fields):
            print(f"note: the rule {options.rule} has no {name}: --{name} {given.pop(name):g} is not used.")
    rule = named_rule(options.rule, given)
    if not rule.guarantees:
        for flag, usual in (("unit", None), ("together", False), ("count_empty", False)):
            if getattr(options, flag) != usual:
                raise InputError(
                    f"--{flag.replace('_', '-')} is about a promise, and the rule {options.rule} makes none: "
                    "leave it out, or take cls, conditional or crc."
                )
        if options.split not in (None, "val"):
            raise InputError(
                f"--split {options.split} is not for the rule {options.rule}: calib images are for promises "
                "and test images for the test, so take val, or --data FOLDER."
            )
    elif options.split == "val":
        raise InputError(
            "--split val cannot calibrate a promise: validation images chose the best checkpoint, so new "
            "images differ from them; calib, test, or --data FOLDER would work."
        )
    return rule


def the_images(trained: Trained, options: Namespace, usual: str) -> Images:
    """The images that the command line names."""
    if options.data is not None:
        return of_folder(trained, options.data, options.layout, options.group)
    return of_split(trained, options.split or usual)


# Rules with a guarantee


def guarantee(trained: Trained, rule: AnyGuarantee, options: Namespace) -> Entry:
    """Calibrate a promise, look at what it comes to on the test split, and save it all. Returns what was
    chosen."""
    images = the_images(trained, options, "calib")
    found = gathered(trained, shown(images, options), options.size, curves=False)
    unit: Unit = options.unit or ("group" if found.lesions.grouped else "image")
    found = by(found, unit)
    together = options.together and len(trained.classes) > 1
    counted = {"together": together, "count_empty": bool(options.count_empty)}
    require_enough(rule, answered(rule, found, None, **counted), images, unit)
    tested = test_images(trained, images, found, options)
    tested = None if tested is None else by(tested, unit)
    answers = answered(rule, found, tested, **counted)
    entry = Entry(
        rule=rule,
        together=together,
        classes=entries(rule, answers, trained.classes, tested, unit),
        predicted=trained.predicted(options.size),
        data=described(images, found, unit, options),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    # The window asks for each class or for all, and leaves images without lesion out.
    notes = found.notes + left_out(found)
    kept = Calibration(found.lesions, entry.predicted, images.source, unit, notes)
    thresholds_file.write(trained.root, entry, kept)
    notes = found.notes + left_out(found, together=together, count_empty=options.count_empty)
    written = [thresholds_file.FILE, calibration.FILE]
    if not options.no_figures:
        with room(trained.root, written):
            draw(trained, rule, answers, images, unit)
        written.append(f"report/{picture(rule)}")
    report(entry, images, unit, [*notes, *of_the_test(tested), *still_training(trained)])
    print(f"\nwritten in {trained.root}: {', '.join(written)}")
    return entry


def require_enough(rule: AnyGuarantee, answers: Sequence[Answer], images: Images, unit: Unit) -> None:
    """Refuse to choose T = 0, which predicts everything, because there are too few calibration images.

    Raises:
        InputError: there are, for one class at least.
    """
    few = [answer for answer in answers if not answer.choice.enough]
    if not few:
        return
    answer = min(few, key=lambda answer: answer.choice.n)
    n, needed = answer.choice.n, answer.choice.needed
    if needed is None:
        raise InputError(f"no number of calibration images can promise {thresholds_file.settings(rule)}.")
    of_class = f" for the class {answer.title}" if len(answers) > 1 else ""
    lesion = "" if answer.count_empty else " with a lesion"
    # Rounded up, so that what is said can be kept.
    alpha = math.ceil(1e4 * least_alpha(n, rule.settings().get("delta"))) / 1e4
    less = f", or --alpha {alpha:g} with these," if n and alpha < 1 else ""
    asked = thresholds_file.settings(rule)
    raise InputError(
        f"{asked} needs {needed} calibration {unit}s{lesion}, and {images.place} has {n}{of_class}: --data "
        f"FOLDER with as many{less} would work; nothing was changed."
    )


@contextmanager
def room(root: Path, written: Sequence[str]) -> Iterator[None]:
    """Write the figure. Raises InputError, with what is there nonetheless, if the disk is full."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise InputError(
            f"the disk of {root} is full: {' and '.join(written)} are written and whole, and only the figure "
            "is not; free some space and calibrate again for it."
        ) from error


def test_images(trained: Trained, images: Images, found: Gathered, options: Namespace) -> Gathered | None:
    """The test split, without images that calibrated; None where there is none."""
    if images.split == "test" or not trained.info["splits"]["test"]:
        return None
    try:
        tests = of_split(trained, "test")
        return gathered(trained, shown(tests, options), options.size, curves=True, besides=found.digests)
    except InputError as error:
        print(f"the test split is left out: {error}")
        return None


def described(images: Images, found: Gathered, unit: Unit, options: Namespace) -> dict[str, Any]:
    """What thresholds.json says of the images."""
    return {
        "source": images.source,
        "root": str(images.dataset.found.root),
        "images": len(found.lesions.names),
        "unit": unit,
        "units": len(set(found.lesions.groups)),
        "count_empty": bool(options.count_empty),
        "names": found.lesions.names,
        "digests": found.digests,
        "fingerprint": found.fingerprint,
    }


def shown(images: Images, options: Namespace) -> Images:
    """The images, with a bar on a terminal as they are gone through."""
    return replace(images, watched=lambda samples, count: tqdm(
        samples, total=count, desc=images.source, unit="image", leave=False,
        disable=not sys.stderr.isatty(),
    ))  # fmt: skip


def draw(trained: Trained, rule: AnyGuarantee, answers: Sequence[Answer], images: Images, unit: Unit) -> None:
    """Save the figure."""
    rows = [
        figures.GuaranteeRow(
            title=answer.title,
            rule=rule,
            choice=answer.choice,
            units=answer.units,
            test=answer.test,
            curves=answer.curves,
            unit=unit,
            lesion=answer.lesion,
            count_empty=answer.count_empty,
        )
        for answer in answers
    ]
    folder = trained.root / "report"
    folder.mkdir(exist_ok=True)
    title = f"{trained.root.name}: {thresholds_file.settings(rule)}, calibrated on {images.source}"
    figures.save(figures.guarantee(rows, title), folder / picture(rule))


def picture(rule: AnyGuarantee) -> str:
    """Name of the figure's file."""
    return f"guarantee-{rule.name}.png"


def of_the_test(tested: Gathered | None) -> list[str]:
    """Which test images were not looked at, and why, a sentence each."""
    if tested is None:
        return []
    count = len(tested.passed)
    calibrated = f"{count} test image{'s' * (count != 1)} left out of the test: T is calibrated on {{}}."
    return [*([calibrated.format("it" if count == 1 else "them")] if count else []), *tested.notes]


def still_training(trained: Trained) -> list[str]:
    """That T is of weights which a run in progress will replace, a sentence if it is."""
    goes_on = RunReader(trained.root).status() in ("running", "stopping")
    if not goes_on or trained.file not in ("best", "last"):
        return []
    return [
        f"The run still trains: T belongs to the weights of {trained.file} after epoch {trained.epoch}, and "
        "is refused once those of a later epoch have taken their place."
    ]


def report(entry: Entry, images: Images, unit: Unit, notes: Sequence[str]) -> None:
    """Print what was chosen, promised, and seen."""
    checkpoint = f"{entry.predicted.checkpoint}, epoch {entry.predicted.epoch}"
    print(f"{entry.settings}, calibrated on {images.source} ({entry.data['images']} images, {checkpoint})")
    for note in notes:
        print(textwrap.fill(note, WIDTH, break_on_hyphens=False))
    counted = any("kept" in each.test for each in entry.classes.values())
    rows = []
    for name, each in entry.classes.items():
        test = each.test
        kept = f"{test['kept']} of {test['n']}" if "kept" in test else "–"
        band = "{} … {}".format(*test["expected"]) if "expected" in test else "–"
        shares = [_cell(test.get(key)) for key in ("fnr", "precision", "precision_at_half")]
        rows.append([name, str(each.n), f"{each.threshold:.6g}", *[kept, band] * counted, *shares])
    seen = [*["kept in", "band"] * counted, "missed", "precision", "at T = 0.5"]
    if not any(each.test for each in entry.classes.values()):
        rows, seen = [row[:3] for row in rows], []
    print("\n" + tables.text(["class", f"{unit}s", "T", *seen], rows))
    print(textwrap.fill(legend(entry, images, unit, counted=counted), WIDTH, break_on_hyphens=False))
    say(entry)


def legend(entry: Entry, images: Images, unit: Unit, *, counted: bool) -> str:
    """What the columns of the table say.

    Args:
        counted: whether it is told in how many units the promise was kept.
    """
    if images.split == "test":
        return "The test images chose T, so none is left to test it."
    if not any(each.test for each in entry.classes.values()):
        return "There are no test images to look at."
    share = f"share missed of {parts}" if (parts := worst(entry)) else "share missed"
    kept = f"in how many {unit}s the promise was kept, and the band in which that is in 95 % of test splits; "
    return f"On the test split: {kept * counted}mean {share}; mean precision at T, and at 0.5."


def say(entry: Entry) -> None:
    """Print what is promised, or that nothing is."""
    for words in said(entry):
        print("\n" + textwrap.fill(words, WIDTH, break_on_hyphens=False))


def use(trained: Trained, entry: Entry, options: Namespace) -> None:
    """Print the commands that take the threshold, and which does not."""
    untested = ""
    try:
        of_split(trained, "test")
    except InputError as error:
        untested = str(error).partition(": ")[0]
    typed, cannot = commands(
        entry,
        options.run,
        trained.config.prediction.tile_of(trained.dims),
        checkpoint=options.checkpoint,
        untested=untested,
    )
    for number, line in enumerate(typed):
        print(f"{'' if number else 'use it:':7} {line}")
    for reason in cannot:
        print(f"note: {reason}.")


# Rules without a guarantee


def wish(trained: Trained, rule: AnyWish, options: Namespace) -> Entry:
    """Take the threshold that is best on validation images, and save it. Returns what was chosen."""
    images = the_images(trained, options, "val")
    found = gathered(trained, shown(images, options), options.size, curves=True)
    if not found.curves:
        raise InputError(
            f"{images.source} has too many pixels to look at all thresholds at once: fewer images, "
            "or --size trained, would work."
        )
    tested = test_images(trained, images, found, options)
    classes = {}
    for number, name in enumerate(trained.classes):
        wished = rule.bind()(found.curves[number])
        curves = tested.curves[number] if tested is not None and tested.curves else ()
        classes[name] = ClassEntry(
            threshold=wished.threshold, n=wished.n, left_out=0, words=softmax.words(rule, wished),
            details={"reached": wished.reached, **wished.rates._asdict()},
            test={"n": len(curves), **mean_rates(curves, wished.threshold)[0]._asdict()} if curves else {},
        )  # fmt: skip
    entry = Entry(
        rule=rule, together=False, classes=classes, predicted=trained.predicted(options.size),
        data={
            "source": images.source, "root": str(images.dataset.found.root), "unit": "image",
            "images": len(found.lesions.names), "names": found.lesions.names, "digests": found.digests,
            "fingerprint": found.fingerprint,
        },
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    thresholds_file.write(trained.root, entry)
    print(f"{entry.settings}, chosen on {images.source} ({len(found.lesions.names)} images)")
    for note in (*found.notes, *of_the_test(tested), *still_training(trained)):
        print(textwrap.fill(note, WIDTH, break_on_hyphens=False))
    print()
    rates = ("precision", "recall", "dice")
    rows = []
    for name, each in classes.items():
        there = [_cell(part.get(key)) for part in (each.details, each.test) for key in rates]
        rows.append([name, f"{each.threshold:.6g}", *there])
    print(tables.text(["class", "T", *rates, *(f"test {rate}" for rate in rates)], rows))
    say(entry)
    print(f"\nwritten in {trained.root}: {thresholds_file.FILE}")
    return entry


def _cell(rate: float | None) -> str:
    return "–" if rate is None or math.isnan(rate) else f"{100 * rate:.1f} %"


if __name__ == "__main__":
    run(main)
