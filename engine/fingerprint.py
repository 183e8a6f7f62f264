"""Fingerprints: by which weights, and images that were trained on, are known again. SHA-256, in hex."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


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
    """Fingerprint of a decoded image: its type, shape and values, however it lies in memory.

    Args:
        pixels: (H, W, channels), any real dtype.
    """
    return image_of([pixels], pixels.shape, pixels.dtype)


def image_of(bands: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """What :func:`image` gives, of an image that comes a few rows at a time.

    Args:
        bands: the image from top to bottom, each (rows, W, channels), with any number of rows.
        shape: of the whole image, (H, W, channels).
        dtype: of all bands.
    """
    kind = dtype.newbyteorder("<")
    digest = sha256(f"{kind.str} {tuple(map(int, shape))}\n".encode())
    for band in bands:
        digest.update(np.ascontiguousarray(band, kind).data)
    return digest.hexdigest()
