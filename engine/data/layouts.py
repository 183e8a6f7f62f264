"""Finding a data set's images, masks and fields of view, whatever its owner calls them.

The layouts themselves are data, in ``layouts.toml``: patterns (see ``patterns.py``),
class tables and where groups come from.
"""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from engine.data import annotated, groups, nnunet
from engine.data.decode import ENDINGS, FOLDERS, ending, read_text
from engine.data.decode import Source as Source
from engine.data.pairs import Files, Matches, Part, check, match, some
from engine.data.specs import Data
from engine.errors import InputError, unknown

Table = Mapping[str, Sequence[int | str]]
ANNOTATION = "annotation"
"""Layout of a folder that was annotated in the workbench, whose images a table names."""
DIGITS = re.compile(r"(\d+)")
UNSAFE = re.compile(r"[^\w.+-]+")
"""What does not go into a file's name on every system."""
NO_IMAGES = (".mat",)
"""Endings of files that hold what they like, of which only a layout knows which is an image."""


@dataclass(frozen=True)
class Case:
    """One image and its truth."""

    name: str
    """Unique, readable, and safe as part of a file name."""
    images: tuple[Source, ...]
    """One file, or one per channel."""
    masks: tuple[Source, ...]
    """One file, or several to be merged."""
    valid: Source | None = None
    """Field of view."""
    group: str = ""
    """Patient, eye, sequence; the case's own name where the layout has none."""
    split: str = ""
    """train, val or test as the layout says; empty where it does not."""


@dataclass(frozen=True)
class Found:
    """What lies in a data set's folder."""

    layout: str
    title: str
    root: Path
    cases: tuple[Case, ...]
    classes: Table | None
    """Class → mask values or colours, where the layout knows them."""
    rest: str
    """What the layout says of mask values that no class names; empty where it says nothing."""
    grouped: bool
    """Whether groups are known; if not, each image is its own."""
    notes: tuple[str, ...]
    """What the user should know, a sentence each."""


@dataclass(frozen=True)
class Layout:
    """A way to lay out a data set. The fields are described at the head of ``layouts.toml``."""

    name: str
    title: str
    tree: str
    reference: str
    part: tuple[Part, ...]
    where: Mapping[str, str] = field(default_factory=dict)
    classes: Table | None = None
    rest: str = ""
    group: str = ""
    group_key: str = ""
    sequences: tuple[int, ...] = ()
    json: str = ""
    sign: str = ""
    generic: bool = False


@cache
def known() -> tuple[Layout, ...]:
    """The layouts that are known by name, owners' before generic ones, and ``patterns``."""
    text = Path(__file__).with_name("layouts.toml").read_text(encoding="utf-8")
    return (*map(_layout, tomllib.loads(text)["layout"]), PATTERNS)


def _layout(table: Mapping[str, Any]) -> Layout:
    return Layout(**{**table, "part": tuple(map(_part, table["part"]))})


def _part(table: Mapping[str, Any]) -> Part:
    """A part from its TOML table, where ``image``, ``mask`` and ``valid`` are one pattern or several."""
    lists = {name: table[name] for name in ("image", "mask", "valid") if name in table}
    tuples = {name: (given,) if isinstance(given, str) else tuple(given) for name, given in lists.items()}
    return Part(**{**table, **tuples})


PATTERNS = Layout(
    name="patterns",
    title="A pair of patterns of your own: data.images, data.masks and, if you have it, data.valid",
    tree='data.images = "raw/{id}.tif", data.masks = "labels/{id}_mask.png"',
    reference="{id} ties image and mask; {group}, {channel} and {part}, and several data.images with ; "
    "between them, as in the documentation",
    part=(),
    generic=True,
)


@dataclass(frozen=True)
class Listing:
    """The images of a folder, with or without masks.

    Attributes:
        images: the files of each, below the root and with ``/``: one, or one per channel.
        masks: first file of an image → the masks that lie beside it.
        classes: class → mask values or colours, where the folder's layout knows them.
        rest: what the layout says of other values.
    """

    images: tuple[tuple[str, ...], ...]
    masks: Mapping[str, tuple[Source, ...]]
    classes: Table | None = None
    rest: str = ""


