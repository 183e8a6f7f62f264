"""Networks of MONAI, which is imported with this module and nowhere else, for it takes seconds."""

import math
from typing import Literal

from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import Tensor, nn

from engine.models.padding import crop, pad


class AnySize(nn.Module):
    """A network that takes multiples of a length, for images of any size.

    Args:
        network: maps (B, channels, *S) to logits (B, outputs, *S), or to a list whose last are these.
        multiple: by which its coarsest map is smaller than the image.
    """

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, outputs, *S) of an image (B, channels, *S)."""
        logits = self.network(pad(image, self.multiple))
        return crop(logits[-1] if isinstance(logits, list) else logits, image)


def attention_unet(
    in_channels: int,
    out_channels: int,
    *,
    base_width: int = 32,
    depth: int = 4,
    dropout: float = 0.0,
    spatial_dims: int = 2,
) -> nn.Module:
    """U-Net whose skip connections are weighted by attention gates, with batch norm.

    Oktay et al., "Attention U-Net: learning where to look for the pancreas", MIDL 2018.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits (see :mod:`engine.head`).
        base_width: channels after the first stage; each stage below has twice as many.
        depth: encoder stages, each halving the resolution, and as many decoder stages.
        dropout: share of values dropped after each convolution while training.
        spatial_dims: 2 or 3.
    """
    network = AttentionUnet(
        spatial_dims,
        in_channels,
        out_channels,
        channels=[base_width * 2**stage for stage in range(depth + 1)],
        strides=[2] * depth,
        dropout=dropout,
    )
    return AnySize(network, 2**depth)


def unet_plus_plus(
    in_channels: int,
    out_channels: int,
    *,
    base_width: int = 32,
    norm: Literal["batch", "instance"] = "batch",
    dropout: float = 0.0,
    spatial_dims: int = 2,
) -> nn.Module:
    """U-Net++: a U-Net with nested, dense skip connections, five resolutions deep.

    Zhou et al., "UNet++: a nested U-Net architecture for medical image segmentation", DLMIA 2018,
    without deep supervision: the logits are those of the last of its nodes.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits (see :mod:`engine.head`).
        base_width: channels at the first resolution; each below has twice as many. The paper's is 32.
        norm: normalisation after each convolution.
        dropout: share of values dropped after each convolution while training.
        spatial_dims: 2 or 3.
    """
    widths = [base_width * 2**stage for stage in range(5)]
    network = BasicUNetPlusPlus(
        spatial_dims,
        in_channels,
        out_channels,
        features=[*widths, base_width],
        norm=norm if norm == "batch" else ("instance", {"affine": True}),
        dropout=dropout,
    )
    # The heads of the other nodes take part in no loss, so they would be weights that never learn.
    for name in ("final_conv_0_1", "final_conv_0_2", "final_conv_0_3"):
        setattr(network, name, nn.Identity())
    return AnySize(network, 2**4)


def segresnet(
    in_channels: int,
    out_channels: int,
    *,
    base_width: int = 32,
    depth: int = 3,
    dropout: float = 0.0,
    spatial_dims: int = 2,
) -> nn.Module:
    """Encoder of residual blocks with group norm, and a lighter decoder that interpolates.

    Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization", BrainLes 2018,
    without the autoencoder.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits (see :mod:`engine.head`).
        base_width: channels at the first resolution; each below has twice as many. The paper's is 32.
            Channels are normalised in 8 groups, or in as many as divide both 8 and this.
        depth: how often the encoder halves the resolution. With 3 it has the paper's 1, 2, 2 and 4
            blocks.
        dropout: share of values dropped after the first convolution while training.
        spatial_dims: 2 or 3.
    """
    network = SegResNet(
        spatial_dims,
        base_width,
        in_channels,
        out_channels,
        dropout_prob=dropout or None,
        norm=("GROUP", {"num_groups": math.gcd(8, base_width)}),
        blocks_down=(1, *[2] * (depth - 1), 4),
        blocks_up=(1,) * depth,
    )
    return AnySize(network, 2**depth)


def swin_unetr(
    in_channels: int,
    out_channels: int,
    *,
    base_width: int = 24,
    window: int = 7,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    path_dropout: float = 0.0,
    spatial_dims: int = 2,
) -> nn.Module:
    """Swin transformer as encoder and convolutions with instance norm as decoder.

    Hatamizadeh et al., "Swin UNETR: Swin transformers for semantic segmentation of brain tumors in MRI
    images", BrainLes 2021.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits (see :mod:`engine.head`).
        base_width: channels at the first resolution, a multiple of 12. The paper's is 48.
        window: side of the windows within which patches attend to each other, in patches.
        dropout: share of values dropped in each transformer block while training.
        attention_dropout: share of attention weights dropped while training.
        path_dropout: probability that the deepest residual branch is left out for an image while
            training; shallower ones are left out less often, in proportion.
        spatial_dims: 2 or 3.
    """
    network = SwinUNETR(
        in_channels,
        out_channels,
        window_size=window,
        feature_size=base_width,
        drop_rate=dropout,
        attn_drop_rate=attention_dropout,
        dropout_path_rate=path_dropout,
        spatial_dims=spatial_dims,
    )
    return AnySize(network, 2**5)
