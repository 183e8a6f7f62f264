"""RUN/thresholds.json: the thresholds that `python -m engine.calibrate` chose, one entry a rule. No torch.

`docs/run-directory.md` describes the file.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic_core import ErrorDetails

from engine import calibration
from engine.calibration import Calibration, Predicted, replaced
from engine.disk import is_disk_full, replace_text
from engine.errors import InputError, unknown
from engine.lock import one_at_a_time
from engine.record import plain
from engine.schema import choices
from engine.spec import Part, Spec
from engine.thresholds.specs import BestDice, Rule

FILE = "thresholds.json"
FORMAT = 1
"""Version of the file's content."""
MOST_SHOWN = 60
"""Letters of a wrong value that a message repeats."""


class RuleChoice(Spec):
    """The registry of rules as a setting, for what reads specs."""

    rule: Rule = BestDice()


RULES: Mapping[str, type[Part]] = choices(RuleChoice, "rule")
"""Name → spec of every rule."""


class ClassEntry(BaseModel):
    """What a rule chose for one class."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)
    threshold: float
    """T, 0…1, or inf, which predicts nothing."""
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

    @field_validator("threshold")
    @classmethod
    def _probability(cls, threshold: float) -> float:
        if not (0 <= threshold <= 1 or threshold == math.inf):
            raise ValueError('it should be a number from 0 to 1, or "inf"')
        return threshold


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
        given = first["input"]
        percent = isinstance(given, float) and 1 < given <= 100
        hint = f"; shares are meant, so {given:g} % is {given / 100:g}" if percent else ""
        raise InputError(f"--{first['loc'][-1]} {given} cannot be used: {message}{hint}.") from None
    return found


def read(run: Path) -> dict[str, Entry]:
    """Rule → what it chose; empty where nothing was calibrated.

    Raises:
        InputError: the file is damaged, was changed to something that cannot be, or is of another version.
    """
    path = run / FILE
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read ({reason}): move it away and calibrate again.") from error
    if not isinstance(content, dict) or not isinstance(content.get("rules"), dict):
        raise InputError(f'{path} has no table "rules": move it away and calibrate again.')
    if content.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {content.get('format')}, and this version reads format {FORMAT}: move it "
            "away and calibrate again."
        )
    return {name: _entry(path, name, given) for name, given in content["rules"].items()}


def check(run: Path, *others: Path) -> None:
    """See that what a rule chooses can be kept, before images are predicted for it.

    Args:
        run: the run directory.
        others: folders that will be written into, too; those that do not exist yet are passed over.

    Raises:
        InputError: thresholds.json cannot be read, or a folder not be written.
    """
    read(run)
    for folder in (run, *filter(Path.exists, others)):
        try:
            with TemporaryFile(dir=folder) as file:
                file.write(b"?")
        except OSError as error:
            raise InputError(
                f"nothing can be written in {folder} ({error.strerror}), where a calibration is kept: make "
                "room or change its permissions, or calibrate a copy of the run."
            ) from None


def write(run: Path, entry: Entry, images: Calibration | None = None) -> None:
    """Add what a rule chose, in place of what it chose before; other rules stay.

    Of several processes that calibrate a run at the same time each adds its own. Where writing fails, all
    stays as it was.

    Args:
        run: the run directory.
        entry: what the rule chose.
        images: the calibration images, which replace calibration.npz.

    Raises:
        InputError: the file that is there cannot be read, and is left as it is; or the disk is full.
    """
    try:
        with one_at_a_time(run) as alone:
            if alone:
                _sweep(run)
            entries = {**read(run), entry.rule.name: entry}
            content = {"format": FORMAT, "rules": {key: _plain(value) for key, value in entries.items()}}
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            with replaced(run, images) if images is not None else nullcontext():
                replace_text(run / FILE, text, apart=True)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise InputError(
            f"the disk of {run} is full: nothing that was calibrated before has changed; free some space and "
            "calibrate again."
        ) from error


def _sweep(run: Path) -> None:
    """Remove what processes were writing here when they were killed."""
    for name in (FILE, calibration.FILE):
        for unfinished in run.glob(f".{name}.*.new"):
            unfinished.unlink(missing_ok=True)


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
    classes: dict[str, ClassEntry] = Field(min_length=1)
    weights: _Weights
    path: dict[str, Any]
    data: _Data
    made: str


_ENTRY = TypeAdapter(_Entry)


def _entry(path: Path, name: str, given: Any) -> Entry:
    try:
        found = _ENTRY.validate_python(given)
    except ValidationError as error:
        raise InputError(_complaint(path, name, error.errors()[0])) from None
    if found.rule.name != name:
        raise InputError(
            f"{path} has an entry of the rule {found.rule.name} as rules.{name}: give it its own name back, "
            "or move the file away and calibrate again."
        )
    weights = found.weights
    predicted = Predicted(weights.checkpoint, weights.epoch, weights.fingerprint, found.path)
    return Entry(found.rule, found.together, found.classes, predicted, found.data.model_dump(), found.made)


def _complaint(path: Path, name: str, error: ErrorDetails) -> str:
    """A sentence that says which field of an entry is wrong, what it is, and what would work."""
    # The tag by which the rule's own spec was found is no key of the file.
    keys = [str(key) for place, key in enumerate(error["loc"]) if (place, error["loc"][0]) != (1, "rule")]
    field = ".".join(("rules", name, *keys))
    put = "put that back, or move the file away and calibrate again"
    if error["type"] == "missing":
        return f"{path} lacks {field}: {put}."
    asked = error["msg"].removeprefix("Value error, ")
    asked = asked[0].lower() + asked[1:]
    return f"{path} has {shown(error['input'])} as {field}, but {asked}: {put}."


def shown(given: Any) -> str:
    """What somebody gave, as short as a sentence can have it."""
    text = json.dumps(given, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"


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