def find(data: Data) -> Found:
    """Find the cases below ``data.root`` by the layout that is named, or that fits.

    Cases are sorted by path, numbers by value. ``auto`` takes an owner's layout before
    a generic one. A part that has images only, such as a test set without public
    truth, is left out with a note.

    Raises:
        InputError: no such folder, unknown layout, nothing or several layouts found,
            incomplete or ambiguous pairs, a group in two of the layout's splits.
    """
    root = _root(data.root)
    files = _files(root)
    layout = _choose(data, root, files)
    if layout.name == ANNOTATION:
        return _annotated(data, root, layout)
    parts = _match(layout, files)
    _require_pairs(root, files, layout, parts)
    notes = [note for part in parts for note in check(root, part, layout.tree)]
    pieces = {path: piece for part in parts for path, piece in part.pieces.items()}
    cases = _named(root, [case for part in parts for case in _cases(root, part, data.axes)])
    groups_of, more = _groups(data, root, layout, cases, pieces)
    known_groups = groups_of or [None] * len(cases)
    cases = [replace(case, group=group or case.name) for case, group in zip(cases, known_groups, strict=True)]
    _refuse_straddling(root, cases)
    described = nnunet.read_classes(root / layout.json) if layout.json and data.classes is None else None
    return Found(
        layout=layout.name,
        title=layout.title,
        root=root,
        cases=tuple(cases),
        classes=described or layout.classes,
        rest=layout.rest,
        grouped=groups_of is not None,
        notes=(*notes, *more),
    )


def list_images(root: Path) -> Listing:
    """All images of a folder, and the masks that lie beside them in a layout that is recognised.

    Without such masks every file that can be read is an image. What is in ``annotation`` is neither.

    Raises:
        InputError: no such folder, two owners' layouts that fit, or nothing that can be read.
    """
    root = _root(str(root))
    files = _files(root)
    fitting = [layout for layout in known() if _fits(layout, _match(layout, files))]
    owners = [layout for layout in fitting if not layout.generic]
    if len(owners) > 1:
        names = " and ".join(layout.name for layout in owners)
        raise InputError(f"{root} fits the layouts {names}: a folder with the images of one would work.")
    if not fitting:
        images = tuple(
            (path,) for path in files.paths if ending(path) in ENDINGS and ending(path) not in NO_IMAGES
        )
        if not images:
            raise InputError(
                f"there is no image in {root} ({len(files.paths)} other files): a folder with images "
                f"({', '.join(each for each in ENDINGS if each not in NO_IMAGES)}) would work."
            )
        return Listing(images, {})
    layout = (owners or fitting)[0]
    parts = _match(layout, files)
    cases = [case for part in parts for case in _cases(root, part, None)]
    return Listing(
        images=tuple(tuple(paths) for part in parts for paths in part.images.values()),
        masks={_path(root, case): case.masks for case in cases},
        classes=(nnunet.read_classes(root / layout.json) if layout.json else None) or layout.classes,
        rest=layout.rest,
    )


def _annotated(data: Data, root: Path, layout: Layout) -> Found:
    """The images of an annotated folder that have labels."""
    kept = annotated.read_set(root)
    entries = kept.labelled
    gone = [path for entry in entries for path in (*entry.files, entry.mask) if not (root / path).exists()]
    if gone:
        raise InputError(
            f"{root / annotated.FOLDER / 'images.csv'} names {some(gone, 'file')} that "
            f"{'is' if len(gone) == 1 else 'are'} gone: put back, or the rows taken out, would work."
        )
    if not entries or not kept.classes:
        rows = len(kept.entries)
        raise InputError(
            f"none of the {rows} image{'s' * (rows != 1)} in {root / annotated.FOLDER} has a label: "
            "paint on one at least and save it."
        )
    cases = _named(
        root,
        [
            Case(
                name=entry.image.split(annotated.SEPARATOR)[0].rsplit("/", 1)[-1].rpartition(".")[0],
                images=tuple(Source(root / path, axes=data.axes) for path in entry.files),
                masks=(Source(root / entry.mask),),
                group=entry.group,
                split=entry.split,
            )
            for entry in entries
        ],
    )
    if data.group:
        paths = [_path(root, case) for case in cases]
        own = groups.by_user_regex(paths, data.group)
        cases = [replace(case, group=group) for case, group in zip(cases, own, strict=True)]
    grouped = any(case.group for case in cases)
    cases = [replace(case, group=case.group or case.name) for case in cases]
    _refuse_straddling(root, cases)
    started = sum(entry.status == "started" for entry in entries)
    note = f"{started} of {len(cases)} images are not done yet: what is unlabelled in them counts nowhere."
    return Found(
        layout=layout.name,
        title=layout.title,
        root=root,
        cases=tuple(cases),
        classes=kept.table,
        rest="",
        grouped=grouped,
        notes=(note,) if started else (),
    )


