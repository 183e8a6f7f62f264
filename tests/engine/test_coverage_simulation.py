"""Whether the promises are kept: calibrations and new images by the thousand, drawn from known ones.

Images are drawn from a finite set, each as likely as any other and again and again, so that calibration and
new images are independent and of one distribution, and what a threshold keeps of it can be counted. The
set's probabilities are continuous (but for the set being finite, which is beyond what is tested here), or
quantised and full of ties.

A test fails by chance once in a million (ERROR); the draws are seeded. That it would notice is shown with
the three mistakes known of published code: ``>`` where ``>=`` was calibrated, ``min(k, n)`` for too few
images, and a bisection that stops early.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from engine.thresholds import (
    Lesions,
    cls_threshold,
    conditional_cls_threshold,
    crc_threshold,
    critical_threshold,
    gather,
)
from engine.thresholds.conformal import cls_rank, conditional_rank

ERROR = 1e-6
IMAGES = 3000
VOXELS = 20
CALIBRATIONS = 2000
NEW = 20
"""New images for each calibration."""

QUANTISED: dict[str, Callable[[Any], Any]] = {
    "8-bit": lambda p: (np.round(p * 255) / 255).astype(np.float32),
    "float16": lambda p: p.astype(np.float16),
    "5 levels": lambda p: (np.round(p * 4) / 4).astype(np.float32),
    "saturated": lambda p: np.clip(1.6 * p - 0.3, 0, 1).astype(np.float32),
    "one value an image": lambda p: np.broadcast_to(np.round(p[:, :1] * 30) / 30, p.shape).astype(np.float32),
}
KINDS: dict[str, Callable[[Any], Any]] = {
    "float64": lambda p: p,
    "float32": lambda p: p.astype(np.float32),
    **QUANTISED,
}
SIZES = (9, 10, 19, 20, 37)
SHARES = ((0.1, 0.1), (0.3, 0.29))
"""ε and α."""


# --- the images -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Images:
    """Some images' lesion probabilities.

    Attributes:
        p: (IMAGES, VOXELS), beyond an image's lesion inf, which is never missed.
        m: (IMAGES,), lesion voxels of each.
        values: those of each image, in the type that they were observed in.
    """

    p: Any
    m: Any
    values: list[Any]

    def fnr(self, which: Any, threshold: Any, missed: Any = np.less) -> Any:
        """Of images (*A, r) the FNR at thresholds (*A), as it is defined: not by engine.thresholds."""
        return missed(self.p[which], np.asarray(threshold)[..., None, None]).sum(-1) / self.m[which]


@cache
def images(kind: str) -> Images:
    """Images of one kind: some easy, some hard, with 1 to 20 lesion voxels."""
    rng = np.random.default_rng(11)
    hardness = rng.lognormal(-0.5, 0.6, (IMAGES, 1))
    p = KINDS[kind](rng.random((IMAGES, VOXELS)) ** hardness)
    m = rng.integers(1, VOXELS + 1, IMAGES)
    values = [image[:count] for image, count in zip(p, m, strict=True)]
    padded = np.where(np.arange(VOXELS) < m[:, None], p.astype(np.float64), np.inf)
    return Images(padded, m, values)


@cache
def critical(kind: str, epsilon: float) -> Any:
    """The critical threshold of each image."""
    return np.array([critical_threshold(values, epsilon) for values in images(kind).values])


def draws(n: int, seed: int = 0, calibrations: int = CALIBRATIONS) -> tuple[Any, Any]:
    """Which images calibrate (calibrations, n), and which are new (calibrations, NEW)."""
    rng = np.random.default_rng([n, seed])
    return rng.integers(IMAGES, size=(calibrations, n)), rng.integers(IMAGES, size=(calibrations, NEW))


# --- the bounds -----------------------------------------------------------------------------------------


def so_few(kept: Any, chances: Any) -> float:
    """Bound of P(so few are kept in sum, or fewer) by Chernoff.

    Args:
        kept: of each calibration, how many of m new images.
        chances: of each number from 0 to m.
    """
    numbers = np.arange(len(chances))
    rates = np.concatenate([[0.0], np.geomspace(1e-4, 30, 400)])[:, None]
    logs = np.log((chances * np.exp(-rates * numbers)).sum(1))
    return float(np.exp((rates[:, 0] * kept.sum() + len(kept) * logs).min()))


def promised(n: int, k: int, alpha: float) -> Any:
    """Chances of how many of NEW images are kept, if a promise holds just so.

    They are Beta-binomial. Where k is 0 all must be kept, and 1 − α was promised: then the distribution of
    that mean that is spread most.
    """
    if k == 0:
        return np.array([alpha, *[0.0] * (NEW - 1), 1 - alpha])
    return stats.betabinom(NEW, n + 1 - k, k).pmf(np.arange(NEW + 1))


def likely(kept: Any, chances: Any) -> float:
    """p-value of a chi-square test of counts against their chances; rare ones are taken together."""
    seen, expected = np.bincount(kept, minlength=NEW + 1), len(kept) * chances
    rare = expected < 10
    groups = [(seen[~rare], expected[~rare]), ([seen[rare].sum()], [expected[rare].sum()])]
    seen, expected = (np.concatenate(each) for each in zip(*groups, strict=True))
    enough = expected > 0
    return float(stats.chisquare(seen[enough], expected[enough] * seen.sum() / expected.sum()).pvalue)


Z = float(stats.norm.isf(ERROR))


def standard_error(values: Any) -> float:
    """Of the mean of values."""
    return float(values.std(ddof=1) / math.sqrt(len(values)))


# --- CLS ------------------------------------------------------------------------------------------------


def kept_by_cls(kind: str, n: int, epsilon: float, alpha: float) -> Any:
    """Of each calibration, how many of NEW images miss at most ε at its threshold."""
    calibrating, new = draws(n)
    thresholds = [cls_threshold(each, alpha) for each in critical(kind, epsilon)[calibrating]]
    return (images(kind).fnr(new, thresholds) <= epsilon).sum(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", SIZES)
def test_cls_keeps_its_promise(kind: str, n: int) -> None:
    for epsilon, alpha in SHARES:
        kept = kept_by_cls(kind, n, epsilon, alpha)
        k = cls_rank(n, alpha)
        chances = promised(n, k, alpha)
        assert so_few(kept, chances) > ERROR
        if kind not in QUANTISED:  # nor does it keep more, for which precision would be paid
            assert so_few(NEW - kept, chances[::-1]) > ERROR
            assert likely(kept, chances) > ERROR
            assert abs(kept.mean() / NEW - (n + 1 - k) / (n + 1)) < 0.01


@pytest.mark.parametrize("kind", ["float32", "5 levels"])
@pytest.mark.parametrize(("n", "alpha"), [(5, 0.1), (8, 0.1), (18, 0.05), (2, 0.29)])
def test_too_few_images_keep_everything(kind: str, n: int, alpha: float) -> None:
    assert cls_rank(n, alpha) == 0
    assert (kept_by_cls(kind, n, 0.1, alpha) == NEW).all()


@pytest.mark.parametrize(("n", "alpha"), [(9, 0.1), (19, 0.1), (20, 0.29), (37, 0.2)])
def test_the_coverage_of_calibrations_is_a_beta_number(n: int, alpha: float) -> None:
    """Of images of ten voxels with uniform p, of which one may be missed, the coverage at T is known."""
    p = np.random.default_rng(n).random((600, n, 10))
    found = np.array([cls_threshold([critical_threshold(image, 0.1) for image in each], alpha) for each in p])
    coverage = stats.beta.sf(found, 2, 9)  # the second smallest of ten numbers is above T
    k = cls_rank(n, alpha)
    assert stats.kstest(coverage, stats.beta(n + 1 - k, k).cdf).pvalue > ERROR


def with_greater_than(kind: str, n: int, epsilon: float, alpha: float) -> Any:
    calibrating, new = draws(n)
    thresholds = [cls_threshold(each, alpha) for each in critical(kind, epsilon)[calibrating]]
    return (images(kind).fnr(new, thresholds, np.less_equal) <= epsilon).sum(1)  # predicted where p > T


def with_the_nearest_rank(kind: str, n: int, epsilon: float, alpha: float) -> Any:
    """``min(⌈(n + 1)(1 − α)⌉, n)`` from above, which is the first from below where there is none."""
    calibrating, new = draws(n)
    k = n + 1 - min(n + 1 - cls_rank(n, alpha), n)
    thresholds = np.sort(critical(kind, epsilon)[calibrating])[:, k - 1]
    return (images(kind).fnr(new, thresholds) <= epsilon).sum(1)


def with_a_short_bisection(kind: str, n: int, epsilon: float, alpha: float) -> Any:
    low, high = np.zeros(IMAGES), np.ones(IMAGES)
    own = np.arange(IMAGES)[:, None]
    while (high - low).max() > 1e-3:
        middle = (low + high) / 2
        kept = images(kind).fnr(own, middle)[:, 0] <= epsilon
        low, high = np.where(kept, middle, low), np.where(kept, high, middle)
    calibrating, new = draws(n)
    thresholds = [cls_threshold(each, alpha) for each in ((low + high) / 2)[calibrating]]
    return (images(kind).fnr(new, thresholds) <= epsilon).sum(1)


@pytest.mark.parametrize(
    ("mistake", "kind", "n"),
    [
        (with_greater_than, "5 levels", 19),
        (with_greater_than, "one value an image", 37),
        (with_greater_than, "saturated", 9),
        (with_the_nearest_rank, "float64", 5),
        (with_the_nearest_rank, "8-bit", 2),
        (with_a_short_bisection, "5 levels", 19),
        (with_a_short_bisection, "saturated", 19),
    ],
)
def test_known_mistakes_are_found(mistake: Any, kind: str, n: int) -> None:
    epsilon, alpha = 0.1, 0.1
    chances = promised(n, cls_rank(n, alpha), alpha)
    assert so_few(mistake(kind, n, epsilon, alpha), chances) < ERROR
    assert so_few(kept_by_cls(kind, n, epsilon, alpha), chances) > ERROR


# --- training-conditional CLS ---------------------------------------------------------------------------


def failing_calibrations(kind: str, n: int, epsilon: float, alpha: float, delta: float, seed: int) -> int:
    """How many calibrations keep less than 1 − α of all images."""
    calibrating, _ = draws(n, seed)
    thresholds = [
        conditional_cls_threshold(each, alpha, delta) for each in critical(kind, epsilon)[calibrating]
    ]
    values, place = np.unique(thresholds, return_inverse=True)
    everything = np.arange(IMAGES)
    coverage = [(images(kind).fnr(everything, value) <= epsilon).mean() for value in values]
    return int((np.array(coverage)[place] < 1 - alpha).sum())


@pytest.mark.parametrize("kind", ["float64", "8-bit", "5 levels"])
@pytest.mark.parametrize(
    ("n", "alpha", "delta"), [(22, 0.1, 0.1), (37, 0.1, 0.2), (20, 0.29, 0.1), (10, 0.2, 0.3), (9, 0.1, 0.1)]
)
def test_a_calibration_fails_with_probability_delta_at_most(
    kind: str, n: int, alpha: float, delta: float
) -> None:
    failing = failing_calibrations(kind, n, 0.1, alpha, delta, seed=1)
    assert stats.binom.sf(failing - 1, CALIBRATIONS, delta) > ERROR
    k = conditional_rank(n, alpha, delta)
    if k == 0:
        assert failing == 0
    elif kind not in QUANTISED:
        chance = stats.beta.sf(alpha, k, n + 1 - k)
        assert stats.binomtest(failing, CALIBRATIONS, chance).pvalue > ERROR


def test_marginal_cls_fails_more_often_than_the_conditional_rule_may() -> None:
    """About every second calibration of CLS does: the tests above would find it in the other's place."""
    n, alpha, delta = 37, 0.1, 0.1
    calibrating, _ = draws(n, 2)
    thresholds = np.array([cls_threshold(each, alpha) for each in critical("float64", 0.1)[calibrating]])
    ranked = np.sort(critical("float64", 0.1))
    coverage = 1 - ranked.searchsorted(thresholds) / IMAGES
    assert stats.binom.sf((coverage < 1 - alpha).sum() - 1, CALIBRATIONS, delta) < ERROR


