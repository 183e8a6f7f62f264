"""Semantic FPN."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.models import pretrained
from engine.models.padding import crop, pad
from engine.models.resnet import ResNet50

Head = Literal["fusion", "two_convs"]


class SemanticFPN(nn.Module):
    """A feature pyramid on ResNet-50 whose levels are joined at a quarter of the resolution.

    The network of the comparison of U-Net and ResNet+FPN for brain tumours (its sections 6.1 to 6.3),
    after Lin et al., "Feature pyramid networks for object detection", CVPR 2017, and Kirillov et al.,
    "Panoptic feature pyramid networks", CVPR 2019. 27 115 329 parameters with three channels in and
    one out; 29 802 305 with the head "two_convs".

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits (see :mod:`engine.head`).
        base_width: channels of the trunk's stem; 64 is ResNet-50's.
        pyramid_width: channels of each level of the pyramid, and of the head.
        head: "fusion" is a 1×1 convolution with batch norm and ReLU (section 6.3); "two_convs" two 3×3
            convolutions with ReLU and without norm (section 6, step 4).
        dropout: share of channels dropped before the last convolution while training.
        weights: file of ImageNet weights that the trunk starts from (see :mod:`engine.models.pretrained`);
            without it, the trunk starts at random.

    Raises:
        InputError: the file's weights cannot be used.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        base_width: int = 64,
        pyramid_width: int = 256,
        head: Head = "fusion",
        dropout: float = 0.1,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        width = pyramid_width
        self.multiple = 32
        self.trunk = ResNet50(in_channels, base_width)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in self.trunk.outputs)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.lateral)
        joined = width * len(self.lateral)
        layers: list[nn.Module] = {
            "fusion": [nn.Conv2d(joined, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)],
            "two_convs": [
                nn.Conv2d(joined, width, 3, padding=1), nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True),
            ],
        }[head]  # fmt: skip
        self.head = nn.Sequential(*layers, nn.Dropout2d(dropout), nn.Conv2d(width, out_channels, 1))
        if weights is not None:
            pretrained.load(self.trunk, weights)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, out_channels, H, W) of an image (B, in_channels, H, W) of any size."""
        x: Tensor | None = None
        levels = []
        maps = self.trunk(pad(image, self.multiple))
        for c, lateral, smooth in zip(maps[::-1], reversed(self.lateral), reversed(self.smooth), strict=True):
            x = lateral(c) if x is None else lateral(c) + F.interpolate(x, scale_factor=2.0)
            levels.append(smooth(x))
        finest = levels[-1].shape[2:]
        joined = torch.cat([F.interpolate(level, size=finest) for level in reversed(levels)], 1)
        logits = F.interpolate(self.head(joined), scale_factor=4.0, mode="bilinear", align_corners=False)
        return crop(logits, image)
