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

    image: str
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
    """By the pieces that image and mask pattern share; one file, or one per channel."""
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
    image = pattern(part.image, where)
    masks = [pattern(text, where) for text in part.mask]
    valids = [pattern(text, where) for text in part.valid]
    tied = [name for name in sorted(image.names - UNTIED) if all(name in mask.names for mask in masks)]
    pieces = {path: piece for path in files if (piece := image.match(path)) is not None}
    images: dict[Key, list[str]] = {}
    for path, piece in pieces.items():
        images.setdefault(_key(piece, tied), []).append(path)
    for paths in images.values():
        paths.sort(key=lambda path: pieces[path].get("channel", ""))
    return Matches(
        part,
        images,
        _companions(masks, tied, files, images),
        _fields_of_view(valids, tied, files, images),
        pieces,
    )


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
        InputError: mask without image, image without mask or field of view, two files for one.
    """
    part, paired = found.part, set(found.pairs)
    orphans = [path for key in found.masks if key not in paired for path in found.masks[key]]
    if orphans:
        raise InputError(f"{some(orphans, 'mask')} in {root} without an image: looked for {tree}.")
    _refuse_several(root, found.images, "image", "{channel}" in part.image)
    _refuse_several(root, found.masks, "mask", any("{part}" in text for text in part.mask))
    _refuse_several(root, found.valids, "field of view", allowed=False)
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


def some(paths: Sequence[str], noun: str) -> str:
    """How many there are, and up to three of their names."""
    names = ", ".join(paths[:3]) + (", …" if len(paths) > 3 else "")
    return f"{len(paths)} {noun}{'' if len(paths) == 1 else 's'}" + (f" ({names})" if paths else "")
