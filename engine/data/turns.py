"""Mirror images and quarter turns of a batch: exact, exactly undone, one element of the group per image.

The symmetries of the square are numbered 0…7: code ``c`` mirrors left to right if ``c >= 4``, and then turns
by ``c % 4`` quarter turns counter-clockwise, as ``np.rot90`` does. Even codes keep any shape; odd ones are
for square images only. Each symmetry is also a transposition, or none, then upside down or not, then left to
right or not. Volumes are turned slice by slice, all alike; 8 more mirrors them along their depth as well.

Codes are known on the CPU, so that nothing waits for a device.
"""

import torch
from torch import Tensor

from engine.bits import sent

CODES = 8
"""Symmetries of a square."""
DEEP = 8
"""Added to a code of a volume that is mirrored along its first axis."""
_INVERSE = torch.tensor([0, 3, 2, 1, 4, 5, 6, 7])  # a mirror image with any turn is its own inverse
_UPSIDE = torch.tensor([0, 1, 1, 0, 0, 0, 1, 1]) > 0
_MIRRORED = torch.tensor([0, 0, 1, 1, 1, 0, 0, 1]) > 0


def turn(x: Tensor, codes: Tensor) -> Tensor:
    """Turn each image by its own symmetry.

    Args:
        x: (B, C, H, W) or (B, C, D, H, W), any dtype.
        codes: (B,) int64 on the CPU, 0…7, of volumes 0…15; only even ones unless H == W.

    Returns:
        As ``x``, the same values in new places.

    Raises:
        ValueError: an odd code for an image that is not square.
    """
    *_, height, width = x.shape
    if x.ndim == 5:
        deep = codes >= DEEP
        if bool(deep.any()):
            x = torch.where(sent(deep, x.device).view(-1, 1, 1, 1, 1), x.flip(2), x)
        return turn(x.flatten(1, 2), codes % DEEP).view(x.shape)
    if height != width and bool((codes % 2).any()):
        raise ValueError(f"a quarter turn needs square images, and these are {height} × {width}")
    return _by_code(x, codes) if x.device.type == "cpu" else _by_index(x, codes)


def unturn(x: Tensor, codes: Tensor) -> Tensor:
    """Undo :func:`turn` exactly; same arguments."""
    return turn(x, _INVERSE[codes % DEEP] + codes // DEEP * DEEP)


def _by_code(x: Tensor, codes: Tensor) -> Tensor:
    """All images of a code at once: few and long copies, which suit a CPU."""
    x = x.contiguous()  # planes are mirrored several times as fast as pixels of some channels
    out = torch.empty_like(x)
    for code in sorted(set(codes.tolist())):
        rows = (codes == code).nonzero()[:, 0]
        some = x.index_select(0, rows)
        axes = [axis for axis, flips in ((-2, _UPSIDE), (-1, _MIRRORED)) if flips[code]]
        out.index_copy_(0, rows, (some.mT if code % 2 else some).flip(axes))
    return out


def _by_index(x: Tensor, codes: Tensor) -> Tensor:
    """All images at once, whatever their codes: as few operations as a device can be asked for."""
    *_, height, width = x.shape
    upside, mirrored = _UPSIDE[codes, None], _MIRRORED[codes, None]
    rows, columns = torch.arange(height), torch.arange(width)
    rows = torch.where(upside, rows.flip(0), rows)
    columns = torch.where(mirrored, columns.flip(0), columns)
    parts = [torch.arange(len(codes))[:, None], codes[:, None] % 2, rows, columns]
    places = sent(torch.cat(parts, dim=1), x.device)
    image, odd, rows, columns = torch.split(places, [1, 1, height, width], dim=1)
    if bool((codes % 2).any()):
        x = torch.where(odd.bool()[..., None, None], x.mT, x)
    return x.movedim(1, -1)[image[..., None], rows[..., None], columns[:, None]].movedim(-1, 1)
