"""Following a folder while training goes on: which masks were saved since, and which images got one.

What is being written is left alone until it is whole; what can never be used is refused once, in a sentence.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine import fingerprint
from engine.data.dataset import Dataset, kept_sample
from engine.data.decode import ENDINGS, FOLDERS, Source, decode, ending
from engine.data.journal import Page, Stamp
from engine.data.layouts import Case, Found, Table, find
from engine.data.read import load_case
from engine.data.store import Sample
from engine.errors import InputError

QUIET_SECONDS = 2.0
"""A file that was changed less long ago may still be being written."""
READ = ("train", "val")
"""Splits whose masks are read while training goes on."""

Key = tuple[str, ...]
"""Paths of an image's files below the folder, by which it is known again whatever else comes to lie there."""


@dataclass(frozen=True)
class Change:
    """A mask to be taken up.

    Attributes:
        case: of the image.
        part: its split, train or val.
        new: whether the image is to join it.
        sample: the image, and the mask as it is now.
        stamp: of the files as they were read.
    """

    case: Case
    part: str
    new: bool
    sample: Sample
    stamp: Stamp


@dataclass
class Live:
    """A folder that is followed: remembers what it has seen. Create it before the images are read.

    Attributes:
        dealt: image → the version of its files that was taken up, or refused, last.
    """

    dealt: dict[Key, Stamp]
    _listing: object = None
    _told: Found | None = None
    _tried: str = ""
    _noted: set[str] = field(default_factory=set)
    _doubted: dict[Key, Stamp] = field(default_factory=dict)
    _sighted: dict[Key, tuple[Stamp, float]] = field(default_factory=dict)
    _waiting: dict[Key, tuple[Case, str]] = field(default_factory=dict)
    _moved: dict[Key, Case] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, stamps: Mapping[Key, Stamp] | None = None) -> "Live":
        """Follow the folder of a data set.

        Args:
            dataset: whose images are about to be read.
            stamps: the versions of the files that training has, where they are not those of this moment.
        """
        if stamps is None:
            stamps = {key_of(case, dataset.found.root): stamp_of(case) for case, _ in read_cases(dataset)}
        return cls(dict(stamps))

    def changes(self, dataset: Dataset, epoch: int) -> tuple[list[Change], list[str]]:
        """Masks of train and val that were saved since the last look, and what is to be said, in sentences.

        Those of images that training has come first, then new images; in the order of the folder.

        Args:
            dataset: what training has.
            epoch: that begins.
        """
        root = dataset.found.root
        said = self._look_for_cases(dataset)
        changes: list[Change] = []
        for case, part in read_cases(dataset):
            key = key_of(case, root)
            changes += self._read(key, self._moved.get(key, case), part, False, dataset, said)
        for key, (case, part) in list(self._waiting.items()):
            changes += self._read(key, case, part, True, dataset, said)
        return changes, said

    def _look_for_cases(self, dataset: Dataset) -> list[str]:
        """Find out which images have a mask now, if anything else than a known mask has changed."""
        root = dataset.found.root
        try:
            listing = listing_of(root)
            if listing == self._listing:
                return []
            found = find(dataset.data.model_copy(update={"root": str(root), "layout": dataset.found.layout}))
        except (InputError, OSError) as error:
            # Files come one after the other, an image before its mask, and go while they are looked at: only
            # what stays so is told.
            message, before = str(error), self._tried
            self._tried = message
            return self._once([f"new images cannot be taken up: {message}"] if message == before else [])
        self._listing, self._tried = listing, ""
        return self._once(self._sort_in(dataset, found))

    def _once(self, said: Iterable[str]) -> list[str]:
        """Of sentences about the folder, those that were not said yet."""
        news = [message for message in said if message not in self._noted]
        self._noted.update(news)
        return news

    def _sort_in(self, dataset: Dataset, found: Found) -> list[str]:
        """Note which images are new, and where the masks of the others are; what is to be said of them."""
        said = []
        root, before = dataset.found.root, self._told or dataset.found
        if listed(found.classes) != listed(before.classes):
            names = ", ".join(dataset.classes.names)
            said.append(
                f"the classes of {root} are others than when the run began, which goes on with {names}: "
                "a new run would take them up."
            )
        self._told = found
        known = {key_of(case, root): case for case in dataset.found.cases}
        parts = {dataset.found.cases[i].group: part for part, each in dataset.splits.items() for i in each}
        parts = parts if dataset.found.grouped else {}
        self._waiting, self._moved = {}, {}
        called = {key: case.name for case in found.cases if (key := key_of(case, root)) in known}
        # Names are what a run knows its images by: here those of the folder must go on to be the run's.
        renamed = [known[key].name for key, name in called.items() if known[key].name != name]
        taken = {case.name.casefold() for case in dataset.found.cases}
        for case in found.cases:
            key = key_of(case, root)
            if key in known:
                self._moved[key] = replace(case, name=known[key].name, group=known[key].group)
                continue
            part = parts.get(case.group) or case.split or "train"
            if part not in READ:
                continue
            if part == "val" and not dataset.splits["val"]:
                said.append(
                    f"{case.name} is left out: the run began without a val split, so none can join it."
                )
            elif renamed or case.name.casefold() in taken:
                same = renamed[0] if renamed else case.name
                said.append(
                    f"{case.images[0].path} is left out: there is another image of the name {same} now, so "
                    "that images would be mixed up; under another file name it would join."
                )
            else:
                self._waiting[key] = (case, part)
        return said

    def _read(
        self, key: Key, case: Case, part: str, new: bool, dataset: Dataset, said: list[str]
    ) -> Iterator[Change]:
        """The mask of a case, if it is another version than before, whole and right."""
        stamp = stamp_of(case)
        if not stamp or stamp == self.dealt.get(key) or not self._settled(key, stamp):
            return
        try:
            sample = read_sample(case, dataset)
        except (InputError, OSError) as error:
            if stamp_of(case) != stamp or (self._doubted.get(key) != stamp and not readable(case)):
                self._doubted[key] = stamp  # it may be being written: if it stays so, it is refused next time
                return
            self.dealt[key] = stamp
            said.append(f"the mask of {case.name} was not taken up: {error}")
            return
        if stamp_of(case) != stamp:  # it was changed while it was read
            return
        self.dealt[key] = stamp
        yield Change(case, part, new, sample, stamp)

    def _settled(self, key: Key, stamp: Stamp) -> bool:
        """Whether the files are old enough, by their own times or, as clocks of hosts differ, by ours."""
        now = time.monotonic()
        seen, since = self._sighted.get(key, ((), now))
        if seen != stamp:
            since = now
        self._sighted[key] = (stamp, since)
        age = time.time() - max(changed for _, changed in stamp) / 1e9
        return age >= QUIET_SECONDS or now - since >= QUIET_SECONDS

    def joined(self, key: Key) -> None:
        """Take note that training has an image that was new."""
        self._waiting.pop(key, None)


