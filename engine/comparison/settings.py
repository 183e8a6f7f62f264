"""The comparison file: what may stand in it, read and checked. Imports no torch.

A file names data sets, networks and methods, each with the run settings that make it what it is;
:mod:`engine.comparison.grid` multiplies them out.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ValidationError, field_validator, model_validator

from engine.errors import InputError, unknown
from engine.spec import Spec, setting
from engine.tables import COLUMNS

Figure = Literal["curves", "thresholds", "reliability", "panels"]
FIGURES: tuple[Figure, ...] = ("curves", "thresholds", "reliability", "panels")
Seed = Annotated[int, setting(..., ge=0)]
Settings = dict[str, Any]
"""Settings of a run, group → setting → value, as in a run's own file."""
Published = dict[str, dict[str, dict[str, dict[str, str]]]]
"""Data set → network → method → metric → the number as printed."""


class File(Spec):
    """What a comparison file says. Names of data sets, networks and methods are free, and head the tables."""

    title: str = setting(..., min_length=1)
    """What is compared; heads the tables."""
    about: str = ""
    """Where published numbers come from, and what differs here; stands below the tables."""
    preset: str | None = None
    """Preset that lies below all other settings."""
    seeds: tuple[Seed, ...] = setting((0,), min_length=1)
    """Values of training.seed, each a run of its own. Seeds share the split of their data set."""
    size: Literal["native", "trained"] = "native"
    """Size at which test images are scored: their own, or the one that the network saw."""
    checkpoint: Literal["auto", "best", "last"] = "auto"
    """Weights that are scored; `auto` is best where there is a val split, else last."""
    metrics: tuple[str, ...] = setting(("dice",), min_length=1)
    """Columns of the tables: names of engine.tables.COLUMNS."""
    percent: bool = True
    """Shares in percent, as the SMM paper prints them; without it from 0 to 1, as the others do."""
    spread: Literal["std", "interval"] = "std"
    """Behind ±: the standard deviation over seeds, or the 95 % interval over test images, each
    averaged over seeds."""
    test: Literal["none", "welch", "wilcoxon"] = "none"
    """Significance: one-sided Welch t-test over the seeds' means, the best of ours against the strongest
    baseline; two-sided Wilcoxon rank-sum over test images, each of ours against `against`; or none."""
    ours: tuple[str, ...] = ()
    """Methods that are tested; the others are baselines."""
    against: str | dict[str, str] | None = None
    """Baseline of the Wilcoxon test, or one for each of ours, `{"Tversky++" = "Tversky"}`; the first that
    is not ours if not given."""
    figures: tuple[Figure, ...] = FIGURES
    """Training curves, precision, recall and Dice over T, reliability diagrams, example images."""
    settings: Settings = setting({})
    """Settings of every run."""
    data: dict[str, Settings] = setting(..., min_length=1)
    """Data set → its settings, of which data.root is the folder."""
    networks: dict[str, Settings] = setting({})
    """Network → its settings. Without any there is one, named by its model.name."""
    methods: dict[str, Settings] = setting(..., min_length=1)
    """Method → its settings."""
    published: Published = setting({})
    """Published numbers, as printed, to stand beside ours."""
    overrides: Settings = setting({})
    """Settings that win over all others. `compare` notes its flags here in the copy that it keeps."""

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in COLUMNS:
                raise ValueError(str(unknown("metric", name, COLUMNS)).rstrip("."))
        return value

    @field_validator("metrics", "seeds", "ours", "figures")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = [entry for entry in value if value.count(entry) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} stands there twice")
        return value

    @model_validator(mode="after")
    def _tested(self) -> "File":
        paired = self.against if isinstance(self.against, dict) else {}
        baselines = list(paired.values()) or ([self.against] if isinstance(self.against, str) else [])
        for key, names in (("ours", self.ours), ("against", [*paired, *baselines])):
            for name in names:
                if name not in self.methods:
                    raise ValueError(str(unknown("method", name, self.methods, of=f" in {key}")).rstrip("."))
        if self.test != "none" and not 0 < len(self.ours) < len(self.methods):
            raise ValueError(
                f"test = {self.test!r} needs `ours` to name some of the methods, and leave some as baselines"
            )
        for name in baselines:
            if name in self.ours:
                raise ValueError(f"against = {name!r} is one of `ours`: name a baseline")
        if paired and set(paired) != set(self.ours):
            odd = next(name for name in (*self.ours, *paired) if (name in paired) != (name in self.ours))
            raise ValueError(f"against names {list(paired)}, which must be those of `ours`: see to {odd!r}")
        return self

    @model_validator(mode="after")
    def _published_in_the_grid(self) -> "File":
        for data, networks in self.published.items():
            _refuse_unknown("data set", data, self.data, "published")
            for network, methods in networks.items():
                if self.networks:
                    _refuse_unknown("network", network, self.networks, f"published.{data}")
                for method, numbers in methods.items():
                    _refuse_unknown("method", method, self.methods, f"published.{data}.{network}")
                    for metric in numbers:
                        place = f"published.{data}.{network}.{method}"
                        _refuse_unknown("metric", metric, self.metrics, place)
        return self


def _refuse_unknown(kind: str, name: str, known: Mapping[str, Any] | Sequence[str], place: str) -> None:
    if name not in known:
        raise ValueError(str(unknown(kind, name, known, of=f" in [{place}]")).rstrip("."))


def read(path: Path) -> dict[str, Any]:
    """A comparison file as it stands, not yet checked. Raises InputError if it is no readable TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"the comparison file {path} cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the comparison file {path} is not TOML ({error}).") from None


def check(document: Mapping[str, Any], source: str) -> File:
    """The file's content, checked but for the run settings, which the grid resolves.

    Args:
        document: nested TOML.
        source: where it comes from, for messages.

    Raises:
        InputError: an unknown key, a value of the wrong type, or names that do not belong together.
    """
    try:
        return File.model_validate(document)
    except ValidationError as error:
        raise InputError(f"{source}: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    first, *more = error.errors(include_url=False)
    others = f" ({len(more)} more cannot be used either)" if more else ""
    # Numbers are places in a list, which the value that is shown says better.
    place = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    kind, given, message = first["type"], first.get("input"), first["msg"].removeprefix("Value error, ")
    message = (
        message.replace("Tuple", "list")
        .replace("tuple", "list")
        .replace("dictionary", "table")
        .replace(" after validation", "")
    )
    if kind == "extra_forbidden":
        return str(unknown("key", place, File.model_fields)) + others
    if kind == "missing":
        need = "at least one [data.NAME]" if place == "data" else f"{place}"
        need = "at least one [methods.NAME]" if place == "methods" else need
        return f"{need} is missing{others}."
    if not place or kind == "value_error":
        return f"{place + ': ' if place else ''}{message}{others}."
    return f"{place} = {given!r} cannot be used: {message[0].lower()}{message[1:]}{others}."
