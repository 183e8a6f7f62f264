"""ResNet-50 as a trunk: feature maps at four resolutions instead of a class."""

from torch import Tensor, nn

EXPANSION = 4
"""A block gives so many times the channels that it works with."""
BLOCKS = (3, 4, 6, 3)
"""Blocks of each stage."""


class ResNet50(nn.Module):
    """The convolutions of ResNet-50, with the names of layers that public ImageNet checkpoints use.

    He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, with the stride
    in a block's 3×3 convolution, as in those checkpoints. 23 508 032 parameters with three channels
    in. Without a checkpoint it starts as ResNets do: He's normal weights of the outputs' fan.

    Args:
        in_channels: channels of the image.
        base_width: channels of the stem; 64 is ResNet-50's.
    """

    def __init__(self, in_channels: int, base_width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, base_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(base_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        widths = [base_width * 2**stage for stage in range(len(BLOCKS))]
        inputs = [base_width, *(EXPANSION * width for width in widths)]
        self.layer1 = stage(inputs[0], widths[0], BLOCKS[0], stride=1)
        self.layer2 = stage(inputs[1], widths[1], BLOCKS[1], stride=2)
        self.layer3 = stage(inputs[2], widths[2], BLOCKS[2], stride=2)
        self.layer4 = stage(inputs[3], widths[3], BLOCKS[3], stride=2)
        self.outputs = tuple(inputs[1:])
        """Channels of the four maps."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> list[Tensor]:
        """C2 to C5, at a 4th, 8th, 16th and 32nd of the resolution, of an image (B, in_channels, H, W).

        H and W are multiples of 32.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions with batch norm, beside a shortcut.

    Args:
        inputs: channels in.
        width: channels of the 3×3 convolution; four times as many come out.
        stride: of the 3×3 convolution and the shortcut.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to (B, 4 width, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y)) + self.downsample(x)
        result: Tensor = self.relu(y)
        return result


def stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks at one resolution; the first one halves it where the stride is 2."""
    first = Bottleneck(inputs, width, stride)
    return nn.Sequential(first, *(Bottleneck(EXPANSION * width, width, 1) for _ in range(blocks - 1)))
