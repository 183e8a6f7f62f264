"""What is painted on the images of a folder, and its way to the disk. No Qt.

A stroke is saved about a second after the hand rests, and every few seconds while it does not. A copy is
written by a worker, one image at a time; what could not be written stays in memory and is tried again.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from engine.data import annotated
from engine.data.annotated import (
    PALETTE,
    SEPARATOR,
    UNLABELLED,
    AnnotationClass,
    Entry,
    Origin,
    Status,
    Version,
)
from engine.data.classes import Classes
from engine.data.decode import probe
from engine.data.layouts import Listing, list_images
from engine.data.raster import Source
from engine.errors import InputError
from napari_smm.annotating_masks import meaning

Labels = NDArray[np.uint8]

REST = 1.0
"""Seconds without a stroke after which what was painted is saved."""
LONGEST = 5.0
"""Seconds after which it is saved though strokes go on."""
RETRY = 10.0
"""Seconds until what could not be saved is tried again, if no stroke comes before."""
FIRST_CLASS = "foreground"

PAINTED: Mapping[Origin, Origin] = {"": "drawn", "predicted": "corrected"}
"""What a mask's origin becomes when someone paints on it."""


@dataclass(frozen=True)
class Folder:
    """A folder of images as it was found.

    Attributes:
        root: absolute.
        listing: its images, and masks that lie beside them.
        entries: what is known of images, by image.
        classes: what can be painted; one class of no particular name where nothing says it.
        meaning: what the values of masks beside images mean; None where they are all one class.
    """

    root: Path
    listing: Listing
    entries: Mapping[str, Entry]
    classes: tuple[AnnotationClass, ...]
    meaning: Classes | None = None

    @property
    def images(self) -> tuple[str, ...]:
        """Each as :class:`engine.data.annotated.Entry` names it."""
        return tuple(SEPARATOR.join(files) for files in self.listing.images)


def read_folder(root: Path) -> Folder:
    """Look through a folder. Nothing is written.

    Raises:
        InputError: no folder, no image in it, or annotations that someone has spoilt.
    """
    root = root.expanduser().absolute()
    listing = list_images(root)
    kept = annotated.read_set(root)
    known = meaning(listing)
    return Folder(root, listing, kept.entries, kept.classes or first_classes(known), known)


def first_classes(known: Classes | None) -> tuple[AnnotationClass, ...]:
    """The classes of a folder that has none yet: those of its masks, or a single one."""
    names = [FIRST_CLASS] if known is None else known.names
    return tuple(
        AnnotationClass(name, value, PALETTE[(value - 1) % len(PALETTE)])
        for value, name in enumerate(names, start=1)
    )


@dataclass
class Unsaved:
    """What is not on the disk yet of an image.

    Attributes:
        since: when the first of it came, on a steady clock.
        due: when it is to be saved.
        labels: whether its labels have changed, and not only its row.
        keep: whether what is on the disk is to become a version in any case.
        changes: of its row.
    """

    since: float
    due: float
    labels: bool = False
    keep: bool = False
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Saving:
    """How things stand with the disk.

    Attributes:
        busy: something is being written, or waits for it.
        last: when something was saved last, on a steady clock; None if nothing was yet.
        fault: why something could not be saved, in a sentence, and is still tried; else empty.
    """

    busy: bool = False
    last: float | None = None
    fault: str = ""

    def words(self, now: float) -> str:
        """For the user."""
        if self.fault:
            return f"⚠ not saved: {self.fault}"
        if self.busy:
            return "saving…"
        if self.last is None:
            return ""
        return f"✔ saved {ago(now - self.last)}"


def ago(seconds: float) -> str:
    """A time that has passed, in words."""
    if seconds < 2:
        return "just now"
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


