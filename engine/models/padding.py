"""Images of any size for networks that halve them: padded before, cropped after.

Each network says by its ``multiple`` to what it pads; 0 there leaves padding to the caller, as a graph that
is exported does.
"""

import torch.nn.functional as F
from torch import Tensor


def pad(image: Tensor, multiple: int) -> Tensor:
    """Pad the end of each axis to a multiple, at least two of them.

    So the coarsest map has at least 2 elements an axis, which normalisation needs. The edge
    is repeated: zeros would draw a step there that looks like a structure, and a reflection
    is not defined where the padding is wider than the image.

    Args:
        image: (B, channels, *S), any real dtype, 2D or 3D.
        multiple: by which the network's coarsest map is smaller; 0 for an image that is padded already.
    """
    if not multiple:
        return image
    sizes = image.shape[2:]
    missing = [max(2 * multiple, -(-size // multiple) * multiple) - size for size in sizes]
    if not any(missing):
        return image
    return F.pad(image, [width for after in reversed(missing) for width in (0, after)], mode="replicate")


def crop(logits: Tensor, image: Tensor) -> Tensor:
    """Logits (B, outputs, *S') of a padded image without what was padded: (B, outputs, *S).

    Args:
        logits: at least as large as the image on each axis.
        image: (B, channels, *S) before it was padded.
    """
    for axis, size in enumerate(image.shape[2:], start=2):
        logits = logits.narrow(axis, 0, size)
    return logits