# --- CRC ------------------------------------------------------------------------------------------------


def risks(kind: str, n: int, alpha: float, threshold: Any = crc_threshold, calibrations: int = 300) -> Any:
    """The mean FNR over all images at the threshold of each calibration."""
    calibrating, _ = draws(n, 3, calibrations)
    every = images(kind)
    thresholds = [threshold([every.values[number] for number in each], alpha) for each in calibrating]
    values, place = np.unique(thresholds, return_inverse=True)
    everything = np.arange(IMAGES)
    return np.array([every.fnr(everything, value).mean() for value in values])[place]


@pytest.mark.parametrize(
    ("kind", "n", "alpha"),
    [
        ("float32", 9, 0.1), ("float32", 20, 0.2), ("float32", 10, 0.29), ("8-bit", 9, 0.2),
        ("float16", 10, 0.1), ("5 levels", 9, 0.1), ("5 levels", 20, 0.29), ("saturated", 19, 0.1),
        ("one value an image", 9, 0.29),
    ],
)  # fmt: skip
def test_crc_keeps_the_mean(kind: str, n: int, alpha: float) -> None:
    found = risks(kind, n, alpha)
    assert found.mean() <= alpha + Z * standard_error(found)
    if kind not in QUANTISED:  # and is at most 2 / (n + 1) below it (Angelopoulos et al. 2022, Theorem 2)
        assert found.mean() >= alpha - 2 / (n + 1) - Z * standard_error(found)


