"""A data set ready to be trained on: its cases, classes, channels and splits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.boxes import Box
from engine.data.classes import Classes
from engine.data.demo import write_demo
from engine.data.journal import FOLDER, Page, path_of, read_page
from engine.data.layouts import Case, Found, below, find
from engine.data.orientation import world_notes
from engine.data.pairs import some
from engine.data.read import (
    ALPHA,
    load_cases,
    probe_cases,
    read_spaced,
    resolve_channels,
    resolve_classes,
    resolve_dims,
)
from engine.data.rows import open_case
from engine.data.specs import Data
from engine.data.split import FEWEST, SPLITS, split
from engine.data.store import Sample, frame_of, resized
from engine.data.stored import open_stored, require_stored
from engine.errors import InputError


@dataclass(frozen=True)
class Samples:
    """The decoded images of some cases; can be gone through again, and is decoded anew each time."""

    found: Found
    indices: Sequence[int]
    classes: Classes
    channels: int
    notes: dict[str, dict[str, None]]
    """What was done to images as they were read → the names of those to which it was done, in order."""
    page: Page | None = None
    """Of a journal, whose masks are taken in place of those in the files."""

    def __iter__(self) -> Iterator[Sample]:
        if self.page is not None:
            with self.page.masks() as labels:
                for index in self.indices:
                    yield kept_sample(self.found.cases[index], self.channels, labels(index))
            return
        loaded = load_cases(self.found, self.indices, self.classes, self.channels, may_be_empty=True)
        for index, arrays in zip(self.indices, loaded, strict=True):
            name = self.found.cases[index].name
            for note in arrays.notes:
                self.notes.setdefault(note, {})[name] = None
            yield Sample(name, arrays.image, arrays.labels, arrays.valid, arrays.spacing)


@dataclass(frozen=True)
class Dataset:
    """Images and masks found, told apart and divided; nothing but headers and masks was read for it.

    Attributes:
        data: the settings.
        found: cases and layout.
        classes: foreground classes and what in the masks means them.
        channels: of every image.
        splits: train, val, calib and test → indices into ``found.cases``.
        dims: 2 of images, 3 of volumes.
        notes: what was done to images, and to which; grows as they are read.
        page: first page of the journal of a run that is repeated or resumed: its masks are taken in place of
            those in the files, which may have changed since.
    """

    data: Data
    found: Found
    classes: Classes
    channels: int
    splits: Mapping[str, tuple[int, ...]]
    dims: int = 2
    notes: dict[str, dict[str, None]] = field(default_factory=dict)
    page: Page | None = None

    @classmethod
    def again(cls, data: Data, page: Page) -> "Dataset":
        """The images as a run began with them, by the first page of its journal.

        Raises:
            InputError: they were another size then, so that the masks that were kept do not fit.
        """
        about = page.about
        for name in ("size", "spacing"):
            wanted = getattr(data, name)
            if about[name] != (None if wanted is None else list(wanted)):
                raise InputError(
                    f"data.{name} is {wanted}, and the masks in {page.path.parent} were kept of a run with "
                    f"{about[name]}: the same is needed."
                )
        names, rest = tuple(about["classes"]["names"]), about["classes"]["rest"]
        values, colors = (dict(about["classes"][kind]) for kind in ("values", "colors"))
        splits: dict[str, list[int]] = {part: [] for part in SPLITS}
        for index, entry in enumerate(page.entries):
            splits[entry.part].append(index)
        return cls(
            data,
            Found(
                layout=about["layout"], title=about["title"], root=root_of(data),
                cases=tuple(entry.case for entry in page.entries), classes=about["table"], rest=about["rest"],
                grouped=about["grouped"], notes=(),
            ),
            Classes(names, values, colors, rest),
            about["channels"],
            {part: tuple(indices) for part, indices in splits.items()},
            about["dims"],
            page=page,
        )  # fmt: skip

    def about(self) -> dict[str, Any]:
        """What the first page of a journal says of the data set, for :meth:`again`."""
        return {
            "layout": self.found.layout,
            "title": self.found.title,
            "table": self.found.classes,
            "rest": self.found.rest,
            "grouped": self.found.grouped,
            "classes": {
                "names": self.classes.names,
                "values": sorted(self.classes.values.items()),
                "colors": sorted(self.classes.colors.items()),
                "rest": self.classes.rest,
            },
            "channels": self.channels,
            "dims": self.dims,
            "size": self.data.size,
            "spacing": self.data.spacing,
            "fingerprint": self.fingerprint,
        }

    @property
    def fingerprint(self) -> str:
        """Hash of the names and sizes of all files; of a run that is repeated, those of then."""
        return _fingerprint(self.found) if self.page is None else str(self.page.about["fingerprint"])

    @classmethod
    def open(
        cls, data: Data, splits: Mapping[str, Sequence[str]] | None = None, fingerprint: str | None = None
    ) -> "Dataset":
        """Find and divide the images of ``data.root``.

        Args:
            data: the settings; root "demo" is the embedded set, generated when first asked for.
            splits: names of the cases in each split, as a run has recorded them, instead of a new split.
            fingerprint: of the files as a run has recorded them; None accepts any.

        Raises:
            InputError: whatever is wrong with the folder, cases of ``splits`` that are gone, changed files.
        """
        if data.replay is not None and splits is None:
            return cls.again(data, first_page(Path(data.replay), data))
        here = data.model_copy(update={"root": str(write_demo())}) if data.root == "demo" else data
        found = find(here)
        if fingerprint is not None and fingerprint != _fingerprint(found):
            raise InputError(
                f"the files in {found.root} have changed since the run began, so it cannot go on to the "
                "result it would have had: start a new run with the run's config.toml."
            )
        if splits is None:
            divided = split(found.cases, data.split, data.split_seed)
        else:
            divided = _recorded(found, splits)
        heads = probe_cases(found)
        dims = resolve_dims(found, heads)
        channels = resolve_channels(found, data.color, heads)
        found = replace(found, notes=(*found.notes, *world_notes(found, heads, data)))
        return cls(data, found, resolve_classes(found, here), channels, divided, dims)

    def cases(self, part: str) -> list[Case]:
        """The cases of a split."""
        return [self.found.cases[index] for index in self.splits[part]]

    def samples(self, part: str) -> Samples:
        """The decoded images of a split, in the order of :meth:`cases`."""
        return self.some(self.splits[part])

    def note_boxes(self, part: str) -> None:
        """Note what is done to the images of a split where only boxes of them are read."""
        for case in self.cases(part):
            if any(require_stored(source).alpha for source in case.images):
                self.notes.setdefault(ALPHA, {})[case.name] = None

    def some(self, indices: Sequence[int]) -> Samples:
        """The decoded images of any cases."""
        return Samples(self.found, indices, self.classes, self.channels, self.notes, self.page)

    def picture(
        self, part: str, number: int, box: Box | None = None
    ) -> tuple[NDArray[Any], tuple[float, ...]]:
        """A box of one image of a split as it is shown, and the sides of its pixels along each axis of S.

        Args:
            part: train, val, calib or test.
            number: of the image in its split.
            box: of the image, resized as ``data.size`` or ``data.spacing`` say; None for all of it.

        Returns:
            (*box, channels); the sides in mm if it is a volume whose file knows them, else in pixels of the
            file.
        """
        case = self.cases(part)[number]
        if box is not None and self.data.size is None and self.data.spacing is None and _in_boxes(case):
            rows = open_case(case, self.channels)
            known = rows.spacing if self.dims == 3 and rows.spacing is not None else (1.0,) * self.dims
            return rows.box(box), known
        image, spacing = read_spaced(case, self.channels)
        shown = resized(image, frame_of(image.shape[:-1], spacing, self.data), labels=False)
        unit = spacing if self.dims == 3 and spacing is not None else (1.0,) * self.dims
        lengths = zip(unit, image.shape[:-1], shown.shape[:-1], strict=True)
        sides = tuple(each * own / left for each, own, left in lengths)
        # A copy, so that the whole image can be let go.
        return (shown if box is None else np.ascontiguousarray(shown[box])), sides

    def summary(self) -> dict[str, Any]:
        """What run.json says of the data."""
        return {
            "root": str(self.found.root),
            "layout": self.found.layout,
            "images": len(self.found.cases),
            "classes": list(self.classes.names),
            "channels": self.channels,
            "dims": self.dims,
            "grouped": self.found.grouped,
            "fingerprint": self.fingerprint,
        }

    def names(self) -> dict[str, list[str]]:
        """Split → names of its cases, for run.json."""
        return {part: [case.name for case in self.cases(part)] for part in SPLITS}

    def remarks(self) -> list[str]:
        """What the user should know before training, a sentence each.

        What was done to images is known, and said, when they have been read.
        """
        remarks = list(self.found.notes)
        remarks += [f"{note}: {some(list(names), 'image')}." for note, names in self.notes.items()]
        if not self.found.grouped and sum(map(bool, self.splits.values())) > 1:
            remarks.append(
                "the layout names no patients or groups, so each image counts as its own; if some belong "
                "together, data.group keeps them in one split."
            )
        without = {"val": "the last checkpoint is the one used", "test": "evaluate needs --split train"}
        missing = [part for part in without if not self.splits[part]]
        if missing:
            count = len(self.found.cases)
            images = f"{count} image{'s' * (count != 1)}"
            few = f"; under {FEWEST} none are split off" if count < FEWEST else ""
            remarks.append(
                f"there is no {' and no '.join(missing)} split ({images}{few}), so "
                f"{' and '.join(without[part] for part in missing)}."
            )
        return remarks


def kept_sample(case: Case, channels: int, labels: NDArray[np.uint8]) -> Sample:
    """The image of a case from its file, with labels that were kept of it.

    Raises:
        InputError: the image is gone or damaged.
    """
    image, spacing = read_spaced(case, channels)
    return Sample(case.name, image, labels, None, spacing)


def root_of(data: Data) -> Path:
    """The folder of the images."""
    return write_demo() if data.root == "demo" else Path(data.root).expanduser()


def first_page(run: Path, data: Data) -> Page:
    """The first page of a run's journal.

    Raises:
        InputError: it has none.
    """
    path = path_of(run / FOLDER, 0)
    if not path.is_file():
        raise InputError(
            f"{run} is no run that took masks up as it went (it has no {FOLDER}/{path.name}): the run "
            "directory of one with data.follow would work."
        )
    return read_page(path, root_of(data))


def _in_boxes(case: Case) -> bool:
    """Whether boxes of a case's image can be read without the rest."""
    return all(open_stored(source.path, source.axes) is not None for source in case.images)


def _fingerprint(found: Found) -> str:
    """Hash of the names and sizes of all files, by which a changed folder is noticed."""
    digest = sha256()
    for case in found.cases:
        valid = (case.valid,) if case.valid is not None else ()
        for source in (*case.images, *case.masks, *valid):
            name = below(found.root, source.path)
            digest.update(f"{name}:{_bytes(source.path)}\n".encode())
    return digest.hexdigest()


def _bytes(path: Path) -> int:
    """Size of a file, or of all files below a folder that is one image."""
    known = path.stat()
    if not S_ISDIR(known.st_mode):
        return known.st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _recorded(found: Found, splits: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, ...]]:
    places = {case.name: index for index, case in enumerate(found.cases)}
    gone = [name for names in splits.values() for name in names if name not in places]
    if gone:
        raise InputError(
            f"{len(gone)} images of the run are no longer in {found.root} (the first is {gone[0]}): "
            "put them back, or start a new run."
        )
    return {part: tuple(places[name] for name in splits.get(part, ())) for part in SPLITS}
