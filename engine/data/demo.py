"""The embedded data set: generated images of thin, branching vessels with exact truth. No torch.

What makes such structures hard is built in: they taper until their contrast drowns in the noise, the
illumination is uneven, and specks, blobs and folds look a little like them. A plain network therefore misses
thin ends, which is what modulation is for.
"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from platformdirs import user_cache_dir

from engine.errors import InputError

Floats = NDArray[np.float64]

_VERSION = 1  # counts up when the same seed draws other images, so that an old cache is left alone
_MARK = "demo.json"
_STEP = 0.5  # px between points of a branch
_THINNEST = 0.72  # px; from radius √½ up, a branch is 8-connected however it crosses the grid
_FOREGROUND = (0.04, 0.10)


@dataclass(frozen=True)
class Branch:
    """A course of points half a px apart."""

    points: Floats
    """(N, 2) y, x in px."""
    radius: Floats
    """(N,) in px."""
    contrast: Floats
    """(N,) depth below the background, 0…1 of its brightness."""


def write_demo(folder: Path | None = None, *, images: int = 96, size: int = 128, seed: int = 0) -> Path:
    """Write the set as ``images/NNN.png`` and ``masks/NNN.png`` (8 bit, gray; masks 0 and 255), once.

    The folder appears complete or not at all; a finished one is used again.

    Args:
        folder: where to; by default a folder of the user's cache.
        images: how many.
        size: height and width in px.
        seed: of the set.

    Returns:
        The folder.

    Raises:
        InputError: the folder cannot be written, or holds something else.
    """
    mark = {"version": _VERSION, "images": images, "size": size, "seed": seed}
    name = f"demo-v{_VERSION}-{images}x{size}-seed{seed}"
    target = Path(user_cache_dir("napari-smm", appauthor=False)) / name if folder is None else Path(folder)
    try:
        if not _finished(target, mark):
            _replace(target, mark, ours=folder is None)
    except OSError as error:
        raise InputError(
            f"the demo data cannot be written to {target} ({error.strerror or error}): make room there, or "
            f"make the folder writable."
        ) from error
    return target


def demo_pair(number: int, *, size: int = 128, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Image and truth, (size, size) each; both depend on the number, size and seed only."""
    rng = np.random.default_rng([_VERSION, seed, number])
    depth, truth = _vessels(rng, size)
    scene = _background(rng, size) * (1 - depth) * (1 - _distractors(rng, size))
    blurred = _blurred(scene, rng.uniform(0.6, 0.9), mode="nearest")
    return _sensor(rng, blurred), truth


def _finished(folder: Path, mark: dict[str, int]) -> bool:
    """Whether the folder holds this very set, with no file gone since."""
    try:
        found = json.loads((folder / _MARK).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False
    paths = (folder / kind / _name(i) for kind in ("images", "masks") for i in range(mark["images"]))
    return bool(found == mark) and all(path.is_file() for path in paths)


def _replace(target: Path, mark: dict[str, int], ours: bool) -> None:
    """Write the set beside the target and rename it; only a damaged folder of our own cache is removed."""
    if not ours and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} holds something other than this demo set: give a new or an empty folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        draft = Path(temporary) / "set"
        _write(draft, mark)
        if target.exists():
            shutil.rmtree(target) if ours else target.rmdir()
        try:
            os.replace(draft, target)
        except OSError:
            if not _finished(target, mark):  # else another process has just written the same
                raise


def _write(folder: Path, mark: dict[str, int]) -> None:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(mark["images"]):
        image, truth = demo_pair(number, size=mark["size"], seed=mark["seed"])
        Image.fromarray(image).save(folder / "images" / _name(number))
        Image.fromarray(truth.astype(np.uint8) * 255).save(folder / "masks" / _name(number))
    (folder / _MARK).write_text(json.dumps(mark) + "\n", encoding="utf-8")


def _name(number: int) -> str:
    return f"{number:03d}.png"


