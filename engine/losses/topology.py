"""Losses on the centreline: skeleton recall, and soft clDice."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from engine.losses.masked import masked, total
from engine.losses.pixels import PIECE, alike, as_numbers, chosen

Mask = NDArray[np.bool_]
Choose = Callable[..., Tensor]
Part = Callable[[Tensor], Tensor]

RUN = 8
"""Levels of a soft skeleton whose intermediate results are kept at once."""


def tubed_skeleton(mask: Mask) -> Mask:
    """Tubed skeleton of a mask: its skeleton, dilated by the radius-2 diamond, inside the mask.

    Kirchhoff et al., ECCV 2024, with the L1 ball of radius 2: 13 pixels in 2D, 25 voxels in
    3D. As scikit-image thins it, so that values compare with published ones. In 3D it deletes
    some components of even width altogether (its issue 3757), whose tube is empty; where that
    leaves nothing at all, the mask is its own skeleton.

    Args:
        mask: bool or {0, 1}, (H, W) or (D, H, W), one class of one image, invalid pixels False.

    Returns:
        bool, of the mask's shape; a part of the mask, empty only if the mask is.
    """
    from scipy import ndimage  # here, as only this loss needs them
    from skimage.morphology import skeletonize

    mask = np.asarray(mask, bool)
    skeleton = skeletonize(mask)  # type: ignore[no-untyped-call]
    if not skeleton.any():
        return mask.copy()
    cross = ndimage.generate_binary_structure(mask.ndim, 1)
    tube: Mask = ndimage.binary_dilation(skeleton, cross, iterations=2) & mask
    return tube


def skeleton_recall(p: Tensor, tube: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Skeleton recall loss, ``-sum(p tube) / sum(tube)`` (Kirchhoff et al., ECCV 2024).

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        tube: tubed skeletons of the truth in {0, 1} or bool, (B, C, *S), of :func:`tubed_skeleton`.
        valid: bool (B, 1, *S); False adds nothing to any sum.

    Returns:
        Minus the soft recall on the tube, in [-1, 0], of each image and class, float32 (float64 if
        p is), (B, C). Where the tube is empty, value and gradient are 0.
    """
    p, tube = alike(p, tube, valid)
    return -total(p * tube) / total(tube).clamp(min=1)


def soft_cldice(
    p: Tensor, y: Tensor, *, iterations: int | None = None, smooth: float = 1.0, valid: Tensor | None = None
) -> Tensor:
    """Soft clDice loss, 1 minus the harmonic mean of two shares (Shit et al., CVPR 2021, Alg. 2).

    They are p's soft skeleton inside y, and y's skeleton inside p. It sees centrelines alone, so
    that it is to be added to a Dice loss.

    Too few iterations leave the inside of wide structures out of the skeleton. Without a number
    they are counted for each image and class: until nothing is left of y, nor of where
    p >= 0.5, by taking away their outermost pixels (L1 distance) again and again. More of them
    would not change y's skeleton. Of a soft p they would go on through ever wider and fainter
    surroundings, whose every level is a structure of its own; those below one half are given
    as many as the structures that count. What lies beyond the image's edge is unknown and
    takes nothing away, as in the published code, so a mask that fills the image has no skeleton.

    Args:
        p: foreground probabilities in [0, 1], (B, C, *S).
        y: truth in {0, 1} or bool, (B, C, *S).
        iterations: erosions of each soft skeleton, >= 0, or None.
        smooth: s, added to both parts of both shares. With 0, an empty skeleton gives NaN.
        valid: bool (B, 1, *S); False is background to the skeletons, and adds nothing to any sum.

    Returns:
        Loss in [0, 1] of each image and class, float32 (float64 if p is), (B, C).
    """
    there = chosen(y, valid)
    p, y = masked(p, valid), as_numbers(there, p.dtype)
    thin_y, width = binary_skeleton(there, iterations)
    if iterations is None:
        reach = torch.maximum(width, half_width(p >= 0.5))
    else:
        reach = torch.full(p.shape[:2], iterations)
    thin_p, thin_y = soft_skeleton(p, reach), as_numbers(thin_y, p.dtype)
    precise = (total(thin_p * y) + smooth) / (total(thin_p) + smooth)
    sensitive = (total(thin_y * p) + smooth) / (total(thin_y) + smooth)
    return 1 - 2 * precise * sensitive / (precise + sensitive)


