"""Images and the masks and fields of view that go with them, by patterns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from engine.data.patterns import PLACEHOLDER, UNTIED, Pattern, pattern
from engine.errors import InputError

Key = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """Patterns of images and of what goes with them."""

    image: tuple[str, ...]
    """Several give one channel each, in this order."""
    mask: tuple[str, ...]
    valid: tuple[str, ...] = ()
    split: str = ""
    image_key: str = ""
    mask_key: str = ""
    partial: bool = False
    """Some images have no mask, as the owner ships them."""


@dataclass(frozen=True)
class Matches:
    """The files that fit a part's patterns; paths are relative to the root, with ``/``."""

    part: Part
    images: Mapping[Key, Sequence[str]]
    """By the pieces that image and mask patterns share; one file, or one per channel."""
    masks: Mapping[Key, Sequence[str]]
    valids: Mapping[Key, Sequence[str]]
    pieces: Mapping[str, Mapping[str, str]]
    """Image path → its pieces."""

    @property
    def pairs(self) -> list[Key]:
        """Keys that have both image and mask."""
        return [key for key in self.images if key in self.masks]


@dataclass(frozen=True)
class Files:
    """The files of a data set's folder; most patterns are told from the folders alone to fit none of them."""

    paths: Sequence[str]
    """Relative to the root, with ``/``, in order."""
    folders: Mapping[str, Sequence[int]]
    """Folder below the root → places of its files in ``paths``."""

    @classmethod
    def of(cls, paths: Sequence[str]) -> "Files":
        """Files, by their folders."""
        folders: dict[str, list[int]] = {}
        for place, path in enumerate(paths):
            folders.setdefault(path.rpartition("/")[0], []).append(place)
        return cls(paths, folders)

    def fitting(self, text: str, where: Mapping[str, str]) -> dict[int, dict[str, str]]:
        """Place → pieces of each file that fits a pattern, in order."""
        whole, folder = pattern(text, where), _folder(text, where)
        inside = [
            places
            for name, places in self.folders.items()
            if folder is None or folder.match(name) is not None
        ]
        places = inside[0] if len(inside) == 1 else sorted(chain.from_iterable(inside))
        found = ((place, whole.match(self.paths[place])) for place in places)
        return {place: pieces for place, pieces in found if pieces is not None}


def _folder(text: str, where: Mapping[str, str]) -> Pattern | None:
    """What the folder of a file has to fit for the file to fit a pattern; None where only the whole can tell,
    as a piece of the file's name may stand for folders too."""
    folder, _, name = text.rpartition("/")
    own = (where.get(found[1] or "", "") for found in PLACEHOLDER.finditer(name))
    return None if any("/" in regex.replace("[^/]", "") for regex in own) else pattern(folder, where)


def match(part: Part, where: Mapping[str, str], files: Files) -> Matches:
    """Sort the files that fit the part's patterns by the pieces that tie image and mask."""
    names = [pattern(text, where).names for text in (*part.image, *part.mask)]
    tied = sorted(frozenset.intersection(*names) - UNTIED)
    channels = [files.fitting(text, where) for text in part.image]
    masks = [files.fitting(text, where) for text in part.mask]
    of_masks = {place: piece for each in masks for place, piece in each.items()}
    labelled = {_key(piece, tied) for piece in of_masks.values()}
    pieces: dict[str, dict[str, str]] = {}
    for place in _places(channels):
        fitting = [
            {**each[place], "channel": _channel(each[place], number, len(channels))}
            for number, each in enumerate(channels)
            if place in each
        ]
        # Of {id} and {id}_t1 a mask tells the id; {id}_mask is no image by the name of {id}.
        known = next((each for each in fitting if _key(each, tied) in labelled), None)
        if known is not None or place not in of_masks:
            pieces[files.paths[place]] = known or fitting[0]
    images: dict[Key, list[str]] = {}
    for path, piece in pieces.items():
        images.setdefault(_key(piece, tied), []).append(path)
    for paths in images.values():
        paths.sort(key=lambda path: pieces[path]["channel"])
    return Matches(
        part,
        images,
        _companions(masks, tied, files, images),
        _fields_of_view(part.valid, where, tied, files, images),
        pieces,
    )


def _places(found: Sequence[Mapping[int, object]]) -> Sequence[int]:
    """All places that patterns were found at, in order."""
    return list(found[0]) if len(found) == 1 else sorted(set().union(*found))


def _channel(pieces: Mapping[str, str], number: int, count: int) -> str:
    """What tells a channel's file from the others of its image, and comes first."""
    return pieces.get("channel", "") if count == 1 else f"{number:03d}{pieces.get('channel', '')}"


