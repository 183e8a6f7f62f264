"""What a run that follows its folder has taken up, and when: the masks that it began with, and each since.

The first page tells of the beginning, and there is one for each epoch that took something up. A page holds
the masks themselves, as labels in the size at which training saw them, and says where their images are. So a
run can be repeated, and resumed, whatever has become of the files since. Imports no torch.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from engine.data.layouts import Case
from engine.data.raster import Source
from engine.disk import replacing
from engine.errors import InputError

FOLDER = "followed"
"""Of a run directory."""
FORMAT = 1
ABOUT = "about.json"

NAMED = 5
"""Images that are named where several are told of."""

Stamp = tuple[tuple[int, int], ...]
"""Size and time of change in ns of each file of an image, by which another version is noticed."""


@dataclass(frozen=True)
class Entry:
    """An image whose mask was taken up, or was there when the run began.

    Attributes:
        case: where image and mask are.
        part: its split.
        new: whether the image joined then.
        digest: fingerprint of the image, "" where it was not read (calib, test).
        mask: fingerprint of the labels, "" on the first page.
        stamp: of the files when they were read.
    """

    case: Case
    part: str
    new: bool = True
    digest: str = ""
    mask: str = ""
    stamp: Stamp = ()

    @property
    def read(self) -> bool:
        """Whether its labels are on the page."""
        return self.part in ("train", "val")


@dataclass(frozen=True)
class Page:
    """What a run took up at the beginning of an epoch.

    Attributes:
        path: the file.
        epoch: 1…E; 0 is the beginning of the run.
        entries: in the order in which they were taken up.
        about: what else the page says.
    """

    path: Path
    epoch: int
    entries: tuple[Entry, ...]
    about: Mapping[str, Any]

    def require_same(self, entry: Entry, digest: str) -> None:
        """Refuse an image, by its fingerprint, that is another one than it was."""
        if digest != entry.digest:
            raise InputError(
                f"the image {entry.case.images[0].path} is another one than when {self.path.parents[1]} was "
                "trained, and neither repeating nor resuming that run is possible without it: put it back."
            )

    def labels(self, number: int) -> NDArray[np.uint8]:
        """The mask of an entry, uint8 (*S): 0 background, 1…C classes, 255 where nothing counts.

        Raises:
            InputError: the file is damaged.
        """
        with self.masks() as labels:
            return labels(number)

    @contextmanager
    def masks(self) -> Iterator[Callable[[int], NDArray[np.uint8]]]:
        """A function like :meth:`labels`, for many: the file is opened once."""
        with ExitStack() as stack:
            try:
                arrays = stack.enter_context(np.load(self.path, allow_pickle=False))
            except (OSError, ValueError, BadZipFile) as error:
                raise _damaged(self.path, error) from None

            def labels(number: int) -> NDArray[np.uint8]:
                try:
                    found: NDArray[np.uint8] = arrays[str(number)]
                except (OSError, ValueError, KeyError, BadZipFile, zlib.error) as error:
                    raise _damaged(self.path, error) from None
                return found

            yield labels


def took_up(names: Sequence[str]) -> str:
    """In words: "took up 2 masks (img_3, img_7)"; "" where there is nothing."""
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"took up {len(names)} mask{'s' * (len(names) > 1)} ({', '.join(names[:NAMED])}{more})"


def path_of(folder: Path, epoch: int) -> Path:
    """The file of an epoch's page."""
    return folder / f"{epoch:04d}.npz"


def write_page(
    folder: Path, root: Path, epoch: int, entries: Sequence[Entry], labels: Iterable[NDArray[np.uint8]],
    **about: Any,
) -> None:  # fmt: skip
    """Write a page in one step.

    Args:
        folder: of the pages.
        root: folder of the images, to which their paths are relative.
        epoch: 0…E.
        entries: what was taken up.
        labels: of each entry that is :attr:`Entry.read`, in order.
        about: what else the page shall say, in JSON's own types.

    Raises:
        OSError: the disk is full or not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "epoch": epoch, **about, "images": [_plain(e, root) for e in entries]}
    numbers = [number for number, entry in enumerate(entries) if entry.read]
    with replacing(path_of(folder, epoch)) as file, ZipFile(file, "w", ZIP_DEFLATED) as archive:
        archive.writestr(ABOUT, json.dumps(content, indent=1))
        for number, array in zip(numbers, labels, strict=True):
            with archive.open(f"{number}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def read_page(path: Path, root: Path) -> Page:
    """A page without its masks, which are read when they are asked for.

    Args:
        path: of the page.
        root: folder of the images.

    Raises:
        InputError: no page, or one that is damaged or of another format.
    """
    try:
        with ZipFile(path) as archive:
            about = json.loads(archive.read(ABOUT))
        if about["format"] != FORMAT:
            raise InputError(f"{path} has format {about['format']}, and this version reads format {FORMAT}.")
        entries = tuple(_entry(image, root) for image in about.pop("images"))
        return Page(path, int(about["epoch"]), entries, about)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from None


def read_pages(folder: Path, root: Path, first: int, last: int | None = None) -> list[Page]:
    """The pages of epochs first…last, in order; those that took nothing up have none.

    Raises:
        InputError: as :func:`read_page`.
    """
    numbers = sorted(int(path.stem) for path in folder.glob("*.npz") if path.stem.isdecimal())
    wanted = [number for number in numbers if number >= first and (last is None or number <= last)]
    return [read_page(path_of(folder, number), root) for number in wanted]


def forget_after(folder: Path, epoch: int) -> None:
    """Remove the pages of later epochs, which a run that was killed never finished."""
    for path in folder.glob("*.npz"):
        if path.stem.isdecimal() and int(path.stem) > epoch:
            path.unlink()


def _damaged(path: Path, error: Exception) -> InputError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return InputError(
        f"{path}, where a run keeps the masks that it took up, cannot be read ({reason}): without it the run "
        "can be neither repeated nor resumed."
    )


def _plain(entry: Entry, root: Path) -> dict[str, Any]:
    case = entry.case
    return {
        "name": case.name,
        "part": entry.part,
        "new": entry.new,
        "digest": entry.digest,
        "mask": entry.mask,
        "group": case.group,
        "split": case.split,
        "images": [_where(source, root) for source in case.images],
        "masks": [_where(source, root) for source in case.masks],
        "valid": None if case.valid is None else _where(case.valid, root),
        "stamp": entry.stamp,
    }


def _entry(image: Mapping[str, Any], root: Path) -> Entry:
    case = Case(
        name=image["name"],
        images=tuple(_source(each, root) for each in image["images"]),
        masks=tuple(_source(each, root) for each in image["masks"]),
        valid=None if image["valid"] is None else _source(image["valid"], root),
        group=image["group"],
        split=image["split"],
    )
    stamp = tuple((int(size), int(time)) for size, time in image["stamp"])
    return Entry(case, image["part"], bool(image["new"]), image["digest"], image["mask"], stamp)


def _where(source: Source, root: Path) -> list[str | None]:
    return [source.path.relative_to(root).as_posix(), source.key, source.axes]


def _source(where: Sequence[str], root: Path) -> Source:
    path, key, axes = where
    return Source(root / path, key, axes)