def binary_skeleton(mask: Tensor, iterations: int | None = None) -> tuple[Tensor, Tensor]:
    """:func:`soft_skeleton` of a mask, which is a mask, and its half width.

    Args:
        mask: bool (B, C, *S).
        iterations: erosions at most; None: until nothing is left, or nothing changes.

    Returns:
        The skeleton, bool (B, C, *S), and how many erosions changed something, int64 (B, C).
    """
    skeleton = torch.zeros(mask.shape, dtype=torch.uint8, device=mask.device).flatten(0, 1)
    count = torch.zeros(len(skeleton), dtype=torch.int64, device=mask.device)
    for level, (left, inner, changed) in enumerate(_erosions(mask)):
        if iterations is not None and level > iterations:
            break
        # What an opening takes away; where it adds something, nothing is taken.
        skeleton |= left & (dilated(inner) ^ 1)
        count += changed
    return skeleton.view(torch.bool).view(mask.shape), count.view(mask.shape[:2])


def half_width(mask: Tensor) -> Tensor:
    """Erosions after which nothing is left of a mask, or nothing changes: bool (B, C, *S) → int64 (B, C)."""
    count = torch.zeros(mask.shape[:2], dtype=torch.int64, device=mask.device)
    for _, _, changed in _erosions(mask):
        count += changed.view_as(count)
    return count


def _erosions(mask: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A mask, bool (B, C, *S), its erosion, both as 0 and 1 in uint8 (B · C, *S), and whether that changed
    the image; then of the erosion, until none changes."""
    left = mask.contiguous().view(torch.uint8).flatten(0, 1)
    while left.numel():
        inner = eroded(left)
        changed = (inner ^ left).flatten(1).amax(1)
        if not changed.any():
            return
        yield left, inner, changed
        left = inner


def soft_skeleton(x: Tensor, iterations: Tensor) -> Tensor:
    """Soft skeleton by erosions (Shit et al., CVPR 2021, Alg. 1).

    Where several neighbours are the smallest or largest, the gradient goes to one of them: to the element
    itself if it is among them, else to the first one.

    Args:
        x: (B, C, *S) in [0, 1].
        iterations: int64 (B, C), erosions of each image and class.

    Returns:
        (B, C, *S) in [0, 1].
    """
    levels = iterations.flatten().tolist()
    skeleton: Tensor = _SoftSkeleton.apply(x.flatten(0, 1), levels)  # type: ignore[no-untyped-call]
    return skeleton.view(x.shape)


class _SoftSkeleton(torch.autograd.Function):
    """Of images (N, *S), each with its own number of erosions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, iterations: list[int]) -> Tensor:
        skeleton = torch.empty_like(x, memory_format=torch.contiguous_format)
        keep = ctx.needs_input_grad[0]
        ctx.groups = []
        for images in _groups(x, iterations):
            deep = [iterations[image] for image in images]
            thin = _Thinning(x[images], deep)
            starts = []
            for level in range(deep[0] + 1):
                if keep and level % RUN == 0:
                    starts.append((thin.left, thin.skeleton.clone()))
                thin.step(level)
            skeleton[images] = thin.skeleton
            ctx.groups.append((images, deep, starts))
        return skeleton

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        out = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        for images, deep, starts in ctx.groups:
            slope = gradient[images]
            inner = None
            for number, start in reversed(list(enumerate(starts))):
                thin = _Thinning(start[0], deep, start[1].clone())
                first = number * RUN
                levels = [thin.step(level) for level in range(first, min(first + RUN, deep[0] + 1))]
                for level in reversed(levels):
                    inner = level.back(slope, inner)
            if inner is not None:
                out[images] = inner
        return out, None