def without_the_one(values: list[Any], alpha: float) -> float:
    """The threshold that keeps α on the calibration images: CRC without the 1 for the new one."""
    candidates = np.unique(np.concatenate(values))
    fnr = [(np.sort(image).searchsorted(candidates) / image.size) for image in values]
    return float(candidates[np.flatnonzero(np.mean(fnr, 0) <= alpha)[-1]])


def test_crc_without_its_correction_is_found() -> None:
    found = risks("float32", 5, 0.2, without_the_one, 1500)
    assert found.mean() > 0.2 + Z * standard_error(found)
    assert risks("float32", 5, 0.2).mean() <= 0.2


def test_crc_with_greater_than_is_found() -> None:
    calibrating, new = draws(20, 4, 300)
    every = images("5 levels")
    thresholds = [crc_threshold([every.values[number] for number in each], 0.2) for each in calibrating]
    assert every.fnr(new, thresholds).mean() <= 0.2
    found = every.fnr(new, thresholds, np.less_equal).mean(1)
    assert found.mean() > 0.2 + Z * standard_error(found)


# --- several images and classes a unit, and images without lesion ---------------------------------------

GROUPS = 600


@cache
def groups(kind: str) -> list[list[list[Any]]]:
    """Groups of 1 to 3 images of two classes, each in some images only: group → image → class → p."""
    rng = np.random.default_rng(5)
    made = []
    for _ in range(GROUPS):
        hardness = rng.lognormal(-0.5, 0.8)  # the images of a group are alike
        sizes = rng.integers(1, VOXELS, (rng.integers(1, 4), 2)) * (rng.random((1, 2)) < [0.7, 0.3])
        made.append(
            [
                [np.sort(KINDS[kind](rng.random((1, VOXELS)) ** hardness)[0, :size]) for size in row]
                for row in sizes
            ]
        )
    return made


