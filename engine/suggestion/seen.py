"""What an order of suggestion is told of one image, and what it answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import generate_binary_structure, grey_opening, iterate_structure

Box = tuple[slice, ...]
"""A slice with start and stop along each axis of S."""
Map = NDArray[np.float32]
"""Something of each pixel, (*S)."""


@dataclass(frozen=True)
class Seen:
    """An image that is not annotated yet, as the current model sees it.

    Attributes:
        name: unique among the images that are ranked.
        p: foreground probabilities, float32 (C, *S) in [0, 1].
        masks: the model's decision, bool (C, *S).
        thresholds: T of each class, 0…1 or inf, from which it is decided.
        classes: names of the C classes.
    """

    name: str
    p: NDArray[np.float32]
    masks: NDArray[np.bool_]
    thresholds: tuple[float, ...]
    classes: tuple[str, ...]

    @classmethod
    def cut(
        cls, name: str, p: NDArray[np.float32], thresholds: Sequence[float], classes: Sequence[str]
    ) -> "Seen":
        """The same where the decision is p >= T, in p's own type."""
        cuts = np.asarray(thresholds, np.float32).reshape(-1, *[1] * (p.ndim - 1))
        return cls(name, p, np.asarray(p >= cuts), tuple(thresholds), tuple(classes))

    @property
    def whole(self) -> Box:
        """The box that is all of the image."""
        return tuple(slice(0, length) for length in self.p.shape[1:])

    def levels(self, share: float) -> NDArray[np.float32]:
        """A share of T, of ½ where T is higher, for each class: float32 (C,).

        A threshold near 1, or inf, says how much must not be missed or found, and not what background is.
        """
        return np.float32(share) * np.minimum(np.asarray(self.thresholds, np.float32), np.float32(0.5))

    def expected(self, floor: float) -> NDArray[np.float32]:
        """Expected foreground of each pixel, float32 (C, *S): p, or 0 where p is below :meth:`levels`.

        A network gives background a little probability everywhere; over a large image that would add up to
        foreground that nobody sees.
        """
        levels = self.levels(floor).reshape(-1, *[1] * (self.p.ndim - 1))
        return np.where(self.p >= levels, self.p, np.float32(0))

    @property
    def pixels(self) -> str:
        """What its elements are called."""
        return "pixels" if self.p.ndim == 3 else "voxels"


@dataclass(frozen=True)
class Doubt:
    """What there is to be learned from an image, by one order.

    Attributes:
        score: 0 or more; images of higher scores come first.
        map: where it comes from, 0 or more; None where no place is better than another.
        words: what is in doubt in a box of S, in words with numbers.
    """

    score: float
    map: Map | None
    words: Callable[[Box], str]


def without_rims(doubt: Map, rim: int) -> Map:
    """The grey opening of (*S) by the diamond of a radius: a ridge into which it does not fit is levelled.

    Every network is unsure along outlines, and so is whoever paints them; what is thin tells little. An axis
    that is shorter than the diamond is left alone by taking a diamond that fits.
    """
    fitting = min(rim, (min(doubt.shape) - 1) // 2)
    if fitting < 1:
        return doubt
    footprint = iterate_structure(generate_binary_structure(doubt.ndim, 1), fitting)
    return np.asarray(grey_opening(doubt, footprint=footprint, mode="nearest"), np.float32)


def percent(share: float) -> str:
    """A share in words, such as "4.2 %"."""
    return "under 0.1 %" if 0 < share < 0.001 else f"{100 * share:.2g} %" if share < 0.995 else "100 %"
