"""Real images of a run, as its network sees them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engine.data.dataset import Dataset
from engine.data.decode import probe
from engine.data.normalize import normalised, white
from engine.data.read import read_image
from engine.data.rows import rows_of
from engine.errors import InputError
from engine.inputs import Wanted, gather
from engine.trained import Trained

PARTS = ("test", "val", "train")
"""Splits in the order in which images are taken; calib is for calibration alone."""
MOST = 3
"""Images that an export is checked on."""


@dataclass(frozen=True)
class RealImage:
    """One image.

    Attributes:
        name: of the image.
        pixels: (*S, channels) at the size that the network sees, not normalised.
        white: the largest intensity of its kind of file.
    """

    name: str
    pixels: NDArray[Any]
    white: float

    def cut(self, sides: Sequence[int]) -> "RealImage":
        """Its middle, no longer than the sides."""
        corners = [
            (length - min(length, side)) // 2
            for length, side in zip(self.pixels.shape[:-1], sides, strict=True)
        ]
        box = tuple(slice(corner, corner + side) for corner, side in zip(corners, sides, strict=True))
        return RealImage(self.name, np.ascontiguousarray(self.pixels[box]), self.white)

    def seen(self, trained: Trained) -> Tensor:
        """Normalised, float32 (1, channels, *S), by what the image itself holds."""
        rows = rows_of(self.pixels)
        scale, shift = trained.affine(rows, self.white)
        values = normalised(self.pixels, scale, shift, trained.config.data.normalization)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0)))[None]


def real_images(trained: Trained, given: Sequence[str] = (), most: int = MOST) -> list[RealImage]:
    """Some images of a run's data, those that it never saw first, or the given ones.

    Raises:
        InputError: the run's data are no longer where they were, or none of the images can be read.
    """
    return [_seen(trained, *each) for each in (_given(trained, given) if given else _own(trained, most))]


def _seen(trained: Trained, name: str, image: NDArray[Any], spacing: tuple[float, ...] | None) -> RealImage:
    rows = trained.framed(rows_of(image, spacing=spacing))
    return RealImage(name, rows.read(0, rows.shape[0]), white(image.dtype))


def _given(
    trained: Trained, given: Sequence[str]
) -> Iterator[tuple[str, NDArray[Any], tuple[float, ...] | None]]:
    data = trained.config.data
    patterns = tuple(text.strip() for text in (data.images or "").split(";") if text.strip())
    wanted = Wanted(trained.root, trained.channels, trained.dims, data.axes, patterns)
    for image in gather(given, wanted):
        case = image.case(data.axes)
        yield image.name, read_image(case, trained.channels), probe(case.images[0]).spacing


def _own(trained: Trained, most: int) -> Iterator[tuple[str, NDArray[Any], tuple[float, ...] | None]]:
    try:
        dataset = Dataset.open(trained.config.data, trained.info["splits"])
    except InputError as error:
        raise InputError(
            f"an export is checked on real images, and those of the run {trained.root} cannot be had "
            f"({str(error).rstrip('.')}): --images FILE … gives others."
        ) from None
    indices = [index for part in PARTS for index in dataset.splits[part]][:most]
    for sample in dataset.some(indices):
        yield sample.name, sample.image, sample.spacing


def inputs(
    trained: Trained, images: Sequence[RealImage], fixed: tuple[int, ...] | None
) -> Iterator[tuple[str, Tensor]]:
    """What an exported graph is tried on, with its name: each image; of the first a piece of odd sides, and
    two in a batch, where any size goes.

    Longer sides than the run's tile are cut, as the run would. A graph of one size gets pieces of that size.
    """
    tile = (trained.predictor.tile,) * trained.dims
    for number, image in enumerate(images):
        if fixed is not None:
            yield image.name, _filled(image.cut(fixed).seen(trained), fixed)
            continue
        whole = image.cut(tile).seen(trained)
        yield image.name, whole
        if number == 0:
            sides = [max(1, 2 * (length // 3) - 1) for length in whole.shape[2:]]
            yield f"a piece of {image.name}", image.cut(sides).seen(trained)
            yield f"{image.name} and its mirror image", torch.cat([whole, whole.flip(-1)])


def _filled(image: Tensor, sides: tuple[int, ...]) -> Tensor:
    """An image (1, channels, *S) at a size, its edge repeated where it is shorter."""
    missing = [side - length for side, length in zip(sides, image.shape[2:], strict=True)]
    return F.pad(image, [width for after in reversed(missing) for width in (0, after)], mode="replicate")
