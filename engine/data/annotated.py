"""The folder `annotation` in which a folder of images keeps what was painted on them.

    annotation/classes.toml      the classes: name, value, colour
    annotation/images.csv        a row for each image that was touched: status, mask, and whence the mask
    annotation/masks/            a mask for each, named like its image: 0 background, 1 … C, 255 unlabelled
    annotation/versions/         earlier ones
    annotation/history.jsonl     a line whenever a row changes in more than its time

A mask is written before the row that tells of it, both in one step, so a reader never meets half of one, and
what a crash interrupts leaves what was there before. Several programs may read while one writes; two that
write take turns. Needs no torch.
"""

import csv
import io
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast, get_args

import imagecodecs
import numpy as np
import tifffile
import tomli_w
from filelock import FileLock
from numpy.typing import NDArray

from engine.data import volumes
from engine.data.classes import MOST_CLASSES
from engine.data.decode import decode, ending, probe, stem
from engine.data.raster import Source
from engine.disk import append_line, is_disk_full, replace_text, replacing
from engine.errors import InputError

FOLDER = "annotation"
UNLABELLED = 255
"""Value of pixels of which nothing is known: they count nowhere. What napari's eraser paints."""
BACKGROUND = 0
SEPARATOR = ";"
"""Between the files of an image that has one for each channel."""
MOST_PIXELS = 1 << 24
"""Above this an image's mask is a tiled TIFF, of which parts can be read, and no PNG."""
VERSION_SECONDS = 60.0
"""Between two versions that are kept while someone paints."""
MOST_VERSIONS = 50

Status = Literal["untouched", "started", "done", "reviewed"]
Origin = Literal["", "drawn", "predicted", "corrected", "imported"]
STATUSES: tuple[Status, ...] = get_args(Status)
ORIGINS: tuple[Origin, ...] = get_args(Origin)
SPLITS = ("", "train", "val", "calib", "test")
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00", "#999999")
"""Okabe and Ito's colours, which the colour-blind can tell apart."""


@dataclass(frozen=True)
class AnnotationClass:
    """A class that can be painted.

    Attributes:
        name: of the class.
        value: in the masks, 1…253.
        color: #rrggbb.
    """

    name: str
    value: int
    color: str


@dataclass(frozen=True)
class Entry:
    """What is known of an image; a row of images.csv.

    Attributes:
        image: path below the folder, with `/`; several, one a channel, with `;` between them.
        status: untouched, started, done (by whom it was painted), reviewed (by whom it was checked).
        mask: path below the folder; empty as long as there is none.
        split: where it belongs, or empty for a split by chance.
        group: what stays in one split (patient, plate); empty for the image alone.
        origin: drawn; predicted and accepted; predicted and corrected; imported from masks that were there.
        run: identity of the run that predicted it, or empty; `checkpoint`, `epoch` and `threshold` of it too.
        annotator: who saved it.
        saved: when, in UTC, ISO 8601.
        labelled: share of its pixels that are labelled, 0…1.
    """

    image: str
    status: Status = "untouched"
    mask: str = ""
    split: str = ""
    group: str = ""
    origin: Origin = ""
    run: str = ""
    checkpoint: str = ""
    epoch: str = ""
    threshold: str = ""
    annotator: str = ""
    saved: str = ""
    labelled: float = 0.0

    @property
    def files(self) -> tuple[str, ...]:
        """The image's files below the folder."""
        return tuple(self.image.split(SEPARATOR))


@dataclass(frozen=True)
class AnnotationSet:
    """What a folder's `annotation` says.

    Attributes:
        root: the folder of the images.
        classes: in the order in which they are offered.
        entries: by image.
    """

    root: Path
    classes: tuple[AnnotationClass, ...]
    entries: Mapping[str, Entry]

    @property
    def table(self) -> dict[str, list[int | str]]:
        """Class → values, with `ignore` for what is unlabelled: `data.classes` of these masks."""
        return {**{each.name: [each.value] for each in self.classes}, "ignore": [UNLABELLED]}

    @property
    def labelled(self) -> tuple[Entry, ...]:
        """The images that can be trained on: those with a mask in which something is labelled."""
        return tuple(
            entry
            for entry in self.entries.values()
            if entry.mask and entry.status != "untouched" and entry.labelled > 0
        )