def _groups(x: Tensor, iterations: Sequence[int]) -> Iterator[list[int]]:
    """Images that are thinned together, those with many iterations first: on a CPU a few, which fit its
    cache."""
    order = sorted(range(len(iterations)), key=lambda image: -iterations[image])
    many = len(order) if x.device.type != "cpu" else max(1, PIECE // max(1, x[:1].numel()))
    for first in range(0, len(order), max(1, many)):
        yield order[first : first + many]


class _Thinning:
    """A soft skeleton in the making, level by level.

    Attributes:
        left: what is left after the erosions so far, of the images that have so many.
        skeleton: of all images, (N, *S).
    """

    def __init__(self, left: Tensor, iterations: Sequence[int], skeleton: Tensor | None = None) -> None:
        """
        Args:
            iterations: of each image, none more than the one before.
        """
        self.left = left
        self.skeleton = torch.zeros_like(left) if skeleton is None else skeleton
        self._iterations = iterations

    def step(self, level: int) -> "_Level":
        """Add what an opening takes away of what is left, and take its erosion for what is left."""
        active = sum(number >= level for number in self._iterations)
        x = self.left[:active]
        opening = [eroded(x)]
        for axis in range(1, x.ndim):
            opening.append(_among_three(opening[-1], axis, torch.maximum))
        ridge = (x - opening[-1]).relu_()
        skeleton = self.skeleton[:active]
        free = 1 - skeleton
        skeleton.addcmul_(ridge, free)
        self.left = opening[0]
        return _Level(x, opening, ridge, free)


@dataclass(frozen=True)
class _Level:
    """What a level is differentiated by, (N, *S) each.

    Attributes:
        x: what was left.
        opening: its erosion, and the dilation of that along one axis more in each.
        ridge: what the opening took away.
        free: 1 minus the skeleton before.
    """

    x: Tensor
    opening: list[Tensor]
    ridge: Tensor
    free: Tensor

    def back(self, slope: Tensor, inner: Tensor | None) -> Tensor:
        """The gradient by x.

        Args:
            slope: that by the skeleton, of all images, which becomes that by the skeleton before.
            inner: that by the erosion, of the first images; None: nothing came of it.
        """
        slope = slope[: len(self.x)]
        ridge = (self.free * slope).mul_(self.ridge.sign())
        slope.addcmul_(slope, self.ridge, value=-1)
        out = ridge
        for axis in range(self.x.ndim - 1, 0, -1):
            out = _routed(out, self.opening[axis - 1], self.opening[axis], [axis])
        out = out.neg_()
        if inner is not None:
            out[: len(inner)] += inner
        return _routed(out, self.x, self.opening[0], range(1, self.x.ndim)).add_(ridge)


def eroded(x: Tensor) -> Tensor:
    """Smallest of each element and its direct neighbours (the unit cross), (N, *S)."""
    smallest = _among_three(x, 1, torch.minimum)
    for axis in range(2, x.ndim):
        for to, source in _neighbours(x, axis):
            torch.minimum(to(smallest), source(x), out=to(smallest))
    return smallest


def dilated(x: Tensor) -> Tensor:
    """Largest of each element and all its neighbours (3 × 3, 3 × 3 × 3), (N, *S)."""
    for axis in range(1, x.ndim):
        x = _among_three(x, axis, torch.maximum)
    return x


def _among_three(x: Tensor, axis: int, choose: Choose) -> Tensor:
    """The smallest or largest of each element and its two neighbours on an axis.

    By slices: max pooling takes ten times as long on a CPU, and has no deterministic gradient on a GPU
    in 3D.
    """
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    last = x.shape[axis] - 1
    choose(x.narrow(axis, 0, last), x.narrow(axis, 1, last), out=out.narrow(axis, 0, last))
    out.select(axis, last).copy_(x.select(axis, last))
    behind = out.narrow(axis, 1, last)
    choose(behind, x.narrow(axis, 0, last), out=behind)
    return out


def _routed(gradient: Tensor, x: Tensor, y: Tensor, axes: Sequence[int]) -> Tensor:
    """The gradient by x, given that by y, each element of which is one of x: its own or a neighbour's.

    Args:
        gradient: (N, *S).
        x: (N, *S).
        y: smallest or largest of each element of x and its direct neighbours on the axes.
        axes: those.
    """
    scratch = torch.empty_like(x)
    out = torch.eq(x, y, out=torch.empty_like(x)).mul_(gradient)
    rest = gradient - out
    ways = [way for axis in axes for way in _neighbours(x, axis)]
    for to, source in ways[:-1]:
        part = torch.eq(to(y), source(x), out=to(scratch)).mul_(to(rest))
        source(out).add_(part)
        to(rest).sub_(part)
    to, source = ways[-1]
    source(out).add_(to(rest))
    return out


def _neighbours(x: Tensor, axis: int) -> list[tuple[Part, Part]]:
    """On an axis, the elements that have a neighbour behind them, and those; the same in front of them."""
    last = x.shape[axis] - 1

    def front(x: Tensor) -> Tensor:
        return x.narrow(axis, 0, last)

    def behind(x: Tensor) -> Tensor:
        return x.narrow(axis, 1, last)

    return [(front, behind), (behind, front)]
