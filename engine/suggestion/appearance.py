"""Appearance: numbers by which images that look alike are told from others. No network takes part."""

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
LAGS = (1, 2, 4, 8)
"""Distances in pixels at which neighbours are compared."""
Floats = NDArray[np.float64]


def appearance(image: NDArray[np.float32]) -> Floats:
    """How intensities are distributed, how coarse the image is, and how much its channels differ.

    Args:
        image: (*S, channels), normalised as the network sees it.

    Returns:
        float64 (features,), as many for all images with so many channels: the quantiles :data:`QUANTILES` of
        the channels' mean; its :func:`madogram` at :data:`LAGS`, which rises at once for fine texture and
        late for large objects; of several channels the mean absolute difference of each from that mean.
    """
    gray = image.mean(axis=-1, dtype=np.float32)
    found = [*np.quantile(gray, QUANTILES), *(madogram(gray, lag) for lag in LAGS)]
    if image.shape[-1] > 1:
        found += [np.abs(image[..., channel] - gray).mean() for channel in range(image.shape[-1])]
    return np.asarray(found, np.float64)


def madogram(gray: NDArray[np.float32], lag: int) -> float:
    """Mean absolute difference of pixels (*S) that lie `lag` apart along one of the last two axes.

    Zero where the image is too small to have such pixels.
    """
    pairs = []
    for axis in (-2, -1):
        along = np.moveaxis(gray, axis, 0)
        if len(along) > lag:
            pairs.append(float(np.abs(along[lag:] - along[:-lag]).mean(dtype=np.float64)))
    return sum(pairs) / len(pairs) if pairs else 0.0


def similarity(looks: Floats, others: Floats | None = None) -> Floats:
    """exp(-d² / 2σ²) of images with each other, or with others: float64 (n, n) or (n, m) in (0, 1].

    d is the root mean square difference of their features, each scaled to deviation 1 over `looks` and cut at
    3; σ is half of the median d between different `looks`.

    Args:
        looks: (n, features), n >= 1.
        others: (m, features), measured on the same scale, or None for `looks` themselves.
    """
    spread = looks.std(axis=0)
    scale = np.where(spread > 0, spread, 1)

    def scaled(features: Floats) -> Floats:
        return np.asarray(np.clip((features - looks.mean(axis=0)) / scale, -3, 3))

    own = distances(scaled(looks), scaled(looks))
    between = own[np.triu_indices(len(looks), 1)]
    sigma = float(np.median(between)) / 2 if between.size else 0.0
    found = own if others is None else distances(scaled(looks), scaled(others))
    # Where more than half of the pairs are copies of each other, only copies are similar.
    return np.exp(-((found / sigma) ** 2) / 2) if sigma > 0 else (found == 0).astype(np.float64)


def distances(one: Floats, other: Floats) -> Floats:
    """Root mean square differences (n, m) of rows (n, features) and (m, features)."""
    squares = (one**2).mean(axis=1)[:, None] + (other**2).mean(axis=1) - 2 * one @ other.T / one.shape[1]
    return np.asarray(np.sqrt(np.maximum(squares, 0)))