class Annotator:
    """The images of a folder, what is painted on them, and the saving of it.

    Labels are arrays that the window paints into; :meth:`touched` says that it did. Everything else happens
    in :meth:`tick`, which the window calls from a timer. Signals are emitted on the thread that calls.

    Attributes:
        opened: emitted when another folder is open, or other classes hold.
        moved: emitted with the image that is gone to.
        changed: emitted with an image whose row is another: status, origin, share that is labelled.
        saved: emitted with an image that is on the disk.
        failed: emitted with a sentence when something could not be saved. It is kept and tried again.
        root: the folder; None before one is open.
        folder: as it was found when it was opened, with the classes of now.
        images: as :class:`engine.data.annotated.Entry` names them, in their order.
        current: the image that was gone to last.
        classes: what can be painted.
        name: of who paints.
    """

    opened = Signal()
    moved = Signal(str)
    changed = Signal(str)
    saved = Signal(str)
    failed = Signal(str)

    def __init__(self, name: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        """Have no folder open.

        Args:
            name: of who paints.
            clock: seconds that never go back.
        """
        self.root: Path | None = None
        self.images: tuple[str, ...] = ()
        self.current: str | None = None
        self.classes: tuple[AnnotationClass, ...] = ()
        self.folder: Folder | None = None
        self.name = name
        self._clock = clock
        self._index: dict[str, int] = {}
        self._entries: dict[str, Entry] = {}
        self._labels: dict[str, Labels] = {}
        self._unsaved: dict[str, Unsaved] = {}
        self._released: set[str] = set()
        self._worker: ThreadPoolExecutor | None = None
        self._order: tuple[str, Unsaved, Future[Entry]] | None = None
        self._last: float | None = None
        self._fault = ""

    # The folder

    def open(self, root: Path, folder: Folder | None = None) -> None:
        """Open a folder instead of the one before, which is saved first.

        Args:
            root: the folder of the images.
            folder: as :func:`read_folder` found it, where a worker has looked already.

        Raises:
            InputError: as :func:`read_folder`, or what was painted in the folder before cannot be saved.
        """
        folder = folder or read_folder(root)
        if not self.flush():
            raise InputError(f"the folder before has work that is not saved ({self._fault})")
        self.root, self.folder, self.classes = folder.root, folder, folder.classes
        self.images, self.current = folder.images, None
        self._index = {image: number for number, image in enumerate(folder.images)}
        self._entries = dict(folder.entries)
        self._labels, self._released = {}, set()
        self._last, self._fault = None, ""
        self.opened.emit()

    def go(self, image: str) -> None:
        """Go to an image.

        Raises:
            InputError: the folder has no such image.
        """
        self._require(image)
        self.current = image
        self.moved.emit(image)

    def entry(self, image: str) -> Entry:
        """What is known of an image, with what is not saved yet."""
        self._require(image)
        return self._entries.get(image, Entry(image))

    def index(self, image: str) -> int:
        """The place of an image among all."""
        self._require(image)
        return self._index[image]

    def count(self, statuses: Sequence[str]) -> int:
        """How many images are of some status."""
        found = sum(
            entry.status in statuses for image, entry in self._entries.items() if image in self._index
        )
        return found + (len(self.images) - len(self._entries.keys() & self._index)) * (
            "untouched" in statuses
        )

    def hurry(self, image: str) -> None:
        """Save what is not saved of an image as soon as can be."""
        if image in self._unsaved:
            self._unsaved[image].due = 0.0

    def set_classes(self, classes: Sequence[AnnotationClass]) -> None:
        """Give the folder other classes, on the disk too.

        Raises:
            InputError: names or values that cannot be, or a folder that cannot be written.
        """
        annotated.write_classes(self._folder, classes)
        assert self.folder is not None
        self.classes = tuple(classes)
        self.folder = replace(self.folder, classes=self.classes)
        self.opened.emit()

    # Labels

    def labels(self, image: str) -> Labels:
        """The labels of an image, uint8 (*S): the very array that is painted into; read if they are not held.

        Raises:
            InputError: its mask or its image cannot be read, or they differ in size.
        """
        self._require(image)
        if image not in self._labels:
            self._labels[image] = read_labels(self._folder, self.entry(image))
        self._released.discard(image)
        return self._labels[image]

    def holds(self, image: str) -> bool:
        """Whether an image's labels are in memory."""
        return image in self._labels

    def hold(self, image: str, labels: Labels) -> None:
        """Take an array as an image's labels, instead of what was held.

        Raises:
            InputError: no uint8.
        """
        self._require(image)
        if labels.dtype != np.uint8:
            raise InputError(f"the labels of {image} are {labels.dtype}: uint8 would work.")
        self._labels[image] = labels
        self._released.discard(image)

    def release(self, image: str) -> None:
        """Let an image's labels go, once they are saved."""
        self._released.add(image)
        self._forget()

    def touched(self, image: str, *, keep: bool = False) -> None:
        """Someone has painted on an image: save it soon.

        Args:
            image: its labels have changed, in place.
            keep: make a version of what is on the disk in any case.
        """
        entry = self.entry(image)
        changes: dict[str, Any] = {"annotator": self.name}
        if entry.status == "untouched":
            changes["status"] = "started"
        if entry.origin in PAINTED:
            changes["origin"] = PAINTED[entry.origin]
        self._change(image, changes, labels=True, keep=keep)

    def propose(
        self, image: str, labels: Labels, *, run: str, checkpoint: str, epoch: str, threshold: str
    ) -> None:
        """Take a prediction over as an image's labels; what is painted afterwards makes it a corrected one.

        Args:
            image: whose.
            labels: uint8 (*S), copied into those that are held, unless they are those.
            run: its identity; `checkpoint`, `epoch` and `threshold` of it too.

        Raises:
            InputError: another shape or dtype than the image's labels.
        """
        whence = {"run": run, "checkpoint": checkpoint, "epoch": epoch, "threshold": threshold}
        self._replace(image, labels, {"origin": "predicted", **whence})

    def imported(self, image: str, labels: Labels, status: Status = "done") -> None:
        """Take a mask that was there as an image's labels.

        Args:
            image: whose.
            labels: as of :meth:`propose`.
            status: of the image from now on.

        Raises:
            InputError: as :meth:`propose`.
        """
        nothing = {"run": "", "checkpoint": "", "epoch": "", "threshold": ""}
        self._replace(image, labels, {"origin": "imported", "status": status, **nothing})

    def take(self, entries: Iterable[Entry]) -> None:
        """Rows that someone else has written, but for images of which something is not saved here."""
        for entry in entries:
            if entry.image in self._index and not self.unsaved(entry.image):
                self._entries[entry.image] = entry
                self.changed.emit(entry.image)

    def set_status(self, image: str, status: Status) -> None:
        """Say how far an image is."""
        if self.entry(image).status != status:
            self._change(image, {"status": status}, labels=False, at_once=True)

    def _replace(self, image: str, labels: Labels, changes: dict[str, Any]) -> None:
        held = self.labels(image)
        if labels.shape != held.shape or labels.dtype != np.uint8:
            raise InputError(
                f"the labels for {image} are {labels.dtype} of shape {labels.shape}: uint8 of the image's "
                f"shape {held.shape} would work."
            )
        if labels is not held:
            np.copyto(held, labels)
        if self.entry(image).status == "untouched":
            changes = {"status": "started", **changes}
        self._change(image, {"annotator": self.name, **changes}, labels=True, keep=True)

    def _change(
        self,
        image: str,
        changes: Mapping[str, Any],
        *,
        labels: bool,
        keep: bool = False,
        at_once: bool = False,
    ) -> None:
        now = self._clock()
        waiting = self._unsaved.setdefault(image, Unsaved(now, now))
        waiting.labels |= labels
        waiting.keep |= keep
        waiting.changes.update(changes)
        waiting.due = now if at_once else min(now + REST, waiting.since + LONGEST)
        before = self.entry(image)
        self._entries[image] = replace(before, **changes)
        if self._entries[image] != before:
            self.changed.emit(image)

    # Saving

    @property
    def saving(self) -> Saving:
        """How things stand with the disk."""
        return Saving(bool(self._unsaved or self._order), self._last, self._fault)

    def unsaved(self, image: str) -> bool:
        """Whether something of an image is not on the disk yet."""
        return image in self._unsaved or (self._order is not None and self._order[0] == image)

    def tick(self, now: float) -> None:
        """Take what the worker has written, and give it what is due.

        Args:
            now: seconds of its clock.
        """
        if self._order is not None and self._order[2].done():
            self._take(now)
        if self._order is None:
            due = [image for image, waiting in self._unsaved.items() if waiting.due <= now]
            if due:
                self._submit(min(due, key=lambda image: self._unsaved[image].due))

    def flush(self) -> bool:
        """Save now what is not saved, and wait for it. Returns whether all is saved."""
        tried: set[str] = set()
        while self._order is not None or set(self._unsaved) - tried:
            if self._order is None:
                image = next(image for image in self._unsaved if image not in tried)
                tried.add(image)
                self._submit(image)
            assert self._order is not None
            self._order[2].exception()  # waits
            self._take(self._clock())
        return not self._unsaved

    def close(self) -> bool:
        """Save what is not saved, and end the worker. Returns whether all is saved."""
        well = self.flush()
        if self._worker is not None:
            self._worker.shutdown()
            self._worker = None
        return well

    def _submit(self, image: str) -> None:
        waiting = self._unsaved.pop(image)
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="napari-smm-annotator")
        # A copy, for the hand goes on painting.
        labels = self._labels[image].copy() if waiting.labels else None
        job = self._worker.submit(write, self._folder, image, labels, self.classes, waiting)
        self._order = image, waiting, job

    def _take(self, now: float) -> None:
        assert self._order is not None
        (image, waiting, job), self._order = self._order, None
        newer = self._unsaved.get(image)
        try:
            entry = job.result()
        except (InputError, OSError) as error:
            self._put_back(image, waiting, newer, now)
            self._fault = str(error)
            self.failed.emit(self._fault)
            return
        self._fault, self._last = "", now
        before = self._entries.get(image)
        self._entries[image] = replace(entry, **newer.changes) if newer is not None else entry
        self._forget()
        if self._entries[image] != before:
            self.changed.emit(image)
        self.saved.emit(image)

    def _put_back(self, image: str, waiting: Unsaved, newer: Unsaved | None, now: float) -> None:
        due = now + RETRY if newer is None else newer.due
        more = newer or Unsaved(waiting.since, due)
        self._unsaved[image] = Unsaved(
            waiting.since,
            due,
            labels=waiting.labels or more.labels,
            keep=waiting.keep or more.keep,
            changes={**waiting.changes, **more.changes},
        )

    def _forget(self) -> None:
        for image in [image for image in self._released if not self.unsaved(image)]:
            self._released.discard(image)
            self._labels.pop(image, None)

    def _require(self, image: str) -> None:
        if image not in self._index:
            raise InputError(f"{image} is none of the {len(self.images)} images of {self.root}.")

    @property
    def _folder(self) -> Path:
        if self.root is None:
            raise InputError("no folder is open: open one with images.")
        return self.root


