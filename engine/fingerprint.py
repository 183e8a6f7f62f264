"""Fingerprints: by which weights, and images that were trained on, are known again. SHA-256, in hex."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

KINDS = tuple(np.dtype(kind) for kind in ("u1", "<u2", "<i2", "<i4", "<f4", "<f8"))
"""Types in which the values of an image are hashed: the first that holds them all, exactly."""
BLOCK = 1 << 20
"""Values that are looked at together, so that a large image costs no copy."""


def weights(network: nn.Module) -> str:
    """Fingerprint of all that a network has learned: names, types, shapes and values of its state.

    The same wherever the network runs, in whatever memory format, and whatever the checkpoint's name.
    """
    digest = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def image(pixels: NDArray[Any]) -> str:
    """Fingerprint of a decoded image: its shape and values, whatever type they have and however they lie.

    So a copy in another format is known again: uint8 as uint16, or whole numbers as float32. Values that
    were changed, such as those divided by 255, make another image. The bytes are hashed of the first type
    among :data:`KINDS` that holds all values, or of the image's own where none does.

    Args:
        pixels: (H, W, channels), any real dtype.
    """
    kinds = _kinds(pixels.dtype)
    found = (kind for kind in kinds[:-1] if all(_holds(kind, part) for part in _parts(pixels)))
    return _hashed(_parts(pixels), pixels.shape, [next(found, kinds[-1])])[0]


def image_of(bands: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """What :func:`image` gives, of an image that comes a few rows or lines at a time.

    Args:
        bands: the image in row-major order, cut along its first axis, or into lines (lines, W, channels).
        shape: of the whole image, (*S, channels).
        dtype: of all bands.
    """
    return known_as(bands, shape, dtype)[0]


def known_as(bands: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[str, ...]:
    """All fingerprints by which a run may know an image: first that of :func:`image`, then, if it is another,
    that of the bytes in the image's own type, which older runs noted. Arguments as :func:`image_of`."""
    return _hashed((part for band in bands for part in _parts(band)), shape, _kinds(dtype))


def _hashed(
    bands: Iterable[NDArray[Any]], shape: tuple[int, ...], kinds: list[np.dtype[Any]]
) -> tuple[str, ...]:
    """Fingerprints in the first type that holds all values, and in the last, which is taken to do so.

    Rows that are still to come may need a wider type: all types that held everything so far are hashed.
    """
    live = {kind: sha256(f"{kind.str} {tuple(map(int, shape))}\n".encode()) for kind in kinds}
    for band in bands:
        live = {kind: live[kind] for kind in live if kind == kinds[-1] or _holds(kind, band)}
        for kind, digest in live.items():
            digest.update(np.ascontiguousarray(band, kind).data)
    each = [digest.hexdigest() for digest in live.values()]
    return tuple(dict.fromkeys((each[0], each[-1])))


def _kinds(dtype: np.dtype[Any]) -> list[np.dtype[Any]]:
    """Types that an image may be hashed in, its own as the last."""
    own = _little(dtype)
    return [*KINDS[: KINDS.index(own)], own] if own in KINDS else [*KINDS, own]


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("<")


def _holds(kind: np.dtype[Any], values: NDArray[Any]) -> bool:
    """Whether a type holds all values exactly. Integers are not asked for as floats, which round them."""
    if kind.kind == "f" and values.dtype.kind != "f":
        return False
    if np.can_cast(values.dtype, kind):
        return True
    with np.errstate(invalid="ignore", over="ignore"):
        # Most that fail do so in the first row.
        return all(bool((part.astype(kind) == part).all()) for part in (values[:1], values))


def _parts(pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    rows = max(1, BLOCK // max(1, pixels[:1].size))
    return (pixels[first : first + rows] for first in range(0, len(pixels), rows))
