"""What a threshold promises, in words: the same in the window, on the command line and in files."""

from engine.spec import Part
from engine.thresholds.rules import Choice
from engine.thresholds.specs import Cls, Conditional, Crc


def promise(
    rule: Part, choice: Choice, *, unit: str = "image", lesion: str = "lesion", together: bool = False
) -> str:
    """What is promised of new images, or why nothing is, in a sentence or two.

    Args:
        rule: Cls, Conditional or Crc.
        choice: what it answered.
        unit: what calibration counted: "image", "group", "patient" …
        lesion: what must not be missed: the class's name.
        together: whether the promise is made for all classes, or all images of a group, at once.

    Raises:
        TypeError: a rule that guarantees nothing.
    """
    if not choice.enough:
        return _too_few(rule, choice, unit)
    basis = f"Calibrated on {_count(choice.n, unit)}."
    whole = f"of every {lesion}" if together else f"of the {lesion}"
    if isinstance(rule, Crc):
        return (
            f"On average over new {unit}s from the same source, at most {percent(rule.alpha)} {whole} is "
            f"missed. A single {unit} may miss more. {basis}"
        )
    if isinstance(rule, Cls | Conditional):
        inside = "at least " + percent(1 - rule.alpha) if rule.alpha < 1 else "none"
        kept = (
            f"in {inside} of new {unit}s from the same source, at most {percent(rule.epsilon)} "
            f"{whole} is missed"
        )
        if isinstance(rule, Conditional):
            return f"With {percent(1 - rule.delta)} confidence in this calibration: {kept}. {basis}"
        return f"{kept[0].upper()}{kept[1:]}. {basis}"
    raise TypeError(f"{rule.name!r} promises nothing")  # type: ignore[attr-defined]


def _too_few(rule: Part, choice: Choice, unit: str) -> str:
    asked = ", ".join(
        f"{sign} = {percent(getattr(rule, name))}"
        for name, sign in (("alpha", "α"), ("delta", "δ"))
        if hasattr(rule, name)
    )
    there = f"there {'is' if choice.n == 1 else 'are'} {choice.n}"
    if choice.needed is None:
        return f"No number of calibration {unit}s keeps {asked}: a share above 0 % is needed. T is 0."
    return (
        f"{asked} needs at least {_count(choice.needed, f'calibration {unit}')} with a lesion, and {there}: "
        "T is 0, so everything is predicted."
    )


def percent(share: float) -> str:
    """A share as a percentage with up to four digits: 0.125 is "12.5 %"."""
    return f"{100 * share:.4g} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
