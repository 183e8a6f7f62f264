"""U-Net."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from engine.models.padding import crop, pad

Norm = Literal["batch", "instance", "none"]
Initialization = Literal["default", "xavier"]


class UNet(nn.Module):
    """U-Net with double 3×3 convolutions and transposed-convolution upsampling (SMM paper, 5.2).

    Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation",
    MICCAI 2015, with padded convolutions and normalisation. 31 037 633 parameters with base width 64,
    three channels in and one out.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits (see :mod:`engine.head`).
        base_width: channels after the first stage; each stage below has twice as many.
        depth: encoder stages, each halving the resolution, and as many decoder stages.
        norm: normalisation after each convolution; with "none" the convolutions get a bias,
            which a normalisation would cancel.
        dropout: share of channels dropped after each double convolution while training.
        initialization: "default" is torch's; for "xavier" see :func:`xavier`.
        spatial_dims: 2 or 3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        base_width: int = 32,
        depth: int = 4,
        norm: Norm = "batch",
        dropout: float = 0.0,
        initialization: Initialization = "default",
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]
        up = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[spatial_dims]
        pool = {2: nn.MaxPool2d, 3: nn.MaxPool3d}[spatial_dims]
        widths = [base_width * 2**stage for stage in range(depth + 1)]
        pairs = list(pairwise(widths))

        def double(inputs: int, outputs: int) -> nn.Sequential:
            return double_conv(inputs, outputs, norm, dropout, spatial_dims)

        self.depth = depth
        self.multiple = 2**depth
        self.stem = double(in_channels, base_width)
        self.down = nn.ModuleList(nn.Sequential(pool(2), double(wide, deep)) for wide, deep in pairs)
        self.up = nn.ModuleList(up(deep, wide, 2, stride=2) for wide, deep in reversed(pairs))
        self.merge = nn.ModuleList(double(2 * wide, wide) for wide, _ in reversed(pairs))
        self.head = conv(base_width, out_channels, 1)
        if initialization == "xavier":
            self.apply(xavier)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, out_channels, *S) of an image (B, in_channels, *S) of any size."""
        x = self.stem(pad(image, self.multiple))
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        return crop(self.head(x), image)


def double_conv(inputs: int, outputs: int, norm: Norm, dropout: float, spatial_dims: int) -> nn.Sequential:
    """Two 3×3 convolutions, each with norm and ReLU, then channel dropout."""
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]
    drop = {2: nn.Dropout2d, 3: nn.Dropout3d}[spatial_dims]
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(conv(channels, outputs, 3, padding=1, bias=norm == "none"))
        layers += [*normalisation(norm, outputs, spatial_dims), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, drop(dropout))


def normalisation(norm: Norm, channels: int, spatial_dims: int) -> list[nn.Module]:
    """The layer that normalises, learning scale and shift; none for "none"."""
    if norm == "batch":
        return [{2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[spatial_dims](channels)]
    if norm == "instance":
        return [{2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[spatial_dims](channels, affine=True)]
    return []


def xavier(layer: nn.Module) -> None:
    """Start a convolution, transposed ones too, from Xavier's uniform weights and a bias of 0.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, eq. 16; the start of the networks of the DSC++ paper. Other layers stay as they are.
    """
    if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