@dataclass(frozen=True)
class Version:
    """An earlier mask.

    Attributes:
        path: of the file.
        saved: when it was the newest, in UTC.
    """

    path: Path
    saved: datetime


def is_annotated(root: Path) -> bool:
    """Whether a folder has annotations."""
    return (root / FOLDER / "images.csv").is_file() or (root / FOLDER / "classes.toml").is_file()


def read_set(root: Path) -> AnnotationSet:
    """Read a folder's annotations; without any, no classes and no entries.

    Raises:
        InputError: a file that someone has spoilt, named with its line.
    """
    return AnnotationSet(root, _read_classes(root), _read_entries(root))


def write_classes(root: Path, classes: Sequence[AnnotationClass]) -> None:
    """Write the classes, in one step.

    Raises:
        InputError: no class, two of one name or value, reserved names, values outside 1…253, or a
            folder that cannot be written.
    """
    _require_classes(classes, "the classes")
    text = tomli_w.dumps({"class": [asdict(each) for each in classes]})
    with _writing(root):
        replace_text(_made(root) / "classes.toml", text)


def record(root: Path, image: str, **changes: Any) -> Entry:
    """Change an image's row, or begin it, in one step; every other row stays as another program left it.

    Args:
        root: the folder of the images.
        image: as in :class:`Entry`.
        changes: attributes of its :class:`Entry`.

    Returns:
        The row as it stands.

    Raises:
        InputError: a value that cannot be, or a folder that cannot be written.
    """
    with _writing(root), _turn(root):
        return _record(root, image, changes)


def save(root: Path, image: str, labels: NDArray[np.uint8], *, keep: bool = False, **changes: Any) -> Entry:
    """Save an image's mask, then its row.

    The mask that was there becomes a version if it is :data:`VERSION_SECONDS` newer than the last, or
    `keep` asks for it; the oldest beyond :data:`MOST_VERSIONS` go.

    Args:
        root: the folder of the images.
        image: as in :class:`Entry`.
        labels: uint8 (*S): 0 background, 1…C classes, 255 unlabelled.
        keep: make a version of what was there in any case.
        changes: of its :class:`Entry`, but for mask, labelled and saved.

    Raises:
        InputError: labels of another size than the image, or a folder or disk that cannot be written. The
            mask that was there is then still there.
    """
    source = Source(root / image.split(SEPARATOR)[0])
    head = probe(source)
    if labels.shape != head.shape or labels.dtype != np.uint8:
        raise InputError(
            f"the labels of {image} are {labels.dtype} of shape {labels.shape}: uint8 of the image's shape "
            f"{head.shape} would work."
        )
    name = read_entry(root, image).mask or mask_name(root, image, labels)
    path = root / name
    with _writing(root), _turn(root):
        path.parent.mkdir(parents=True, exist_ok=True)
        _keep_version(root, path, always=keep)
        write_mask(path, labels, source)
        shared = float(np.count_nonzero(labels != UNLABELLED)) / labels.size
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return _record(root, image, {**changes, "mask": name, "labelled": shared, "saved": now})


def read_entry(root: Path, image: str) -> Entry:
    """An image's row; an untouched one without a row."""
    return _read_entries(root).get(image, Entry(image))


def read_mask(path: Path) -> NDArray[np.uint8]:
    """A mask or a version as it was saved, uint8 (*S).

    Raises:
        InputError: unreadable, or no mask of this folder's kind.
    """
    pixels = decode(Source(path)).pixels
    if pixels.dtype.kind not in "bui" or int(pixels.min()) < 0 or int(pixels.max()) > 255:
        raise InputError(f"{path} holds {pixels.dtype} as labels: whole numbers from 0 to 255 would work.")
    return np.ascontiguousarray(pixels, np.uint8)


def versions(root: Path, entry: Entry) -> list[Version]:
    """Earlier masks of an image, the newest first."""
    folder = _versions_folder(root, root / entry.mask)
    if not entry.mask or not folder.is_dir():
        return []
    found = [
        Version(path, _when(path)) for path in folder.iterdir() if path.is_file() and path.name[0] != "."
    ]
    return sorted(found, key=lambda version: version.saved, reverse=True)