def write(
    root: Path, image: str, labels: Labels | None, classes: Sequence[AnnotationClass], waiting: Unsaved
) -> Entry:
    """Write an image's labels, or its row alone; before the first ones the classes.

    Raises:
        InputError: a folder or disk that cannot be written.
    """
    if not (root / annotated.FOLDER / "classes.toml").exists():
        annotated.write_classes(root, classes)
    if labels is None:
        return annotated.record(root, image, **waiting.changes)
    return annotated.save(root, image, labels, keep=waiting.keep, **waiting.changes)


def read_labels(root: Path, entry: Entry) -> Labels:
    """The saved labels of an image, uint8 (*S); all unlabelled where there are none.

    Raises:
        InputError: the mask or the image cannot be read, or they differ in size.
    """
    shape = probe(Source(root / entry.files[0])).shape
    if not entry.mask:
        return np.full(shape, UNLABELLED, np.uint8)
    labels = annotated.read_mask(root / entry.mask)
    if labels.shape != shape:
        raise InputError(
            f"the mask {root / entry.mask} has shape {labels.shape} but its image has {shape}: a mask of the "
            "image's size would work."
        )
    return labels


def earlier(
    root: Path, entry: Entry, ended: Callable[[], bool] = lambda: False
) -> list[tuple[Version, float]]:
    """The earlier masks of an image, the newest first, with the share of each that is labelled, 0…1.

    Args:
        root: the folder.
        entry: of the image.
        ended: says whether nobody waits for them any more.

    Raises:
        InputError: one cannot be read.
    """
    found = []
    for version in annotated.versions(root, entry):
        if ended():
            break
        labels = annotated.read_mask(version.path)
        found.append((version, float(np.count_nonzero(labels != UNLABELLED)) / labels.size))
    return found


def users_of(
    root: Path, entries: Sequence[Entry], value: int, ended: Callable[[], bool] = lambda: False
) -> list[str]:
    """The images in whose saved masks a value occurs.

    Raises:
        InputError: a mask cannot be read.
    """
    found = []
    for entry in entries:
        if ended():
            break
        if entry.mask and (annotated.read_mask(root / entry.mask) == value).any():
            found.append(entry.image)
    return found
