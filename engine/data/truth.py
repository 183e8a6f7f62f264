"""The masks of one image, read by boxes: classes and valid pixels as a store has them of the whole image."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.data.boxes import Box, boxes
from engine.data.classes import Classes, inside, to_labels
from engine.data.layouts import Case
from engine.data.read import require_fit
from engine.data.stored import Stored, require_stored
from engine.errors import InputError

IGNORED = 255
"""Label of pixels that count nowhere."""
MOST_PIXELS = 1 << 22
"""Pixels of a box in a pass over the masks; each takes some bytes more than its label."""


@dataclass(frozen=True)
class Truth:
    """What is right, and where that counts, in an image whose masks are stored in chunks.

    Attributes:
        shape: S.
        classes: what the values of the masks mean.
        masks: to be merged, a later class over an earlier one.
        field: field of view, or None.
    """

    shape: tuple[int, ...]
    classes: Classes
    masks: tuple[Stored, ...]
    field: Stored | None

    def read(self, box: Box) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Classes bool (C, *box), only where valid, and valid pixels bool (*box).

        Raises:
            InputError: unreadable, or a value that no class names.
        """
        labels = to_labels(self.masks[0].raster(box), self.classes, str(self.masks[0].path))
        for mask in self.masks[1:]:
            labels = np.maximum(labels, to_labels(mask.raster(box), self.classes, str(mask.path)))
        valid = labels != IGNORED
        if self.field is not None:
            valid &= inside(self.field.raster(box), str(self.field.path))
        count = len(self.classes.names)
        named = np.arange(1, count + 1).reshape(-1, *[1] * labels.ndim)
        return (labels == named) & valid, valid

    def passes(self) -> Iterator[tuple[Box, NDArray[np.bool_], NDArray[np.bool_]]]:
        """Each box of the image once, with what :meth:`read` says of it.

        Raises:
            InputError: as :meth:`read`; at the end, if the field of view has nothing inside.
        """
        seen = self.field is None
        for box in boxes(self.shape, self.masks[0].chunks, MOST_PIXELS // len(self.classes.names)):
            truth, valid = self.read(box)
            # Ignored pixels are not outside of it: of a box without valid ones, the file itself is asked.
            seen = seen or bool(valid.any()) or self._sees(box)
            yield box, truth, valid
        if not seen:
            assert self.field is not None
            raise InputError(
                f"the field of view {self.field.path} is black all over: white inside is needed."
            )

    def _sees(self, box: Box) -> bool:
        assert self.field is not None
        return bool(inside(self.field.raster(box), str(self.field.path)).any())


def open_truth(case: Case, classes: Classes) -> Truth:
    """The masks of a case, of which only boxes are read.

    Raises:
        InputError: no mask, sizes that differ, or files that can only be read whole.
    """
    require_fit(case)
    masks = tuple(map(require_stored, case.masks))
    field = None if case.valid is None else require_stored(case.valid)
    return Truth(masks[0].shape[:-1], classes, masks, field)