def mask_name(root: Path, image: str, labels: NDArray[np.uint8]) -> str:
    """Path below the folder at which an image's mask is saved, named like its (first) file."""
    file = PurePosixPath(image.split(SEPARATOR)[0])
    kind = _mask_ending(root / file, labels)
    whole = ending(file.name)
    siblings = [path.name for path in (root / file).parent.iterdir() if path.name[0] != "."]
    alone = [stem(name) for name in siblings if ending(name)].count(stem(file.name)) == 1
    return str(PurePosixPath(FOLDER, "masks", file.parent, stem(file.name) + ("" if alone else whole) + kind))


def write_mask(path: Path, labels: NDArray[np.uint8], like: Source) -> None:
    """Write a mask in one step, by the ending of its path: .png, .tif, or a medical one placed as `like`."""
    if ending(path) == ".png":
        packed = imagecodecs.png_encode(np.ascontiguousarray(labels), level=4)
        with replacing(path, apart=True) as file:
            file.write(packed)
    elif ending(path) in (".tif", ".tiff"):
        axes = "YX" if labels.ndim == 2 else "ZYX"
        with replacing(path, apart=True) as file:
            tifffile.imwrite(
                file, labels, photometric="minisblack", compression="zlib", tile=(256, 256),
                metadata={"axes": axes},
            )  # fmt: skip
    else:
        volumes.write_like(path, labels, like.path)


def _mask_ending(file: Path, labels: NDArray[np.uint8]) -> str:
    if labels.ndim == 2:
        return ".png" if labels.size <= MOST_PIXELS else ".tif"
    medical = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
    return volumes.result_ending(file) if ending(file) in medical else ".tif"


def _versions_folder(root: Path, mask: Path) -> Path:
    return root / FOLDER / "versions" / mask.relative_to(root / FOLDER / "masks")


def _keep_version(root: Path, path: Path, *, always: bool) -> None:
    """Give the mask that is about to be replaced a name of its own beside it, at no cost in bytes."""
    if not path.exists():
        return
    folder = _versions_folder(root, path)
    folder.mkdir(parents=True, exist_ok=True)
    kept = sorted((item for item in folder.iterdir() if item.name[0] != "."), key=_when)
    saved = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    if kept and not always and (saved - _when(kept[-1])).total_seconds() < VERSION_SECONDS:
        return
    name = folder / f"{saved:%Y%m%dT%H%M%S.%fZ}{ending(path)}"
    if not name.exists():
        try:
            os.link(path, name)
        except OSError:  # a file system without links
            with replacing(name, apart=True) as file:
                file.write(path.read_bytes())
    for old in kept[: max(0, len(kept) + 1 - MOST_VERSIONS)]:
        old.unlink(missing_ok=True)


