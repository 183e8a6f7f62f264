"""RUN/thresholds.json: the thresholds that `python -m engine.calibrate` chose, one entry a rule. No torch.

`docs/run-directory.md` describes the file.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from engine.calibration import Predicted
from engine.disk import replace_text
from engine.errors import InputError, unknown
from engine.record import plain
from engine.schema import choices
from engine.spec import Part, Spec
from engine.thresholds.specs import BestDice, Rule

FILE = "thresholds.json"
FORMAT = 1
"""Version of the file's content."""


class RuleChoice(Spec):
    """The registry of rules as a setting, for what reads specs."""

    rule: Rule = BestDice()


RULES: Mapping[str, type[Part]] = choices(RuleChoice, "rule")
"""Name → spec of every rule."""


class ClassEntry(BaseModel):
    """What a rule chose for one class."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)
    threshold: float
    """T, 0 or more; inf predicts nothing."""
    n: int
    """Units, or validation images, that it was chosen on."""
    left_out: int
    """Of them those without lesion, which are not counted in n."""
    words: str
    """What is promised, or that nothing is."""
    details: dict[str, Any] = {}
    """Numbers that belong to the rule: rank and needed, or the rates reached."""
    test: dict[str, Any] = {}
    """What the test split showed; empty where there is none."""


@dataclass(frozen=True)
class Entry:
    """What a rule chose.

    Attributes:
        rule: with its settings.
        together: whether one T is for all classes at once.
        classes: of each class of the run, in its order.
        predicted: what predicted the probabilities.
        data: where the images come from, their number, unit and fingerprint.
        made: when, ISO 8601.
    """

    rule: Rule
    together: bool
    classes: Mapping[str, ClassEntry]
    predicted: Predicted
    data: Mapping[str, Any]
    made: str

    @property
    def guarantees(self) -> bool:
        """Whether the rule promises something of new images."""
        return self.rule.guarantees

    @property
    def thresholds(self) -> tuple[float, ...]:
        """T of each class, in the run's order."""
        return tuple(entry.threshold for entry in self.classes.values())

    @property
    def settings(self) -> str:
        """The rule and its settings in a few words, such as "cls (epsilon 0.1, alpha 0.1)"."""
        return settings(self.rule)


def settings(rule: Rule) -> str:
    """A rule and its settings in a few words, such as "cls (epsilon 0.1, alpha 0.1)"."""
    inside = ", ".join(f"{name} {value:g}" for name, value in rule.settings().items())
    return f"{rule.name} ({inside})" if inside else rule.name


def named_rule(name: str, numbers: Mapping[str, float] | None = None) -> Rule:
    """A rule by its name, with numbers in place of its defaults.

    Raises:
        InputError: no such rule, a setting that it does not have, or a value out of range.
    """
    if name not in RULES:
        raise unknown("rule", name, RULES)
    spec = RULES[name]
    for key in numbers or {}:
        if key not in spec.model_fields:
            having = [other for other, its in RULES.items() if key in its.model_fields]
            raise InputError(f"--{key} is no setting of the rule {name}: it goes with {' or '.join(having)}.")
    try:
        found: Rule = TypeAdapter(Rule).validate_python({"name": name, **(numbers or {})})
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"][0].lower() + first["msg"][1:]
        raise InputError(f"--{first['loc'][-1]} {first['input']} cannot be used: {message}.") from None
    return found


def read(run: Path) -> dict[str, Entry]:
    """Rule → what it chose; empty where nothing was calibrated.

    Raises:
        InputError: the file is damaged, or of another version.
    """
    path = run / FILE
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise InputError(
                f"{path} has format {content['format']}, and this version reads format {FORMAT}: move it "
                "away and calibrate again."
            )
        return {name: _entry(given) for name, given in content["rules"].items()}
    except FileNotFoundError:
        return {}
    except InputError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read ({reason}): move it away and calibrate again.") from error


def write(run: Path, entry: Entry) -> None:
    """Add what a rule chose, in place of what it chose before; other rules stay.

    Raises:
        InputError: the file that is there cannot be read, and is left as it is.
    """
    entries = {**read(run), entry.rule.name: entry}
    content = {"format": FORMAT, "rules": {key: _plain(value) for key, value in entries.items()}}
    replace_text(run / FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def require(run: Path, name: str, predicted: Predicted, classes: Sequence[str]) -> Entry:
    """What a rule chose, if it holds for probabilities that are predicted in this way.

    Raises:
        InputError: no such rule, not calibrated yet, or calibrated on probabilities of something else.
    """
    if name not in RULES:
        raise unknown("threshold rule", name, RULES)
    entry = read(run).get(name)
    how = f"python -m engine.calibrate {run} --rule {name}"
    if entry is None:
        raise InputError(f"the run {run} has no threshold by the rule {name}: {how} makes one.")
    if tuple(entry.classes) != tuple(classes):
        raise InputError(
            f"the calibration of {run} by {name} is of the classes {', '.join(entry.classes)}, and the run "
            f"has {', '.join(classes)}: {how} makes a new one."
        )
    if reason := entry.predicted.differs(predicted):
        raise InputError(
            f"the calibration of {run} by {name} no longer fits ({reason}): {how} makes a new one, or "
            "predict as it was made."
        )
    return entry


class _Data(BaseModel):
    model_config = ConfigDict(extra="allow")
    source: str
    images: int
    unit: str


class _Weights(BaseModel):
    checkpoint: str
    epoch: int
    fingerprint: str


class _Entry(BaseModel):
    rule: Rule
    together: bool
    classes: dict[str, ClassEntry]
    weights: _Weights
    path: dict[str, Any]
    data: _Data
    made: str


_ENTRY = TypeAdapter(_Entry)


def _entry(given: Any) -> Entry:
    found = _ENTRY.validate_python(given)
    classes = found.classes
    if not classes or any(math.isnan(each.threshold) or each.threshold < 0 for each in classes.values()):
        raise ValueError("a threshold is no number from 0 to inf")
    weights = found.weights
    predicted = Predicted(weights.checkpoint, weights.epoch, weights.fingerprint, found.path)
    return Entry(found.rule, found.together, classes, predicted, found.data.model_dump(), found.made)


def _plain(entry: Entry) -> Any:
    return plain(
        {
            "guarantee": entry.guarantees,
            "rule": entry.rule.model_dump(),
            "together": entry.together,
            "classes": {name: each.model_dump() for name, each in entry.classes.items()},
            "data": dict(entry.data),
            "weights": {
                "checkpoint": entry.predicted.checkpoint,
                "epoch": entry.predicted.epoch,
                "fingerprint": entry.predicted.weights,
            },
            "path": dict(entry.predicted.path),
            "made": entry.made,
        }
    )
