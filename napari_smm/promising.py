"""What a threshold rule says of what is in view: T, what is promised, or why nothing is. Pure.

A promise is about new images of one source, predicted in one way. So it is withheld where the probabilities
in view were made by something else than those of the calibration images, and its words say what it is not
about: images that were trained on, and the watched images of a run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.calibration import Predicted
from engine.errors import InputError
from engine.spec import Part
from engine.thresholds import Choice, Units, attainable, lesion_of, mean_bound, promise, softmax
from engine.thresholds.rules import least_alpha
from engine.thresholds.specs import Conditional, Crc, Guarantee
from napari_smm.calibrating import Basis

Floats = NDArray[np.float64]
State = Literal["promise", "short", "refused", "wish", "waiting"]
"""A promise; a wish for one that cannot be made, as with so few images; none, for a reason; a rule that
never makes one; or nothing is known yet."""

NOT_NEW = {
    "train": "the run was trained on it",
    "val": "the run chose its checkpoint by it",
}
"""Split → why a promise about new images is not about one of its images."""
OWN = "It is about each class's own mask (Save masks), not labels."
"""Labels give a pixel that passes for several classes to one of them."""
CALIBRATES = "it is one of the images that T is chosen on"
READING = "The annotated images are being read…"
COUNTING = "The annotated images are being counted…"
PLACES = 101
"""Of T at which the bound of the mean is drawn."""


@dataclass(frozen=True)
class Thresholded:
    """What T is moved on, as far as a promise depends on it.

    Attributes:
        where: tells it from all others: the layer, or the run with image and epoch.
        classes: names of the C classes.
        cls: number of the one in view.
        predicted: what made its probabilities; None where that is not known.
        split: of the run that its image is in, "" where it is in none or that is not known.
        run: the run directory; None where no run is known.
        epoch: of a watched image, the epoch in view, 1…E; 0 of all else.
        saved: checkpoint and epoch of a prediction, as far as is known without fingerprints.
        name: of the layer, "" of a watched image.
    """

    where: object
    classes: tuple[str, ...]
    cls: int
    predicted: Predicted | None = None
    split: str = ""
    run: Path | None = None
    epoch: int = 0
    name: str = ""
    saved: tuple[str, int] | None = None

    @property
    def watched(self) -> bool:
        """Whether it is a watched image of a run, whose probabilities are kept as float16."""
        return self.epoch > 0


@dataclass(frozen=True)
class Attainable:
    """What T promises: all on a curve and above it.

    Attributes:
        over: what x is. "epsilon": y is the least α; it holds from its x to the next one. "threshold": y is
            the least α that bounds the mean share missed at the threshold x.
        x, y: float64 (m,), 0…1.
        point: ε and α, or T and α, that are in use; T may be inf.
        least: the least α that so many calibration images allow.
        n: their number, in units.
    """

    over: Literal["epsilon", "threshold"]
    x: Floats
    y: Floats
    point: tuple[float, float]
    least: float
    n: int


@dataclass(frozen=True)
class Answer:
    """What a rule says.

    Attributes:
        state: what kind of answer it is.
        words: what is promised, or why nothing is: a sentence or two.
        threshold: T of the class in view, exactly; may be inf. None where T is to stay where it is.
        thresholds: number of a class → its T, of all that the rule can be asked about; empty where T is to
            stay.
        notes: what has to be known beside, a sentence each.
        attainable: None where no guarantee was asked for, or nothing is known.
    """

    state: State
    words: str
    threshold: float | None = None
    thresholds: Mapping[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    attainable: Attainable | None = None

    @property
    def guaranteed(self) -> bool:
        """Whether T keeps what the words promise."""
        return self.state == "promise"


WAITING = Answer("waiting", "The annotated images are being looked through…")
"""Before there is an answer."""
NOTHING = Answer(
    "waiting", "There is nothing to move T on yet: watch a run, or choose a layer of probabilities."
)
"""Where no probabilities are in view."""


def answer(
    rule: Part, basis: Basis | None, on: Thresholded, *, together: bool, busy: bool = False, why: str = ""
) -> Answer:
    """What a rule says of what is in view.

    Args:
        rule: with its settings.
        basis: the annotated images that it is asked about; None where there are none yet.
        on: what T is moved on.
        together: whether one T is for all classes at once; only of rules that guarantee something.
        busy: whether there will be a basis soon.
        why: there is none, in a sentence.

    Returns:
        An answer without T where the rule cannot be asked, or must not be.
    """
    guarantees = isinstance(rule, Guarantee)
    if basis is None and busy:
        return Answer("waiting", why or READING)
    if basis is None:
        return _refused(why or "Annotated images are needed, which were not trained on.", guarantees)
    try:
        if reason := misfit(basis, on):
            return _refused(reason, guarantees)
        cls = class_in(basis, on)
        if isinstance(rule, Guarantee):
            found = _guaranteed(rule, basis, None if together else cls, on)
        else:
            found = _wished(rule, basis, cls, on)
        return _of_all(found, rule, basis, on, together=together and guarantees)
    except InputError as error:
        return _refused(_sentence(str(error)), guarantees)


def misfit(basis: Basis, on: Thresholded) -> str:
    """Why thresholds of some annotated images must not be used on what is in view, and what would work.

    Returns:
        A sentence or two; "" where nothing known speaks against it.
    """
    made = basis.predicted
    if made is None:
        return ""
    if on.watched:
        if made.epoch == on.epoch:
            return ""
        return (
            f"The calibration is of {made.checkpoint} after epoch {made.epoch}, and epoch {on.epoch} is in "
            f"view: epoch {made.epoch} would work, or an image predicted with {made.checkpoint}."
        )
    if on.predicted is not None:
        checkpoint, reason = on.predicted.checkpoint, made.differs(on.predicted)
    elif on.saved not in (None, (made.checkpoint, made.epoch)):
        checkpoint, epoch = on.saved
        reason = (
            f"it was made with {made.checkpoint} after epoch {made.epoch}, and these probabilities with "
            f"{checkpoint} after epoch {epoch}"
        )
    else:
        return ""
    if not reason:
        return ""
    run = "RUN" if on.run is None else f'"{on.run}"' if " " in str(on.run) else str(on.run)
    return (
        f"The calibration does not fit: {reason}. Predict the image again in that way, or calibrate this "
        f"checkpoint: python -m engine.calibrate {run} --rule cls --checkpoint {checkpoint}"
    )


def class_in(basis: Basis, on: Thresholded) -> int:
    """Number of the class in view among those of the annotated images.

    Raises:
        InputError: they do not have it, as far as names tell.
    """
    known, name = basis.lesions.classes, on.classes[on.cls]
    if name in known and len(known) == len(on.classes):
        return known.index(name)
    if len(known) == len(on.classes) == 1:
        return 0
    shown = ", ".join(map(repr, known))
    raise InputError(
        f"the annotated images have the class{'es' * (len(known) != 1)} {shown}, and in view is {name!r} of "
        f"{len(on.classes)}: annotated images of the same classes would work."
    )


def _guaranteed(rule: Guarantee, basis: Basis, cls: int | None, on: Thresholded) -> Answer:
    units = basis.lesions.units(cls)
    choice: Choice = rule.bind()(units)
    words = promise(
        rule,
        choice,
        unit=basis.unit,
        lesion="class" if cls is None else lesion_of(basis.lesions.classes[cls]),
        together=cls is None or basis.lesions.grouped,
    )
    # Where a share is 1, all may be missed: those words promise nothing.
    promised = choice.enough and 1 not in rule.settings().values()
    notes = [*_extremes(choice), *_others(basis, on, promised=promised), *basis.notes]
    if promised and len(on.classes) > 1:
        notes.append(OWN)
    curve = _mean_curve(rule, units, choice) if isinstance(rule, Crc) else _pairs(rule, units, choice)
    state: State = "promise" if promised else "short"
    return Answer(state, words, choice.threshold, notes=tuple(notes), attainable=curve)


def _wished(rule: Part, basis: Basis, cls: int, on: Thresholded) -> Answer:
    if not basis.curves and not basis.no_curves:
        return Answer("waiting", COUNTING)
    if not basis.curves:
        return _refused(_sentence(basis.no_curves), guarantees=False)
    found = rule.bind()(basis.curves[cls])
    return Answer("wish", softmax.words(rule, found), found.threshold, notes=tuple(_others(basis, on)))


def _of_all(found: Answer, rule: Part, basis: Basis, on: Thresholded, *, together: bool) -> Answer:
    """The same with T of every class: masks and labels are of all of them, whichever is in view."""
    if found.threshold is None:
        return found
    if together:
        return replace(found, thresholds=dict.fromkeys(range(len(on.classes)), found.threshold))
    thresholds, notes = {on.cls: found.threshold}, []
    for number, name in enumerate(on.classes):
        if number == on.cls:
            continue
        try:
            cls = class_in(basis, replace(on, cls=number))
            asked = basis.lesions.units(cls) if isinstance(rule, Guarantee) else basis.curves[cls]
            choice = rule.bind()(asked)
        except InputError as error:
            notes.append(f"T of {name} stays: {error}")
            continue
        thresholds[number] = choice.threshold
        if isinstance(choice, Choice) and not choice.enough:
            there = f"{choice.n or 'no'} calibration {basis.unit}{'s' * (choice.n != 1)}"
            notes.append(f"Of {name} nothing is promised: {there} with it, and its T is 0.")
    return replace(found, thresholds=thresholds, notes=(*found.notes, *notes))


def _refused(reason: str, guarantees: bool) -> Answer:
    return Answer("refused", f"{'No promise' if guarantees else 'No guarantee, and no T'}. {reason}")


def _extremes(choice: Choice) -> list[str]:
    if math.isinf(choice.threshold):
        return ["T is ∞: nothing is predicted."]
    if choice.threshold == 0 and choice.enough:
        return ["T is 0: everything is predicted."]
    return []


def _others(basis: Basis, on: Thresholded, *, promised: bool = False) -> list[str]:
    """What a user should know of the image in view, and of how it was predicted."""
    notes = []
    reason = NOT_NEW.get(on.split, "") or (CALIBRATES if _calibrates(basis, on) else "")
    if on.watched and promised:
        by = f" predicted with {basis.predicted.checkpoint}" if basis.predicted else ""
        notes.append(f"The promise is about new images{by}, not about this one{reason and f': {reason}'}.")
    elif reason and promised:
        notes.append(f"The promise is about new images, not about this one: {reason}.")
    elif reason:
        notes.append(f"New images may come off worse than this one: {reason}.")
    made = basis.predicted
    if made is None:
        notes.append("Be sure that the network was never trained on the annotated images.")
    elif on.predicted is None and not on.watched:
        notes.append(
            "Nothing is known of how the probabilities in view were predicted: they must come from "
            f"{made.checkpoint} after epoch {made.epoch}, with the settings of the annotated images."
        )
    return notes


def _calibrates(basis: Basis, on: Thresholded) -> bool:
    """Whether the layer in view, or a plane of it, is one of the annotated images."""
    return bool(on.name) and any(
        name == on.name or name.startswith(f"{on.name} [") for name in basis.lesions.names
    )


def _pairs(rule: Part, units: Units, choice: Choice) -> Attainable:
    settings = rule.settings()
    delta = settings["delta"] if isinstance(rule, Conditional) else None
    epsilon, alpha = attainable(units, choice.threshold, delta)
    point = settings["epsilon"], settings["alpha"]
    return Attainable("epsilon", epsilon, alpha, point, least_alpha(units.n, delta), units.n)


def _mean_curve(rule: Crc, units: Units, choice: Choice) -> Attainable:
    x = np.linspace(0.0, 1.0, PLACES)
    missed = np.zeros(PLACES)
    for unit in units.values:
        missed += np.max([_fnr(values, x) for values in unit], axis=0) if unit else 0.0
    point = choice.threshold, mean_bound(units, choice.threshold)
    y = (missed + 1) / (units.n + 1)
    return Attainable("threshold", x, y, point, least_alpha(units.n), units.n)


def _fnr(values: NDArray[Any], thresholds: Floats) -> Floats:
    """Share of sorted lesion probabilities (m,) below each T, for a drawing."""
    return np.asarray(values.searchsorted(thresholds.astype(values.dtype)) / values.size)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
