"""Semantic FPN: the published sizes, ResNet-50 as others build it, and the pyramid step by step."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets.resnet import resnet50
from networks import draw, parameters
from torch import Tensor, nn

from engine.models.padding import pad
from engine.models.resnet import ResNet50
from engine.models.semantic_fpn import Head, SemanticFPN


@pytest.mark.parametrize(("head", "number"), [("fusion", 27_115_329), ("two_convs", 29_802_305)])
def test_published_number_of_parameters(head: Head, number: int) -> None:
    with torch.device("meta"):
        assert parameters(SemanticFPN(3, 1, head=head)) == number
        assert parameters(ResNet50(3)) == 23_508_032


def others(seed: int) -> nn.Module:
    """MONAI's ResNet-50 for colour images, whose layers have the public names too, and no classifier."""
    torch.manual_seed(seed)
    return resnet50(
        spatial_dims=2, n_input_channels=3, conv1_t_stride=2, bias_downsample=False, feed_forward=False
    ).eval()


def test_the_trunk_is_resnet_50_as_others_build_it() -> None:
    other, trunk = others(0), ResNet50(3).eval()
    with torch.no_grad():
        for buffer in other.buffers():
            if buffer.is_floating_point():
                buffer.add_(0.1 * draw(*buffer.shape).abs())
    trunk.load_state_dict(other.state_dict())
    image = draw(2, 3, 64, 96)
    with torch.inference_mode():
        maps = trunk(image)
        assert [tuple(x.shape[1:]) for x in maps] == [
            (256, 16, 24), (512, 8, 12), (1024, 4, 6), (2048, 2, 3)
        ]  # fmt: skip
        torch.testing.assert_close(maps[-1].mean((2, 3)), other(image), rtol=1e-4, atol=1e-5)


def test_the_trunk_starts_as_resnets_do() -> None:
    torch.manual_seed(0)
    trunk = ResNet50(3, base_width=16)
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 2000:
            fan = layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]
            assert layer.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.1)


def doubled(x: Tensor, times: int) -> Tensor:
    """Each pixel repeated along both axes."""
    return x.repeat_interleave(times, 2).repeat_interleave(times, 3)


@pytest.mark.parametrize("head", ["fusion", "two_convs"])
def test_the_pyramid_step_by_step(head: Head) -> None:
    torch.manual_seed(0)
    net = SemanticFPN(1, 2, base_width=2, pyramid_width=4, head=head).eval()
    image = draw(2, 1, 70, 90)
    with torch.inference_mode():
        c2, c3, c4, c5 = net.trunk(pad(image, 32))
        sums = [net.lateral[3](c5)]
        for level, c in ((2, c4), (1, c3), (0, c2)):
            sums.insert(0, net.lateral[level](c) + doubled(sums[0], 2))
        p2, p3, p4, p5 = (smooth(x) for smooth, x in zip(net.smooth, sums, strict=True))
        joined = torch.cat([p2, doubled(p3, 2), doubled(p4, 4), doubled(p5, 8)], 1)
        assert joined.shape == (2, 16, 24, 24)
        x = joined
        kinds = [type(layer).__name__ for layer in net.head]
        for layer in net.head:
            x = layer(x)
        expected = F.interpolate(x, size=(96, 96), mode="bilinear", align_corners=False)[..., :70, :90]
        torch.testing.assert_close(net(image), expected)
    assert (
        kinds
        == {
            "fusion": ["Conv2d", "BatchNorm2d", "ReLU", "Dropout2d", "Conv2d"],
            "two_convs": ["Conv2d", "ReLU", "Conv2d", "ReLU", "Dropout2d", "Conv2d"],
        }[head]
    )


def test_each_level_of_the_pyramid_counts() -> None:
    torch.manual_seed(0)
    net = SemanticFPN(1, 1, base_width=2, pyramid_width=4).eval()
    image = draw(1, 1, 64, 64)
    with torch.inference_mode():
        found = [net(image)]
        for smooth in net.smooth:
            assert isinstance(smooth.bias, nn.Parameter)
            smooth.bias.add_(1)
            found.append(net(image))
    assert all(not torch.equal(one, other) for one, other in pairwise(found))