def _when(path: Path) -> datetime:
    """When a version was saved, from its name; from its file's time if someone renamed it."""
    try:
        return datetime.strptime(path.name[:23], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Say in one sentence why a folder cannot be written."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if is_disk_full(error) else (error.strerror or str(error))
        raise InputError(
            f"annotations cannot be written to {root / FOLDER} ({reason}): what was saved before "
            "is still there; free room, or a folder that may be written, would work."
        ) from error


def _turn(root: Path) -> FileLock:
    """Writers of rows take turns."""
    return FileLock(_made(root) / ".lock", timeout=30)


def _made(root: Path) -> Path:
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    return folder


def _record(root: Path, image: str, changes: Mapping[str, Any]) -> Entry:
    rows = _read_rows(root)
    entries = _entries(root, rows)
    before = entries.get(image, Entry(image))
    entry = _valid(replace(before, **changes), "the row")
    entries[image] = entry
    # Columns that the user has added stay.
    own = {row["image"]: row for row in rows}
    names = list(dict.fromkeys([*(field.name for field in fields(Entry)), *(rows[0] if rows else ())]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    for each in entries.values():
        values = {**asdict(each), "labelled": f"{each.labelled:.6g}"}
        writer.writerow({**own.get(each.image, {}), **values})
    replace_text(_made(root) / "images.csv", text.getvalue(), apart=True)
    if replace(entry, saved="", labelled=0.0) != replace(before, saved="", labelled=0.0):
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        append_line(root / FOLDER / "history.jsonl", json.dumps({"time": stamp, **asdict(entry)}))
    return entry


def _read_entries(root: Path) -> dict[str, Entry]:
    return _entries(root, _read_rows(root))


def _read_rows(root: Path) -> list[dict[str, str]]:
    path = root / FOLDER / "images.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, strict=True))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as a table ({error}): comma-separated UTF-8 with a header would work."
        ) from error
    # What stands beyond the header's columns has no name, and what is missing no text.
    return [{name: text or "" for name, text in row.items() if name} for row in rows]


def _entries(root: Path, rows: Sequence[Mapping[str, str]]) -> dict[str, Entry]:
    path = root / FOLDER / "images.csv"
    entries: dict[str, Entry] = {}
    for number, row in enumerate(rows, start=2):
        entry = _entry(row, f"line {number} of {path}")
        if entry.image in entries:
            raise InputError(f"line {number} of {path} names {entry.image} a second time: one is needed.")
        entries[entry.image] = entry
    return entries


def _entry(row: Mapping[str, str], where: str) -> Entry:
    """A row; columns that are missing have their default."""
    names = {field.name for field in fields(Entry)}
    given: dict[str, Any] = {name: text.strip() for name, text in row.items() if name in names and text}
    if not given.get("image"):
        raise InputError(f"{where} names no image: a path below the folder is needed.")
    try:
        given["labelled"] = float(given.get("labelled") or 0)
    except ValueError:
        raise InputError(
            f"{where} gives {given['labelled']!r} as labelled: a share from 0 to 1 would work."
        ) from None
    return _valid(Entry(**given), where)


def _valid(entry: Entry, where: str) -> Entry:
    known: dict[str, Sequence[str]] = {"status": STATUSES, "origin": ORIGINS, "split": SPLITS}
    for name, values in known.items():
        if getattr(entry, name) not in values:
            words = ", ".join(value or "nothing" for value in values)
            raise InputError(f"{where} gives {getattr(entry, name)!r} as {name}: {words} would work.")
    if not 0 <= entry.labelled <= 1:
        raise InputError(f"{where} gives {entry.labelled:g} as labelled: a share from 0 to 1 would work.")
    for part in (*entry.files, entry.mask):
        if PurePosixPath(part).is_absolute() or ".." in PurePosixPath(part).parts:
            raise InputError(f"{where} gives the path {part}: one below the folder of the images would work.")
    return entry


def _read_classes(root: Path) -> tuple[AnnotationClass, ...]:
    path = root / FOLDER / "classes.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        given = table["class"]
        found = tuple(
            AnnotationClass(
                str(each["name"]), each["value"], str(each.get("color", PALETTE[number % len(PALETTE)]))
            )
            for number, each in enumerate(given)
        )
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}): "
            '[[class]] with name = "nucleus", value = 1, color = "#e69f00" for each class would work.'
        ) from error
    _require_classes(found, str(path))
    return found


def _require_classes(classes: Sequence[AnnotationClass], where: str) -> None:
    if not classes:
        raise InputError(f"{where} names no class: one at least is needed.")
    names, values = [each.name for each in classes], [cast(object, each.value) for each in classes]
    for each in classes:
        if not each.name.strip() or each.name in ("background", "ignore", "unlabelled"):
            raise InputError(
                f"{where} names a class {each.name!r}: a name of its own, other than background, ignore "
                "and unlabelled, would work."
            )
        whole = isinstance(each.value, int) and not isinstance(each.value, bool)
        if not whole or not 1 <= each.value <= MOST_CLASSES:
            raise InputError(
                f"{where} gives {each.value!r} to {each.name}: a value from 1 to {MOST_CLASSES} would work."
            )
        color = each.color
        if len(color) != 7 or color[0] != "#" or set(color[1:].lower()) - set("0123456789abcdef"):
            raise InputError(f"{where} gives {each.name} the colour {color!r}: #e69f00 would work.")
    for what, given in (("name", names), ("value", values)):
        twice = next((one for number, one in enumerate(given) if one in given[:number]), None)
        if twice is not None:
            raise InputError(f"{where} gives the {what} {twice!r} to two classes: one of each is needed.")
