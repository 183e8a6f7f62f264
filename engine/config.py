"""RunConfig: the one object that says everything about a run.

It is the specs of one run put together. Its layers are defaults, then a preset, then a
file, then flags, each a nested dictionary; :func:`resolve` merges and validates them.
It is written as TOML and drawn as the form in the window. This module imports no torch.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import Field, ValidationError, field_validator, model_validator

from engine.data.specs import Augment, Data
from engine.errors import InputError, unknown
from engine.head import Head
from engine.losses.specs import Loss
from engine.models.specs import Model, UNet
from engine.modulation.specs import Modulation, SMMv2
from engine.optim import Adam, Linear, Optimizer, Schedule
from engine.schema import choices, kinds, spec_at, spec_types
from engine.spec import Spec, setting


class Training(Spec):
    """Length, batches, arithmetic and stopping."""

    epochs: int = setting(100, ge=1, unit="epochs")
    """Passes over the training images."""
    batch_size: int = setting(4, ge=1, unit="images")
    """Images (or crops) in a step. The last, shorter batch is used too."""
    seed: int = setting(0, ge=0)
    """Start of every random number: weights, order, crops, augmentation, dropout."""
    device: str = "auto"
    """`auto` (CUDA, then MPS, then CPU), `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the network; sums and losses are always float32. `auto` is bfloat16 on a GPU that
    has it, float16 on other CUDA GPUs, float32 elsewhere."""
    channels_last: bool = setting(True, advanced=True)
    """Memory format of the network; on a CPU with AVX2 the layers that are quicker there need it."""
    compile: bool = setting(False, advanced=True)
    """Compile the network with torch.compile, which needs a C++ compiler and a minute at the start."""
    deterministic: bool = setting(True, advanced=True)
    """Only algorithms that give the same result twice, so that a resumed run equals an uninterrupted one."""
    head: Literal["auto", "exclusive", "multilabel"] = setting("auto", advanced=True)
    """With several classes: each pixel in one class (softmax) or classes that may overlap (sigmoid).
    `auto` is exclusive, but multilabel for SMM v2, whose grown masks overlap."""
    clip_gradient: float | None = setting(None, gt=0)
    """Largest norm of the gradient; without it the gradient is not clipped."""
    early_stopping: int | None = setting(None, ge=1, unit="epochs")
    """Stop after so many epochs without a better validation loss (training loss where there is no val
    split). SMM's warm-up and γ still follow the configured epochs."""
    threads: int | None = setting(None, ge=1, advanced=True)
    """CPU threads; without it, torch decides."""
    init: str | None = None
    """Run directory, or one of its checkpoints, from whose weights training starts; of other classes only the
    last layer is new. `--init RUN` is short for it, and takes over that run's network too."""

    def located(self) -> "Training":
        """The same with an absolute path of the run to start from, so that it holds from any folder."""
        if self.init is None:
            return self
        return self.model_copy(update={"init": str(Path(self.init).expanduser().resolve())})

    @field_validator("init")
    @classmethod
    def _none_if_empty(cls, value: str | None) -> str | None:
        return value or None


TILES = {2: 1024, 3: 128}
"""Lengths of tiles of images and of volumes where `prediction.tile` says nothing."""


class Prediction(Spec):
    """How whole images are predicted: in validation, in the watched images, and by the commands."""

    tile: int | None = setting(None, ge=32, unit="px")
    """Longer sides are predicted in overlapping tiles of this length. Without it 1024, for volumes 128."""
    overlap: float = setting(0.25, ge=0, le=0.9)
    """Share of a tile by which neighbours overlap; they are blended with Gaussian weights."""

    def tile_of(self, dims: int) -> int:
        """Length of a tile of images (2) or volumes (3), in pixels."""
        return self.tile if self.tile is not None else TILES[dims]


class Watch(Spec):
    """Images whose masks and probabilities are kept for every epoch, to be watched in napari."""

    train: int = setting(4, ge=0, unit="images")
    """Training images."""
    val: int = setting(2, ge=0, unit="images")
    """Validation images."""
    followed: int = setting(8, ge=0, unit="images", advanced=True)
    """Images that join while training goes on (`data.follow`), from then on."""
    longest: int = setting(1024, ge=64, unit="px", advanced=True)
    """Of a longer side, a fixed crop of this length about the middle of the mask is kept; of a volume no more
    voxels than an image of this side has pixels."""


def _usual_loss(fields: dict[str, Any]) -> Any:
    """Dice + cross-entropy, in the form that the method's classes need (SMM paper, 5.3)."""
    overlapping = isinstance(fields.get("modulation"), SMMv2) or (
        "training" in fields and fields["training"].head == "multilabel"
    )
    return choices(RunConfig, "loss")["dice_bce" if overlapping else "dice_ce"]()


class RunConfig(Spec):
    """Everything that decides a run's result, and where its data are."""

    data: Data = Data()
    augment: Augment = Augment()
    model: Model = UNet()
    modulation: Modulation = SMMv2()
    training: Training = Training()
    loss: Loss = Field(default_factory=_usual_loss)
    """dice_bce with SMM v2 or overlapping classes, else dice_ce"""
    optimizer: Optimizer = Adam()
    schedule: Schedule = Linear()
    prediction: Prediction = Prediction()
    watch: Watch = Watch()

    @model_validator(mode="after")
    def _fitting(self) -> "RunConfig":
        if isinstance(self.modulation, SMMv2) and self.training.head == "exclusive":
            raise ValueError(
                "training.head is exclusive, but smm_v2 trains on grown masks that overlap: "
                "use training.head auto or multilabel, or modulation.name smm_v1"
            )
        if self.training.init is not None and getattr(self.model, "weights", None) is not None:
            raise ValueError(
                "training.init and model.weights both say what the network starts from: only one is needed"
            )
        return self

    def located(self) -> "RunConfig":
        """The same with absolute paths, so that the settings hold from any folder."""
        groups = {"data": self.data, "model": self.model, "training": self.training}
        return self.model_copy(update={name: group.located() for name, group in groups.items()})

    def head(self, classes: int) -> Head:
        """Kind of output for a number of foreground classes (definitions: one class is sigmoid)."""
        if classes == 1 or self.training.head == "multilabel" or isinstance(self.modulation, SMMv2):
            return "sigmoid"
        return "softmax"


@dataclass(frozen=True)
class Layer:
    """Settings from one source, for messages: ``source`` is "preset smm", "file x.toml", "flags"."""

    source: str
    values: Mapping[str, Any]


def resolve(layers: Sequence[Layer]) -> tuple[RunConfig, list[str]]:
    """Merge layers, later ones winning, and validate.

    A layer that changes a part's name drops what lower layers set for that part. The text "none"
    unsets a setting that may be left out, unless it is a text itself.

    Returns:
        The config, and one sentence for each part whose lower settings were dropped.

    Raises:
        InputError: an unknown setting or a value out of range, with the known ones.
    """
    merged: dict[str, Any] = {}
    notes: list[str] = []
    for layer in layers:
        below = dict(merged)
        for group, given in layer.values.items():
            if not isinstance(given, Mapping):
                if group not in RunConfig.model_fields:
                    raise unknown("setting", group, RunConfig.model_fields)
                raise InputError(
                    f"{group} needs its settings by name, such as {_example(group)}, not {given!r}."
                )
            lower = below.get(group, {})
            name = lower.get("name", _default_name(group))
            if name is None and lower and "name" in given:
                name = _usual_loss_name(below)
            if lower and "name" in given and given["name"] != name:
                lost = sorted(set(lower) - {"name"} - set(given))
                if lost:
                    notes.append(
                        f"{layer.source}: {group}.name = {given['name']!r} replaces {name!r}; "
                        f"dropped its settings {', '.join(lost)}."
                    )
                lower = {}
            merged[group] = {
                key: value
                for key, value in {**lower, **given}.items()
                if value != "none" or not _unsettable(group, key)
            }
    _name_parts(merged)
    try:
        return RunConfig.model_validate(merged), notes
    except ValidationError as error:
        raise InputError(explain(error, merged)) from None


def _unsettable(group: str, key: str) -> bool:
    takes = kinds(RunConfig, group, key)
    return type(None) in takes and str not in takes


def _default_name(group: str) -> str | None:
    field = RunConfig.model_fields.get(group)
    return getattr(field.default, "name", None) if field else None


def _name_parts(merged: dict[str, Any]) -> None:
    """Write the default's name into parts that were given settings but no name."""
    for group, given in merged.items():
        if group in RunConfig.model_fields and "name" not in given and choices(RunConfig, group):
            given["name"] = _default_name(group) or _usual_loss_name(merged)


def _usual_loss_name(merged: Mapping[str, Any]) -> str:
    others = {group: dict(merged.get(group, {})) for group in ("modulation", "training")}
    others["modulation"].setdefault("name", _default_name("modulation"))
    try:
        return RunConfig.model_validate(others).loss.name
    except ValidationError as error:
        raise InputError(explain(error, others)) from None


def _example(group: str) -> str:
    spec = spec_types(RunConfig.model_fields[group])[0]
    return f"{group}.{next(iter(spec.model_fields))}"


def explain(error: ValidationError, values: Mapping[str, Any]) -> str:
    """The first validation error as one sentence in the settings' own names."""
    # A loss that could not be filled in because another setting is wrong says nothing new.
    errors = [
        found for found in error.errors(include_url=False) if found["type"] != "default_factory_not_called"
    ]
    first, *more = errors
    others = f" ({len(more)} more cannot be used either)" if more else ""
    place, spec = spec_at(RunConfig, first["loc"])
    kind, given = first["type"], first.get("input")
    if kind == "extra_forbidden":
        group = place.rpartition(".")[0]
        part = values[group].get("name") if group and choices(RunConfig, group) else None
        known = [f"{group}.{key}" if group else key for key in spec.model_fields]
        return str(unknown("setting", place, known, of=f" of {group} {part!r}" if part else "")) + others
    if kind == "union_tag_invalid":
        return str(unknown(f"{place}.name", str(given["name"]), choices(RunConfig, place))) + others
    group, _, key = place.rpartition(".")
    if key == "name" and choices(RunConfig, group):  # a registry with one member has no tag
        return str(unknown(place, str(given), choices(RunConfig, group))) + others
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(given, Mapping | Spec):
        return f"{place}: {message}{others}." if place else f"{message}{others}."
    return f"{place} = {given!r} cannot be used: {message[0].lower()}{message[1:]}{others}."


def presets() -> dict[str, str]:
    """Names of the presets, and the comment on their first line."""
    found = sorted(
        (item for item in files("engine").joinpath("presets").iterdir() if item.name.endswith(".toml")),
        key=lambda item: item.name,
    )
    return {
        item.name.removesuffix(".toml"): item.read_text("utf-8").splitlines()[0].lstrip("# ")
        for item in found
    }


def read_preset(name: str) -> Layer:
    """A preset's settings. Raises InputError with the known ones for an unknown name."""
    if name not in presets():
        raise unknown("preset", name, presets())
    text = files("engine").joinpath("presets", f"{name}.toml").read_text("utf-8")
    return Layer(f"preset {name}", tomllib.loads(text))


def read_file(path: Path) -> Layer:
    """A TOML file's settings. Raises InputError if it cannot be read or is no TOML."""
    try:
        return Layer(f"file {path}", tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise InputError(f"the settings file {path} cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the settings file {path} is not TOML ({error}).") from None


def to_toml(config: RunConfig) -> str:
    """The config as TOML, every setting spelled out; what is None is left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True), multiline_strings=False)
