"""FOLDER/annotation/suggestions.json: what to annotate next, and why, best first. No torch.

Written by `python -m engine.suggest` in one step, so readers never meet half of it.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.disk import is_disk_full, replace_text
from engine.errors import InputError, unknown
from engine.schema import choices
from engine.spec import Part, Spec
from engine.suggestion.specs import AnyOrder, Varied

FILE = "suggestions.json"
FOLDER = "annotation"
FORMAT: Final = 1
"""Version of the file's content."""


class OrderChoice(Spec):
    """The registry of orders as a setting, for what reads specs."""

    order: AnyOrder = Varied()


ORDERS: Mapping[str, type[Part]] = choices(OrderChoice, "order")
"""Name → spec of every order, the default first."""
DEFAULT: str = OrderChoice().order.name


def named_order(name: str, seed: int | None = None) -> AnyOrder:
    """An order by its name.

    Args:
        name: of the order.
        seed: for those that draw; others go without.

    Raises:
        InputError: no such order, or a seed below 0.
    """
    if name not in ORDERS:
        raise unknown("order", name, ORDERS)
    if seed is not None and seed < 0:
        raise InputError(f"--seed {seed} cannot be used: 0 or more would work.")
    given = {"seed": seed} if seed is not None and "seed" in ORDERS[name].model_fields else {}
    return OrderChoice.model_validate({"order": {"name": name, **given}}).order


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


Side = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]


class PlaceEntry(_Content):
    """A box of an image worth painting."""

    box: tuple[Side, ...] = Field(min_length=2, max_length=3)
    """Along each axis of the image (y, x, or z, y, x) the first pixel and that before which it ends."""
    score: float = Field(ge=0)
    """Mean doubt in it, in the order's own units."""
    reason: str
    """What is in doubt there."""

    @model_validator(mode="after")
    def _not_empty(self) -> "PlaceEntry":
        if any(first >= last for first, last in self.box):
            raise ValueError("each side should end after it begins")
        return self

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as it cuts an array (*S)."""
        return tuple(slice(first, last) for first, last in self.box)


class ImageEntry(_Content):
    """An image worth annotating."""

    image: str = Field(min_length=1)
    """Path below the folder, with `/`; several, one a channel, with `;` between them."""
    rank: int = Field(ge=1)
    """1 for the first."""
    score: float = Field(ge=0)
    """By which it came next, in the order's own units; that of the next one is no higher."""
    reason: str
    """In words with numbers."""
    places: tuple[PlaceEntry, ...] = ()
    """Best first; none where the order sees no difference between places."""


class Suggestions(_Content):
    """What to annotate next."""

    format: Literal[1] = FORMAT
    run: str
    """Directory of the run that was asked."""
    checkpoint: str
    """Name of its checkpoint."""
    epoch: int = Field(ge=0)
    """After which that was saved."""
    order: str
    """Name of the order."""
    seed: int | None = None
    """Of an order that draws."""
    time: datetime
    """When it was asked."""
    images: tuple[ImageEntry, ...]
    """Best first."""

    @model_validator(mode="after")
    def _ranked(self) -> "Suggestions":
        if [each.rank for each in self.images] != list(range(1, len(self.images) + 1)):
            raise ValueError("the images' ranks should be 1, 2, 3 …")
        names = [each.image for each in self.images]
        if len(set(names)) < len(names):
            raise ValueError("each image should be there once")
        for name in names:
            for part in map(PurePosixPath, name.split(";")):
                if part.is_absolute() or ".." in part.parts:
                    raise ValueError(f"{part} should be a path below the folder of the images")
        return self


def path_of(folder: Path) -> Path:
    """Where the suggestions for a folder of images are kept."""
    return folder / FOLDER / FILE


def read(path: Path) -> Suggestions | None:
    """What a file suggests; None where there is none.

    Raises:
        InputError: the file is damaged, was changed to something that cannot be, or is of another version.
    """
    again = "delete it and run python -m engine.suggest again"
    try:
        content: Any = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read ({reason}): {again}.") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise InputError(f"{path} has format {found}, and this version reads format {FORMAT}: {again}.")
    try:
        return Suggestions.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its content"
        message = first["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        raise InputError(f"{path}: {place} cannot be used ({message}): {again}.") from None


def write(path: Path, suggestions: Suggestions) -> None:
    """Write or replace a file in one step; the folder that it lies in is made.

    Raises:
        InputError: it cannot be written; what was there before stays.
    """
    text = json.dumps(suggestions.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text, apart=True)
    except OSError as error:
        reason = "the disk is full" if is_disk_full(error) else error.strerror or str(error)
        raise InputError(
            f"suggestions cannot be written to {path} ({reason}): another place, by --out FILE, would work."
        ) from error