def lesions_of(kind: str, which: Any) -> Lesions:
    """The images of some groups, whose names are given as often as groups are drawn."""
    chosen = [(place, image) for place, group in enumerate(which) for image in groups(kind)[group]]
    return gather(
        [str(number) for number in range(len(chosen))], ["a", "b"],
        [image for _, image in chosen], [str(place) for place, _ in chosen],
    )  # fmt: skip


@cache
def parts(kind: str, cls: int | None) -> tuple[Any, Any, Any]:
    """The images and classes of all groups: p, beyond a lesion inf; lesion voxels; group."""
    found = [
        (number, part)
        for number, group in enumerate(groups(kind))
        for image in group
        for part in (image if cls is None else [image[cls]])
        if part.size
    ]
    p = np.array([np.pad(part.astype(np.float64), (0, VOXELS - part.size), constant_values=np.inf)
                  for _, part in found])  # fmt: skip
    return p, np.array([part.size for _, part in found]), np.array([number for number, _ in found])


def keeping(kind: str, epsilon: float, threshold: float, cls: int | None) -> Any:
    """Of each group 1 if it misses at most ε in each image and class, 0 if not, NaN without lesion."""
    p, m, group = parts(kind, cls)
    broken = (p < threshold).sum(1) / m > epsilon
    found = np.full(GROUPS, math.nan)
    found[group] = 1.0
    found[group[broken]] = 0.0
    return found


