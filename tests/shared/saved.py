"""Saving images and masks as a user does while training goes on."""

import os
import time
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

OLD = 10.0
"""Seconds before now at which files were changed that may be taken up at once."""
MOMENTS = count()


def settle(path: Path, age: float = OLD) -> None:
    """Make a file look as if it had been saved some time ago, each time at another one."""
    moment = time.time_ns() - int(age * 1e9) + next(MOMENTS)
    os.utime(path, ns=(moment, moment))


def save(root: Path, name: str, mask: np.ndarray, age: float = OLD) -> Path:
    """Save the mask of an image."""
    path = root / "masks" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    settle(path, age)
    return path


def bring(root: Path, name: str, number: int, size: tuple[int, int] = (40, 48)) -> None:
    """Save an image of its own, a bright disc in noise, and its mask of 0 and 1."""
    rng = np.random.default_rng(number)
    mask = disc(*rng.integers(8, 30, 2), size=size)
    image = (60 * rng.random(size) + 120 * mask).astype(np.uint8)
    path = root / "images" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    settle(path)
    save(root, name, mask)


def disc(row: float, column: float, size: tuple[int, int] = (40, 48)) -> np.ndarray:
    """A mask of one disc, uint8."""
    y, x = np.ogrid[: size[0], : size[1]]
    return (((y - row) ** 2 + (x - column) ** 2) < 60).astype(np.uint8)