def _vessels(rng: Generator, size: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Depth (0…1) and truth of trees that cover a realistic share of the image."""
    while True:
        area = rng.uniform(0.05, 0.095) * size**2
        branches = _forest(rng, size, area)
        cover, depth = _stamp(branches, size)
        truth = cover >= 0.5
        if _FOREGROUND[0] <= truth.mean() <= _FOREGROUND[1]:
            return depth, truth


def _forest(rng: Generator, size: int, area: float) -> list[Branch]:
    """Trees from the border inwards, thick branches before thin ones, until they fill about ``area`` px."""
    branches: list[Branch] = []
    taken = np.zeros((size, size), dtype=bool)
    waiting: list[Sprout] = []
    while area > 0:
        waiting = waiting or [_root(rng, size) for _ in range(rng.integers(2, 4))]
        branch = _grow(rng, size, *waiting.pop(0))
        if _claim(taken, branch):
            branches.append(branch)
            area -= 2 * float(branch.radius.sum()) * _STEP
            waiting += _children(rng, branch)
    return branches


def _claim(taken: NDArray[np.bool_], branch: Branch) -> bool:
    """Whether a branch mostly keeps away from all others, as vessels do; if so, take its surroundings."""
    size = len(taken)
    course = np.clip(np.rint(branch.points), 0, size - 1).astype(np.int64)
    free = course[12:]  # it may start on its parent
    if len(free) < 8 or taken[free[:, 0], free[:, 1]].mean() > 0.15:
        return False
    around = np.clip(course[::4, None] + np.mgrid[-4:5, -4:5].reshape(2, -1).T, 0, size - 1)
    taken[around[..., 0], around[..., 1]] = True
    return True


Sprout = tuple[Floats, float, float, float]
"""Where a branch starts (y, x in px), its heading (radians), radius (px) and contrast."""


def _root(rng: Generator, size: int) -> Sprout:
    """A start just outside one side of the image, heading across it."""
    side = rng.integers(4)
    start = np.array([-2.0, rng.uniform(0.1, 0.9) * size])
    heading = np.pi / 2 + rng.uniform(-0.6, 0.6)  # down the image
    for _ in range(side):  # a quarter turn about the middle
        start = np.array([start[1], size - 1 - start[0]])
        heading += np.pi / 2
    return start, heading, rng.uniform(1.3, 2.6), rng.uniform(0.36, 0.56)


def _grow(rng: Generator, size: int, start: Floats, heading: float, radius: float, contrast: float) -> Branch:
    """A winding course that thins and fades towards its end, cut where it leaves the image."""
    count = int(rng.uniform(20, 50) * (0.5 + 0.5 * radius) / _STEP)
    wander = _blurred(rng.normal(size=count), 12, mode="nearest") * rng.uniform(0.05, 0.13)
    angle = heading + np.cumsum(wander)
    moves = _STEP * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    points = start + np.cumsum(moves, axis=0)
    away = ((points < -4) | (points > size + 3)).any(axis=1)
    count = int(away.argmax()) if away.any() else count
    along = np.linspace(0, 1, count)
    fade = 0.1 if radius > 1 else 0.4  # the last branches vanish in the noise
    flicker = 1 + 0.5 * _blurred(rng.normal(size=count), 10, mode="nearest")
    return Branch(
        points[:count],
        np.maximum(radius * (1 - 0.25 * along), _THINNEST),
        np.clip(contrast * (1 - fade * along) * flicker[:count], 0.05, 0.8),
    )


def _children(rng: Generator, branch: Branch) -> list[Sprout]:
    """Side branches along the way, and a fork at the end."""
    count = len(branch.points)
    if count < 12:
        return []
    sites = [count - 1, count - 1, *rng.integers(count // 5, count, rng.poisson(count * _STEP / 22))]
    sprouts = []
    for order, site in enumerate(sites):
        y, x = branch.points[site] - branch.points[max(site - 6, 0)]
        side = 1 if order % 2 else -1
        bend = rng.uniform(0.2, 0.6) if order < 2 else rng.uniform(0.6, 1.2)
        radius = branch.radius[site] * (rng.uniform(0.7, 0.95) if order < 2 else rng.uniform(0.45, 0.75))
        thin = min(radius / _THINNEST, 1.0)
        if thin > 0.55:
            contrast = branch.contrast[site] * np.sqrt(thin) * rng.uniform(0.85, 1.0)
            sprouts.append((branch.points[site], float(np.arctan2(y, x)) + side * bend, radius, contrast))
    return sprouts


def _stamp(branches: list[Branch], size: int) -> tuple[Floats, Floats]:
    """Share of each pixel that is covered, and depth: the deepest branch wins where several cross."""
    points, radius, contrast = (
        np.concatenate([getattr(b, field) for b in branches]) for field in ("points", "radius", "contrast")
    )
    reach = int(np.ceil(radius.max())) + 1
    around = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    pixels = np.rint(points).astype(np.int64)[:, None] + around  # (N, M, 2)
    distance = np.linalg.norm(pixels - points[:, None], axis=2)
    cover = np.clip(radius[:, None] + 0.5 - distance, 0, 1)
    seen = ((pixels >= 0) & (pixels < size)).all(axis=2) & (cover > 0)
    flat = pixels[seen] @ np.array([size, 1])
    covered, depth = np.zeros(size * size), np.zeros(size * size)
    np.maximum.at(covered, flat, cover[seen])
    np.maximum.at(depth, flat, (cover * contrast[:, None])[seen])
    return covered.reshape(size, size), depth.reshape(size, size)


def _background(rng: Generator, size: int) -> Floats:
    """Brightness of the tissue, about 0.35…0.85: a vignette, slow shading, and a fine mottle."""
    y, x = np.mgrid[:size, :size] / size - rng.uniform(0.3, 0.7, (2, 1, 1))
    vignette = 1 - rng.uniform(0.3, 0.9) * (y**2 + x**2)
    mottle = 0.05 * _clouds(rng, size, 16) + 0.025 * _clouds(rng, size, 5)
    tissue: Floats = rng.uniform(0.6, 0.75) * vignette * (1 + 0.12 * _clouds(rng, size, 48) + mottle)
    return tissue


def _distractors(rng: Generator, size: int) -> Floats:
    """Depth of what is not vessel: specks, dark and bright blobs, and soft-edged folds."""
    y, x = np.arange(size)[:, None], np.arange(size)
    depth = np.zeros((size, size))
    for kind, count in (("speck", 14), ("blob", 4)):
        for _ in range(rng.poisson(count * (size / 128) ** 2)):
            cy, cx = rng.uniform(0, size, 2)
            width = rng.uniform(0.6, 1.1) if kind == "speck" else rng.uniform(2.5, 6)
            strength = rng.uniform(0.1, 0.3) if kind == "speck" else rng.uniform(-0.2, 0.15)
            depth += strength * _bell(y - cy, width) * _bell(x - cx, width)
    for _ in range(rng.poisson(1.5)):
        angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.4, 0.4) * size
        across = (y - size / 2) * np.cos(angle) + (x - size / 2) * np.sin(angle) - offset
        across = across + 5 * _clouds(rng, size, 32)
        depth += rng.uniform(0.04, 0.1) / (1 + np.exp(-across / rng.uniform(0.8, 2.0)))
    return np.clip(depth, -0.5, 0.5)


def _clouds(rng: Generator, size: int, grain: int) -> Floats:
    """Smooth noise of about unit deviation, whose spots are about ``grain`` px apart."""
    knots = np.arange(-2, size // grain + 4)
    weights = _bell(np.arange(size)[:, None] / grain - knots, 0.6)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    smooth: Floats = weights @ rng.normal(size=(len(knots), len(knots))) @ weights.T
    return smooth


def _blurred(values: Floats, width: float, mode: str = "reflect") -> Floats:
    """Values smoothed by a Gaussian of this deviation."""
    from scipy.ndimage import gaussian_filter  # here, as a set that is written already needs none of it

    blurred: Floats = gaussian_filter(values, width, mode=mode)
    return blurred


def _bell(x: Floats, width: float) -> Floats:
    bell: Floats = np.exp(-((x / width) ** 2) / 2)
    return bell


def _sensor(rng: Generator, scene: Floats) -> NDArray[np.uint8]:
    """Shot noise, a little of it smeared over neighbours, read noise and 8 bits."""
    electrons = rng.uniform(350, 900)
    noisy = rng.poisson(np.clip(scene, 0.02, None) * electrons) / electrons
    grain = _blurred(rng.normal(size=scene.shape), 0.8) * rng.uniform(0.02, 0.05)
    read = rng.normal(scale=0.01, size=scene.shape)
    levels: NDArray[np.uint8] = np.clip(np.rint((noisy + grain + read) * 255), 0, 255).astype(np.uint8)
    return levels
