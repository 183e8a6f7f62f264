"""What a rule with a guarantee answers, class by class or for all at once, and what the test split shows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.calibration_images import Gathered
from engine.thresholds import Choice, Curve, Units, lesion_of, mean_rates, promise
from engine.thresholds.coverage import kept_band, mean_interval
from engine.thresholds.specs import AnyGuarantee, Crc
from engine.thresholds_file import ClassEntry

Unit = Literal["image", "group"]


@dataclass(frozen=True)
class Answer:
    """What a rule with a guarantee chose for a class, or for all at once.

    Attributes:
        title: the class's name, or "all classes".
        lesion: what must not be missed, in words.
        units: that it was calibrated on.
        choice: of the rule.
        test: the units of the test split; None where there is none.
        curves: of the test images, class after class, if they are kept.
        count_empty: whether units without lesion count.
    """

    title: str
    lesion: str
    units: Units
    choice: Choice
    test: Units | None
    curves: tuple[Curve, ...]
    count_empty: bool = False


def answered(
    rule: AnyGuarantee, found: Gathered, tested: Gathered | None, *, together: bool, count_empty: bool
) -> list[Answer]:
    """What the rule chooses for each class, or for all at once.

    Args:
        rule: with its settings.
        found: calibration images, in units.
        tested: test images, in units; None where there are none.
        together: whether one T is for all classes at once.
        count_empty: whether units without lesion count.
    """
    classes = found.lesions.classes
    answers = []
    each = [(name, lesion_of(name), cls) for cls, name in enumerate(classes)]
    for title, lesion, cls in [("all classes", "class", None)] if together else each:
        units = found.lesions.units(cls, count_empty=count_empty)
        test = None if tested is None else tested.lesions.units(cls, count_empty=count_empty)
        curves = () if tested is None else tested.curves
        own = [curve for some in (curves if cls is None else curves[cls : cls + 1]) for curve in some]
        answers.append(Answer(title, lesion, units, rule.bind()(units), test, tuple(own), count_empty))
    return answers


def entries(
    rule: AnyGuarantee, answers: Sequence[Answer], classes: Sequence[str],
    tested: Gathered | None, unit: Unit,
) -> dict[str, ClassEntry]:  # fmt: skip
    """What thresholds.json says of each class; the same of all where they were calibrated at once."""
    together = len(answers) < len(classes)
    grouped = unit == "group"
    made = {}
    for number, name in enumerate(classes):
        answer = answers[0] if together else answers[number]
        choice = answer.choice
        curves = tested.curves[number] if tested is not None and tested.curves else ()
        words = promise(
            rule, choice, unit=unit, lesion=answer.lesion, together=together or grouped,
            count_empty=answer.count_empty,
        )  # fmt: skip
        details = {"rank": choice.rank, "needed": choice.needed}
        made[name] = ClassEntry(
            threshold=choice.threshold, n=choice.n, left_out=answer.units.left_out, words=words,
            details=details, test=test_of(rule, answer, curves),
        )  # fmt: skip
    return made


def test_of(rule: AnyGuarantee, answer: Answer, curves: Sequence[Curve]) -> dict[str, Any]:
    """What the test split shows of a promise, and what the promise costs there."""
    if answer.test is None or not answer.test.n:
        return {}
    choice, test = answer.choice, answer.test
    fnr = test.fnr(choice.threshold)
    shown: dict[str, Any] = {"n": test.n, "fnr": float(fnr.mean()), "interval": mean_interval(fnr)}
    if not isinstance(rule, Crc):
        epsilon = float(rule.settings()["epsilon"])
        shown["kept"] = int((fnr <= epsilon).sum())
        shown["expected"] = kept_band(choice.n, choice.rank or 0, test.n)
    if curves:
        shown["precision"] = mean_rates(curves, choice.threshold)[0].precision
        shown["precision_at_half"] = mean_rates(curves, 0.5)[0].precision
    return shown


def by(found: Gathered, unit: Unit) -> Gathered:
    """The same, with each image a unit of its own if the promise is about images."""
    if unit == "group":
        return found
    return replace(found, lesions=replace(found.lesions, groups=found.lesions.names))


def left_out(found: Gathered, *, together: bool = False, count_empty: bool = False) -> tuple[str, ...]:
    """A sentence on images without lesion, for each class that is missing in some.

    Args:
        found: calibration images.
        together: whether one T is for all classes at once. An image counts if it has any of them.
        count_empty: whether units without lesion count.
    """
    lesions = found.lesions
    without = [(lesion_of(name), lesions.without_lesion(cls)) for cls, name in enumerate(lesions.classes)]
    if together:
        without = [("lesion", lesions.without_lesion())]
    whole = len(lesions.names)
    sentences = []
    for lesion, empty in without:
        if empty:
            has, counts, are = ("has", "counts", "is") if len(empty) == 1 else ("have", "count", "are")
            then = f"{counts} as kept" if count_empty else f"{are} left out"
            sentences.append(f"{len(empty)} of {whole} images {has} no {lesion} and {then}.")
    return tuple(sentences)