def _root(given: str) -> Path:
    wanted = "the folder that holds images and masks is needed"
    if not given:
        raise InputError(f"data.root is not given: {wanted}.")
    root = Path(given).expanduser()
    if not root.exists():
        raise InputError(f"data.root {given!r} does not exist, seen from {Path.cwd()}: {wanted}.")
    if not root.is_dir():
        raise InputError(f"data.root {given!r} is a file: {wanted}.")
    return root


def _files(root: Path) -> Files:
    """All files below the root, with ``/``, 2 before 10; hidden ones and archives' leftovers are skipped.

    A folder that is one image, such as x.zarr, is a file.
    """
    files = []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        if Path(folder) == root and annotated.is_annotated(root):
            folders.remove(annotated.FOLDER)
        names += [name for name in folders if ending(name) in FOLDERS]
        folders[:] = [name for name in folders if ending(name) not in FOLDERS]
        below = Path(folder).relative_to(root).as_posix()
        before = "" if below == "." else f"{below}/"
        files += [before + name for name in names if not name.startswith(".")]
    return Files.of(sorted(files, key=_natural))


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which 2 comes before 10."""
    pieces = DIGITS.split(text)
    return [(1, int(piece), piece) if piece.isdecimal() else (0, 0, piece) for piece in pieces]


def _choose(data: Data, root: Path, files: Files) -> Layout:
    """The layout that ``data`` names, or the one that fits."""
    own = data.images or data.masks or data.valid
    if data.layout == "patterns" or (data.layout == "auto" and own):
        return _own(data)
    if own:
        raise InputError(
            f"data.images, data.masks and data.valid are given with data.layout {data.layout!r}: "
            "they go with the layout 'patterns'."
        )
    layouts = {layout.name: layout for layout in known()}
    if data.layout == "auto" and annotated.is_annotated(root):
        return layouts[ANNOTATION]
    if data.layout != "auto":
        if data.layout not in layouts:
            raise unknown("data.layout", data.layout, ["auto", *layouts])
        return layouts[data.layout]
    fitting = [layout for layout in layouts.values() if _fits(layout, _match(layout, files))]
    owners = [layout for layout in fitting if not layout.generic]
    if len(owners) > 1:
        names = " and ".join(layout.name for layout in owners)
        raise InputError(f"{root} fits the layouts {names}: one of them is needed as data.layout.")
    return (owners or fitting or [_nearest(files)])[0]


def _fits(layout: Layout, parts: Sequence[Matches]) -> bool:
    """Whether there are pairs and, where the layout has a sign, all their images bear it."""
    images = [path for part in parts for key in part.pairs for path in part.images[key]]
    sign = re.compile(layout.sign, re.IGNORECASE)
    return bool(images) and all(sign.search(path) for path in images)


def _match(layout: Layout, files: Files) -> list[Matches]:
    return [match(part, layout.where, files) for part in layout.part]


def _nearest(files: Files) -> Layout:
    """The layout that fits most images, though no pair; the generic one if none fits any.

    One with a sign may fit pairs that lack it, and so would be taken after all.
    """
    layouts = [layout for layout in known() if layout.part and not layout.sign]
    generic_first = sorted(layouts, key=lambda layout: not layout.generic)
    return max(generic_first, key=lambda layout: sum(len(part.images) for part in _match(layout, files)))


def _own(data: Data) -> Layout:
    """The layout of ``data.images`` and ``data.masks``."""
    if not (data.images and data.masks):
        missing = "data.masks" if data.images else "data.images"
        raise InputError(f"{missing} is not given: the layout 'patterns' is {PATTERNS.tree}.")
    channels = tuple(text.strip() for text in data.images.split(";"))
    for text in (*channels, data.masks, *([data.valid] if data.valid else [])):
        if "{id}" not in text:
            raise InputError(f"the pattern {text!r} has no {{id}}, unlike {PATTERNS.tree}: it is needed.")
    part = Part(channels, (data.masks,), (data.valid,) if data.valid else ())
    return replace(
        PATTERNS, part=(part,), tree=" with ".join(filter(None, (data.images, data.masks, data.valid)))
    )


def _require_pairs(root: Path, files: Files, layout: Layout, parts: Sequence[Matches]) -> None:
    if any(part.pairs for part in parts):
        return
    images = [path for part in parts for paths in part.images.values() for path in paths]
    masks = [path for part in parts for paths in part.masks.values() for path in paths]
    endings = Counter(ending(path) or "none" for path in files.paths).most_common(3)
    most = ", ".join(ending for ending, _ in endings)
    count = len(files.paths)
    lying = f"{count} other file{'s' * (count != 1)}, most {most}" if count else "no file"
    seen = f"{some(images, 'image')} and {some(masks, 'mask')}" if images or masks else lying
    raise InputError(
        f"no pairs of image and mask in {root}: looked for {layout.tree} (layout {layout.name}), "
        f"found {seen}; another data.layout ({', '.join(each.name for each in known())}) or file format "
        f"({', '.join(ENDINGS)}) may work."
    )


def _cases(root: Path, part: Matches, axes: str | None) -> list[Case]:
    """A case for each pair, named by its ``{id}``, which need not be unique yet."""
    image_key, mask_key = part.part.image_key, part.part.mask_key
    return [
        Case(
            name=part.pieces[part.images[key][0]].get("id", "_".join(key)),
            images=tuple(Source(root / path, image_key, axes) for path in part.images[key]),
            masks=tuple(Source(root / path, mask_key, axes) for path in part.masks[key]),
            valid=Source(root / part.valids[key][0], axes=axes) if key in part.valids else None,
            split=part.part.split,
        )
        for key in part.pairs
    ]


def _path(root: Path, case: Case) -> str:
    """The (first) image's path below the root."""
    return below(root, case.images[0].path)


