"""Mirror images and quarter turns of a batch: exact, exactly undone, one element of the group per image.

The symmetries of the square are numbered 0…7: code ``c`` mirrors left to right if ``c >= 4``, and then turns
by ``c % 4`` quarter turns counter-clockwise, as ``np.rot90`` does. Even codes keep any shape; odd ones are
for square images only. Each symmetry reads pixel ``start + down·y + right·x`` of the flattened image at
(y, x), so three integers a code say it all. Volumes are turned slice by slice, all alike; 8 more mirrors
them along their depth as well.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

CODES = 8
"""Symmetries of a square."""
DEEP = 8
"""Added to a code of a volume that is mirrored along its first axis."""
_INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)  # a mirror image with any turn is its own inverse


def turn(x: Tensor, codes: Tensor) -> Tensor:
    """Turn each image by its own symmetry.

    Args:
        x: (B, C, H, W) or (B, C, D, H, W), any dtype.
        codes: (B,) int64 on the device of ``x``, 0…7, of volumes 0…15; only even ones unless H == W.

    Returns:
        As ``x``, the same values in new places.

    Raises:
        RuntimeError: an odd code for an image that is not square (on a GPU, a device-side assertion).
    """
    *_, height, width = x.shape
    if x.ndim == 5:
        deep = (codes >= DEEP).view(-1, 1, 1, 1, 1)
        x = torch.where(deep, x.flip(2), x)
        return turn(x.flatten(1, 2), codes % DEEP).view(x.shape)
    start, down, right = _strides(height, width, x.device)[codes].T[..., None, None]
    rows = torch.arange(height, device=x.device)[:, None]
    columns = torch.arange(width, device=x.device)
    index = (start + down * rows + right * columns).flatten(1)[:, None]
    return x.flatten(2).gather(2, index.expand(-1, x.shape[1], -1)).view(x.shape)


def unturn(x: Tensor, codes: Tensor) -> Tensor:
    """Undo :func:`turn` exactly; same arguments."""
    inverse = torch.tensor(_INVERSE, device=codes.device)[codes % DEEP]
    return turn(x, inverse + codes // DEEP * DEEP)


@lru_cache(maxsize=64)
def _strides(height: int, width: int, device: torch.device) -> Tensor:
    """(8, 3) int64: start, step down and step right in the flattened source, for each code."""
    source = np.arange(height * width).reshape(height, width)
    table = []
    for code in range(CODES):
        if code % 2 and height != width:
            table.append((height * width, 0, 0))  # out of range, so that gather refuses it
            continue
        turned = np.rot90(source[:, ::-1] if code >= 4 else source, code % 4)
        first = int(turned[0, 0])
        down = int(turned[1, 0]) - first if height > 1 else 0
        right = int(turned[0, 1]) - first if width > 1 else 0
        table.append((first, down, right))
    return torch.tensor(table, device=device)
