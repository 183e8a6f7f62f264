"""Masks that are there already → labels: 0 background, the classes' values, 255 unlabelled.

They lie beside the images in a known layout, or are any file or Labels layer. Masks that number objects
become one class.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.annotated import BACKGROUND, UNLABELLED, AnnotationClass
from engine.data.classes import Classes, codes, from_table, infer, survey
from engine.data.decode import decode
from engine.data.layouts import Case, Listing
from engine.data.raster import Raster, Source
from engine.data.read import read_labels
from engine.errors import InputError

Labels = NDArray[np.uint8]
SURVEYED = 24
"""Masks of a folder that are looked at to tell what their values mean."""


def meaning(listing: Listing) -> Classes | None:
    """What the values of the masks beside a folder's images mean, as the engine would tell it.

    Returns:
        The layout's classes; else those that the values of some of the masks leave no doubt of; None where
        there is no mask, or where values rather number objects, which all are one class then.

    Raises:
        InputError: a mask that cannot be read.
    """
    if listing.classes is not None:
        return from_table(listing.classes, listing.rest or "refuse")
    sources = [source for masks in listing.masks.values() for source in masks]
    if not sources:
        return None
    step = -(-len(sources) // SURVEYED)
    surveyed = [(str(source.path), *survey(decode(source), str(source.path))) for source in sources[::step]]
    try:
        return infer(surveyed)
    except InputError:
        return None


def read_beside(
    files: Sequence[Source],
    masks: Sequence[Source],
    known: Classes | None,
    classes: Sequence[AnnotationClass],
) -> Labels:
    """The masks beside an image as its labels.

    Args:
        files: of the image.
        masks: one, or several that are merged.
        known: what their values mean, by :func:`meaning`.
        classes: of the folder; a class is found by its name, else by its place.

    Returns:
        uint8 (*S).

    Raises:
        InputError: unreadable, of another size than each other, or a value that means nothing.
    """
    if known is None:
        found = np.zeros((), np.bool_)
        for source in masks:
            found = found | (codes(decode(source), False, str(source.path)) != 0)
        return np.where(found, np.uint8(classes[0].value), np.uint8(BACKGROUND))
    indices = read_labels(Case("", tuple(files), tuple(masks)), known)
    table = np.full(256, UNLABELLED, np.uint8)
    table[BACKGROUND] = BACKGROUND
    for index, name in enumerate(known.names, start=1):
        table[index] = _value(name, index, classes, str(masks[0].path))
    return table[indices]


def read_file(source: Source, shape: tuple[int, ...], classes: Sequence[AnnotationClass]) -> Labels:
    """A mask file as labels of an image of a shape, see :func:`from_values`.

    Raises:
        InputError: unreadable, of another size, or values that mean nothing.
    """
    raster = decode(source)
    _require_shape(raster.shape, shape, str(source.path))
    return from_values(_values(raster, source), shape, classes, str(source.path))


def from_values(
    values: NDArray[Any], shape: tuple[int, ...], classes: Sequence[AnnotationClass], what: str
) -> Labels:
    """Values of a mask or a Labels layer as labels.

    0 is background and 255 unlabelled, but in a mask of nothing but 0 and 255 all that is 255 is the first
    class. Other values are those of the classes. Where there is one class, more values number its objects.

    Args:
        values: whole numbers (*S).
        shape: S of the image.
        classes: of the folder.
        what: they are, for errors.

    Raises:
        InputError: of another size, or a value that no class has.
    """
    _require_shape(values.shape, shape, what)
    found = np.unique(values).tolist()
    known = {BACKGROUND, UNLABELLED, *(each.value for each in classes)}
    first = np.uint8(classes[0].value)
    if found == [0, 255] or (len(classes) == 1 and not set(found) <= known and min(found) >= 0):
        return np.where(values != 0, first, np.uint8(BACKGROUND))
    odd = [value for value in found if value not in known]
    if odd:
        table = ", ".join(f"{each.value} {each.name}" for each in classes)
        raise InputError(
            f"{what} holds the value {odd[0]}{f' and {len(odd) - 1} more' * (len(odd) > 1)}, which no class "
            f"has ({table}): a class for each value, or one class for them all, would work."
        )
    return values.astype(np.uint8)


def _values(raster: Raster, source: Source) -> NDArray[Any]:
    return codes(raster, False, str(source.path))


def _value(name: str, index: int, classes: Sequence[AnnotationClass], file: str) -> int:
    """The value of a class of the layout, by its name, or else that of the same number."""
    named = next((each.value for each in classes if each.name == name), None)
    if named is not None:
        return named
    if any(each.value == index for each in classes):
        return index
    names = ", ".join(each.name for each in classes)
    raise InputError(
        f"{file} holds the class {name}, which is none of the folder's ({names}): adding it would work."
    )


def _require_shape(found: tuple[int, ...], shape: tuple[int, ...], what: str) -> None:
    if tuple(found) != tuple(shape):
        theirs, ours = (" × ".join(map(str, each)) for each in (found, shape))
        raise InputError(
            f"{what} is {theirs} but the image is {ours}: a mask of the image's size would work."
        )