def below(root: Path, path: Path) -> str:
    """A file's path below the root, with ``/``. The file is known to lie there, so that the text tells."""
    start = root.as_posix()
    return path.as_posix().removeprefix("" if start == "." else f"{start.rstrip('/')}/")


def _named(root: Path, cases: Sequence[Case]) -> list[Case]:
    """Give all cases unique names: the id, with the split before it, or the whole path, as need be."""
    paths = [_path(root, case) for case in cases]
    ways = (
        (case.name for case in cases),
        (f"{case.split}_{case.name}" if case.split else case.name for case in cases),
        (path[: len(path) - len(ending(path))] for path in paths),
        (f"{number}_{path}" for number, path in enumerate(paths)),
    )
    safe = ([UNSAFE.sub("_", name) for name in way] for way in ways)
    names = next(way for way in safe if len({name.casefold() for name in way}) == len(way))
    return [replace(case, name=name) for case, name in zip(cases, names, strict=True)]


def _groups(
    data: Data, root: Path, layout: Layout, cases: Sequence[Case], pieces: Mapping[str, Mapping[str, str]]
) -> tuple[Sequence[str | None] | None, list[str]]:
    """Group of each case, or None where nothing says so, and notes."""
    paths = [_path(root, case) for case in cases]
    if data.group:
        return groups.by_user_regex(paths, data.group), []
    table = groups.by_table(paths, root)
    if table is not None:
        return table
    if layout.group_key:
        return [read_text(Source(case.images[0].path, layout.group_key)) for case in cases], []
    if layout.sequences:
        ids = [pieces[path]["id"] for path in paths]
        beyond = f"frames beyond {layout.sequences[-1]} belong to no known sequence, so no groups are known."
        known_groups = groups.by_sequence(ids, layout.sequences)
        return known_groups, [] if known_groups else [beyond]
    if all(pieces[path].get("group") for path in paths):
        return [pieces[path]["group"] for path in paths], []
    return groups.by_regex(paths, layout.group) if layout.group else None, []


def _refuse_straddling(root: Path, cases: Sequence[Case]) -> None:
    splits: dict[str, str] = {}
    for case in cases:
        split = case.split or "train"
        first = splits.setdefault(case.group, split)
        if first != split:
            raise InputError(
                f"the group {case.group!r} is in the splits {first} and {split} of {root}: "
                "images in one of them only, or groups by another data.group, would work."
            )
