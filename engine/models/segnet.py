"""SegNet."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.models.padding import crop, pad

WIDTHS = (1, 2, 4, 8, 8)
"""Channels of each stage, in base widths, as in VGG-16."""
CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Convolutions of each stage, as in VGG-16: thirteen."""


class SegNet(nn.Module):
    """SegNet: the thirteen convolutions of VGG-16, and a decoder that unpools to where the maxima were.

    Badrinarayanan, Kendall and Cipolla, "SegNet: a deep convolutional encoder-decoder architecture
    for image segmentation", TPAMI 39(12), 2017. The decoder mirrors the encoder; its last convolution
    gives the logits, with neither norm nor ReLU. 29 443 585 parameters with three channels in and one
    out.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits (see :mod:`engine.head`).
        base_width: channels after the first stage; the last two have eight times as many.
    """

    def __init__(self, in_channels: int, out_channels: int, *, base_width: int = 64) -> None:
        super().__init__()
        widths = [base_width * width for width in WIDTHS]
        stages = [
            [above, *[width] * count]
            for above, width, count in zip([in_channels, *widths], widths, CONVOLUTIONS, strict=False)
        ]
        self.down = nn.ModuleList(convolutions(channels) for channels in stages)
        # The first stage's mirror ends in the head, which has no norm.
        mirrored = [*stages[:0:-1], stages[0][1:]]
        self.up = nn.ModuleList(convolutions(channels[::-1]) for channels in mirrored)
        self.head = nn.Conv2d(base_width, out_channels, 3, padding=1)
        self.multiple = 2 ** len(WIDTHS)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, out_channels, H, W) of an image (B, in_channels, H, W) of any size."""
        x = pad(image, self.multiple)
        places = []
        for down in self.down:
            x, place = pool(down(x))
            places.append(place)
        for up in self.up:
            x = up(unpool(x, places.pop()))
        return crop(self.head(x), image)


def convolutions(channels: list[int]) -> nn.Sequential:
    """3×3 convolutions from each number of channels to the next, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima of windows of 2×2, and where in its window each was.

    Args:
        x: (B, channels, 2h, 2w).

    Returns:
        (B, channels, h, w), and uint8 of the same shape: 0 and 1 in the upper row, 2 and 3 below.
    """
    width = x.shape[-1]
    maxima, index = F.max_pool2d(x, 2, return_indices=True)
    return maxima, (2 * (index // width % 2) + index % 2).to(torch.uint8)


def unpool(x: Tensor, place: Tensor) -> Tensor:
    """Put each value where its maximum was, 0 elsewhere: the inverse of :func:`pool`.

    As windows do not overlap, it needs no scattered writes, for which CUDA has no algorithm that gives
    the same result twice; ``torch.nn.functional.max_unpool2d`` gives the same values.

    Args:
        x: (B, channels, h, w).
        place: uint8 of the same shape, from :func:`pool`.

    Returns:
        (B, channels, 2h, 2w).
    """
    zero = x.new_zeros(())
    corners = torch.stack([torch.where(place == corner, x, zero) for corner in range(4)], 2)
    return F.pixel_shuffle(corners.flatten(1, 2), 2)