def shares_kept(kind: str, n: int, cls: int | None, by_image: bool = False) -> tuple[Any, int]:
    """Of 300 calibrations on n groups the share of all groups with lesion that is kept; groups left out."""
    rng = np.random.default_rng([n, 7])
    thresholds, left_out = [], 0
    for which in rng.integers(GROUPS, size=(300, n)):
        lesions = lesions_of(kind, which)
        if by_image:
            lesions = gather(lesions.names, lesions.classes, lesions.values)
        units = lesions.units(cls)
        assert by_image or units.n + units.left_out == n
        left_out += units.left_out
        thresholds.append(cls_threshold(units.critical(0.1), 0.2))
    values, place = np.unique(thresholds, return_inverse=True)
    return np.array([np.nanmean(keeping(kind, 0.1, value, cls)) for value in values])[place], left_out


@pytest.mark.parametrize("kind", ["float32", "5 levels"])
@pytest.mark.parametrize("cls", [None, 0])
def test_groups_classes_and_images_without_lesion(kind: str, cls: int | None) -> None:
    found, left_out = shares_kept(kind, 20, cls)
    assert left_out > 1000 if cls == 0 else left_out > 100  # a group in five has no lesion, or one in three
    assert found.mean() >= 0.8 - Z * standard_error(found)


def test_images_in_place_of_their_groups_are_found() -> None:
    """A promise for images is none for all images of a group together."""
    found, _ = shares_kept("float32", 20, None, by_image=True)
    assert found.mean() < 0.8 - Z * standard_error(found)


def test_images_without_lesion_that_are_counted_loosen_the_threshold() -> None:
    """Of all images, those without lesion too, 1 − α are kept; of those with lesion fewer."""
    rng = np.random.default_rng(8)
    counted = []
    for which in rng.integers(GROUPS, size=(300, 20)):
        units = lesions_of("float32", which).units(0, count_empty=True)
        assert (units.n, units.left_out) == (20, 0)
        counted.append(cls_threshold(units.critical(0.1), 0.2))
    values, place = np.unique(counted, return_inverse=True)
    each = [keeping("float32", 0.1, value, 0) for value in values]
    of_all = np.array([np.nan_to_num(kept, nan=1.0).mean() for kept in each])[place]
    of_lesion = np.array([np.nanmean(kept) for kept in each])[place]
    assert of_all.mean() >= 0.8 - Z * standard_error(of_all)
    assert of_lesion.mean() < 0.8 - Z * standard_error(of_lesion)
