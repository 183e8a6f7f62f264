"""Images and the masks and fields of view that go with them, by patterns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.data.patterns import UNTIED, Pattern, pattern
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


def match(part: Part, where: Mapping[str, str], files: Sequence[str]) -> Matches:
    """Sort the files that fit the part's patterns by the pieces that tie image and mask."""
    channels = [pattern(text, where) for text in part.image]
    masks = [pattern(text, where) for text in part.mask]
    valids = [pattern(text, where) for text in part.valid]
    shared = frozenset.intersection(*(each.names for each in (*channels, *masks)))
    tied = sorted(shared - UNTIED)
    of_masks = {path: piece for each in masks for path in files if (piece := each.match(path))}
    labelled = {_key(piece, tied) for piece in of_masks.values()}
    pieces: dict[str, dict[str, str]] = {}
    for path in files:
        fitting = [
            {**piece, "channel": _channel(piece, number, len(channels))}
            for number, each in enumerate(channels)
            if (piece := each.match(path)) is not None
        ]
        # Of {id} and {id}_t1 a mask tells the id; {id}_mask is no image by the name of {id}.
        known = next((each for each in fitting if _key(each, tied) in labelled), None)
        if fitting and (known is not None or path not in of_masks):
            pieces[path] = known or fitting[0]
    images: dict[Key, list[str]] = {}
    for path, piece in pieces.items():
        images.setdefault(_key(piece, tied), []).append(path)
    for paths in images.values():
        paths.sort(key=lambda path: pieces[path]["channel"])
    return Matches(
        part,
        images,
        _companions(masks, tied, files, images),
        _fields_of_view(valids, tied, files, images),
        pieces,
    )


def _channel(pieces: Mapping[str, str], number: int, count: int) -> str:
    """What tells a channel's file from the others of its image, and comes first."""
    return pieces.get("channel", "") if count == 1 else f"{number:03d}{pieces.get('channel', '')}"


def _key(pieces: Mapping[str, str], tied: Sequence[str]) -> Key:
    return tuple(pieces.get(name, "") for name in tied)


def _companions(
    patterns: Sequence[Pattern], tied: Sequence[str], files: Sequence[str], images: Mapping[Key, object]
) -> dict[Key, list[str]]:
    """Files that fit a pattern, by key; of several patterns, the first that leads to an image counts."""
    companions: dict[Key, list[str]] = {}
    for path in files:
        keys = [_key(piece, tied) for each in patterns if (piece := each.match(path)) is not None]
        if keys:
            key = next((key for key in keys if key in images), keys[0])
            companions.setdefault(key, []).append(path)
    return companions


def _fields_of_view(
    patterns: Sequence[Pattern], tied: Sequence[str], files: Sequence[str], images: Mapping[Key, object]
) -> dict[Key, list[str]]:
    """As above; a pattern with fewer pieces, such as ``{camera}.png``, serves several images."""
    shared = [name for name in tied if all(name in each.names for each in patterns)]
    short = {
        key: tuple(piece for name, piece in zip(tied, key, strict=True) if name in shared) for key in images
    }
    found = _companions(patterns, shared, files, dict.fromkeys(short.values()))
    return {key: found[short[key]] for key in images if short[key] in found}


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