@dataclass(frozen=True)
class Replay:
    """What another run took up, and when: the same is taken up again.

    Attributes:
        pages: epoch → its page.
    """

    pages: Mapping[int, Page]

    def changes(self, dataset: Dataset, epoch: int) -> tuple[list[Change], list[str]]:
        """What that run took up at the beginning of an epoch, as :meth:`Live.changes`.

        Raises:
            InputError: an image is gone, or is another one than it was.
        """
        page = self.pages.get(epoch)
        if page is None:
            return [], []
        changes: list[Change] = []
        for number, entry in enumerate(page.entries):
            sample = kept_sample(entry.case, dataset.channels, page.labels(number))
            page.require_same(entry, fingerprint.image(sample.image))
            changes.append(Change(entry.case, entry.part, entry.new, sample, entry.stamp))
        return changes, []

    def joined(self, key: Key) -> None:
        """Nothing is to be remembered."""


Following = Live | Replay
"""Where take-ups come from."""


def read_cases(dataset: Dataset) -> Iterator[tuple[Case, str]]:
    """The cases whose masks are read, and their splits, in order."""
    return ((case, part) for part in READ for case in dataset.cases(part))


def listed(table: Table | None) -> dict[str, list[int | str]] | None:
    """A table of classes, to be compared, whatever it was read from."""
    return None if table is None else {name: list(values) for name, values in table.items()}


def key_of(case: Case, root: Path) -> Key:
    """By what an image is known again."""
    return tuple(source.path.relative_to(root).as_posix() for source in case.images)


def stamp_of(case: Case) -> Stamp:
    """Version of all files of a case, image and masks; empty if one of them is gone, or not to be reached."""
    sources = (*case.images, *case.masks, *([case.valid] if case.valid is not None else []))
    try:
        return tuple(_stamp(source.path) for source in sources)
    except OSError:
        return ()


def _stamp(path: Path) -> tuple[int, int]:
    """Size and last change of a file; of a folder that is one image, of all that is in it."""
    if path.is_dir():
        within = [file.stat() for file in path.rglob("*")]
        within = within or [path.stat()]
        return sum(each.st_size for each in within), max(each.st_mtime_ns for each in within)
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def listing_of(root: Path) -> tuple[tuple[str, ...], tuple[tuple[str, int, int], ...]]:
    """Names of all files below a folder, and the versions of those that are no images, such as tables:
    equal if no image has come or gone, nor what a layout says of them."""
    names: list[str] = []
    tables: list[tuple[str, int, int]] = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [f"{folder}/{name}" for name in folders if ending(name) in FOLDERS]
        folders[:] = [name for name in folders if ending(name) not in FOLDERS]
        for name in files:
            if not name.startswith("."):
                path = f"{folder}/{name}"
                names.append(path)
                if ending(name) not in ENDINGS:
                    found = Path(path).stat()
                    tables.append((path, found.st_size, found.st_mtime_ns))
    return tuple(sorted(names)), tuple(sorted(tables))


def readable(case: Case) -> bool:
    """Whether all files of a case can be decoded, whatever is in them."""

    def whole(sources: Iterable[Source]) -> bool:
        for source in sources:
            try:
                decode(source)
            except (InputError, OSError):
                return False
        return True

    return whole((*case.images, *case.masks, *([case.valid] if case.valid is not None else [])))


def read_sample(case: Case, dataset: Dataset) -> Sample:
    """Image and mask of a case as a data set's are read.

    Raises:
        InputError: unreadable, or it does not fit the data set: other axes, channels, classes or sizes.
    """
    loaded = load_case(case, dataset.classes, dataset.channels)
    if loaded.labels.ndim != dataset.dims:
        one, many = ("an image", "volumes") if dataset.dims == 3 else ("a volume", "images")
        raise InputError(
            f"{case.images[0].path} is {one}, and the run began with {many}, which are what could join."
        )
    return Sample(case.name, loaded.image, loaded.labels, loaded.valid, loaded.spacing)


def with_cases(dataset: Dataset, joined: Sequence[tuple[Case, str]]) -> Dataset:
    """A data set to which cases have joined, each at the end of its split."""
    cases, splits = list(dataset.found.cases), {part: list(each) for part, each in dataset.splits.items()}
    for case, part in joined:
        splits[part].append(len(cases))
        cases.append(case)
    found = replace(dataset.found, cases=tuple(cases))
    return replace(dataset, found=found, splits={part: tuple(each) for part, each in splits.items()})
