"""What a threshold promises, in words: the same in the window, on the command line and in files."""

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal

from engine.spec import Part
from engine.thresholds.rules import Choice
from engine.thresholds.specs import Cls, Conditional, Crc

GENERIC = ("", "foreground")
"""Names of a class that say no more than that it is one."""


def promise(
    rule: Part, choice: Choice, *, unit: str = "image", lesion: str = "lesion", together: bool = False,
    count_empty: bool = False,
) -> str:  # fmt: skip
    """What is promised of new images, or why nothing is, in a sentence or two.

    Args:
        rule: Cls, Conditional or Crc.
        choice: what it answered.
        unit: what calibration counted: "image", or what several images belong to: "group", "patient" …
        lesion: what must not be missed: :func:`lesion_of` a class; "class" if it is each of several.
        together: whether the promise is made for all classes, or all images of a group, at once.
        count_empty: whether calibration counted units without lesion. If not, the promise is about new
            units that have one.

    Raises:
        TypeError: a rule that guarantees nothing.
    """
    if not isinstance(rule, Cls | Conditional | Crc):
        raise TypeError(f"{type(rule).__name__} promises nothing")
    if not choice.enough:
        return _too_few(rule, choice, unit, "" if count_empty else f" with {one(lesion)}")
    if empty := [sign for sign, share in _shares(rule) if share == 1]:
        return f"{empty[0]} = 100 % promises nothing: all of the lesion may be missed in any new {unit}."
    each_class = together and (unit == "image" or lesion == "class")
    whole = "of each class" if each_class else f"of the {lesion}"
    within = "" if unit == "image" else " in each image"
    new = f"new {unit}s{'' if count_empty else f' with {one(lesion)}'} from the same source"
    counted = "missing nothing" if isinstance(rule, Crc) else "kept"
    also = f"{unit.capitalize()}s without {one(lesion)} count as {counted}. " if count_empty else ""
    basis = f"{also}Calibrated on {_count(choice.n, unit)}."
    if isinstance(rule, Crc):
        return (
            f"On average over {new}, at most {_at_most(rule.alpha)} of the "
            f"{'lesion' if each_class else lesion} is missed{_counted(unit, each_class)}. "
            f"A single {unit} may miss more. {basis}"
        )
    missed = f"at most {_at_most(rule.epsilon)} {whole} is" if rule.epsilon else f"nothing {whole} is"
    kept = f"n at least {_but(rule.alpha)} of {new}, {missed} missed{within}. {basis}"
    if isinstance(rule, Conditional):
        return f"With {_but(rule.delta)} confidence in this calibration: i{kept}"
    return f"I{kept}"


def lesion_of(name: str) -> str:
    """What a class is called where it is said what must not be missed: "lesion" if it has no name."""
    return "lesion" if name in GENERIC else name


def one(lesion: str) -> str:
    """A lesion, as it is said that an image has one: "a nucleus", "an oedema", "vessels".

    Args:
        lesion: of :func:`lesion_of`, or "class".
    """
    if lesion == "class":
        return "a lesion"
    if lesion.endswith("s") and not lesion.endswith(("ss", "us", "is")):
        return lesion
    return f"{'an' if lesion[:1].lower() in 'aeiou' else 'a'} {lesion}"


def _counted(unit: str, each_class: bool) -> str:
    """By which of its parts a unit counts, the mean being one of single numbers."""
    parts = [name for name, several in (("image", unit != "image"), ("class", each_class)) if several]
    return f", each {unit} counted by its worst {' and '.join(parts)}" if parts else ""


def _too_few(rule: Cls | Conditional | Crc, choice: Choice, unit: str, having: str) -> str:
    asked = [(sign, share) for sign, share in _shares(rule) if sign != "ε"]
    if choice.needed is None:
        asked = [(sign, share) for sign, share in asked if not share] or asked
        return (
            f"No number of calibration {unit}s can keep {_settings(asked)}: a larger share would work. "
            "T is 0, so everything is predicted."
        )
    there = f"there {'is' if choice.n == 1 else 'are'} {choice.n or 'none'}"
    needed = _count(choice.needed, f"calibration {unit}")
    wanted = f"{_settings(asked)} needs at least {needed}{having}"
    return f"{wanted}, and {there}: T is 0, so everything is predicted."


def _shares(rule: Cls | Conditional | Crc) -> list[tuple[str, float]]:
    signs = (("α", "alpha"), ("δ", "delta"), ("ε", "epsilon"))
    return [(sign, float(getattr(rule, name))) for sign, name in signs if hasattr(rule, name)]


def _settings(shares: list[tuple[str, float]]) -> str:
    return " with ".join(f"{sign} = {percent(share)}" for sign, share in shares)


def percent(share: float) -> str:
    """A share as a percentage with up to four digits: 0.125 is "12.5 %".

    More than four where they would make 0 % or 100 % of a share that is neither.
    """
    return f"{_plain(_rounded(share, ROUND_HALF_EVEN))} %"


def _at_most(share: float) -> str:
    """A share as a percentage that is not below it: what is promised is not rounded to less."""
    return f"{_plain(_rounded(share, ROUND_CEILING))} %"


def _but(share: float) -> str:
    """All but a share, as a percentage that is not above it."""
    return f"{_plain(100 - _rounded(share, ROUND_CEILING))} %"


def _rounded(share: float, rounding: str) -> Decimal:
    """Percent of a share as it is written: 0.07 is 7, which 100 * 0.07 is not."""
    exact = Decimal(repr(float(share))) * 100
    if exact in (0, 100):
        return exact
    digits = min(exact.adjusted() - 3, (100 - exact).adjusted())
    return exact.quantize(Decimal(1).scaleb(digits), rounding)


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