def _key(pieces: Mapping[str, str], tied: Sequence[str]) -> Key:
    return tuple(pieces.get(name, "") for name in tied)


def _companions(
    found: Sequence[Mapping[int, Mapping[str, str]]],
    tied: Sequence[str],
    files: Files,
    images: Mapping[Key, object],
) -> dict[Key, list[str]]:
    """Files that fit patterns, by key; of several patterns, the first that leads to an image counts."""
    companions: dict[Key, list[str]] = {}
    for place in _places(found):
        keys = [_key(each[place], tied) for each in found if place in each]
        key = next((key for key in keys if key in images), keys[0])
        companions.setdefault(key, []).append(files.paths[place])
    return companions


def _fields_of_view(
    valid: Sequence[str],
    where: Mapping[str, str],
    tied: Sequence[str],
    files: Files,
    images: Mapping[Key, object],
) -> dict[Key, list[str]]:
    """As above; a pattern with fewer pieces, such as ``{camera}.png``, serves several images."""
    found = [files.fitting(text, where) for text in valid]
    if not any(found):
        return {}
    names = [pattern(text, where).names for text in valid]
    shared = [name for name in tied if all(name in each for each in names)]
    short = {
        key: tuple(piece for name, piece in zip(tied, key, strict=True) if name in shared) for key in images
    }
    fields = _companions(found, shared, files, dict.fromkeys(short.values()))
    return {key: fields[short[key]] for key in images if short[key] in fields}


def check(root: Path, found: Matches, tree: str) -> list[str]:
    """Refuse files that are missing or too many; ``tree`` says in words what is looked for.

    Returns:
        a note if images that may lack a mask do: all of a part, or some where the owner ships them so.

    Raises:
        InputError: mask without image, image without mask, field of view or channel, two files for one.
    """
    part, paired = found.part, set(found.pairs)
    orphans = [path for key in found.masks if key not in paired for path in found.masks[key]]
    if orphans:
        raise InputError(f"{some(orphans, 'mask')} in {root} without an image: looked for {tree}.")
    planes: dict[Key, list[str]] = {}
    for key, paths in found.images.items():
        for path in paths:
            planes.setdefault((*key, found.pieces[path]["channel"]), []).append(path)
    channels = len(planes) > len(found.images)
    _refuse_several(root, planes, "channel of an image" if channels else "image", allowed=False)
    _refuse_several(root, found.masks, "mask", any("{part}" in text for text in part.mask))
    _refuse_several(root, found.valids, "field of view", allowed=False)
    _refuse_missing(root, found)
    alone = [found.images[key][0] for key in found.images if key not in paired]
    if alone and paired and not part.partial:
        raise InputError(f"{some(alone, 'image')} in {root} without a mask: looked for {tree}.")
    blind = [found.images[key][0] for key in found.pairs if found.valids and key not in found.valids]
    if blind:
        raise InputError(f"{some(blind, 'image')} in {root} without a field of view: looked for {tree}.")
    return [f"{some(alone, 'image')} without a mask left out."] if alone else []


def _refuse_several(root: Path, files: Mapping[Key, Sequence[str]], noun: str, allowed: bool) -> None:
    several = next((paths for paths in files.values() if len(paths) > 1), None)
    if several and not allowed:
        raise InputError(
            f"{some(several, 'file')} in {root} for one {noun}: one of them only, "
            "or the patterns data.images and data.masks, would work."
        )


def _refuse_missing(root: Path, found: Matches) -> None:
    """Refuse images that lack a channel that others have, or for which there is a pattern."""
    several = found.part.image if len(found.part.image) > 1 else ()
    having: dict[str, set[Key]] = {f"{number:03d}": set() for number, _ in enumerate(several)}
    for key in found.pairs:
        for path in found.images[key]:
            channel = found.pieces[path]["channel"]
            having.setdefault(channel[:3] if several else channel, set()).add(key)
    for number, (channel, keys) in enumerate(having.items()):
        lacking = [found.images[key][0] for key in found.pairs if key not in keys]
        if lacking:
            raise InputError(
                f"{some(lacking, 'image')} in {root} without the channel "
                f"{several[number] if several else channel}: every image needs all channels, "
                "or data.images without this one."
            )


def some(paths: Sequence[str], noun: str) -> str:
    """How many there are, and up to three of their names."""
    names = ", ".join(paths[:3]) + (", …" if len(paths) > 3 else "")
    return f"{len(paths)} {noun}{'' if len(paths) == 1 else 's'}" + (f" ({names})" if paths else "")
