"""SegNet: the published size, VGG's encoder, and unpooling to where the maxima were."""

import pytest
import torch
import torch.nn.functional as F
from networks import draw, parameters
from torch import Tensor, nn

from engine.models.padding import crop, pad
from engine.models.segnet import SegNet, pool, unpool


def test_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert parameters(SegNet(3, 1)) == 29_443_585


def test_the_encoder_is_vgg_16_s_with_batch_norm() -> None:
    with torch.device("meta"):
        net = SegNet(3, 1)
    found = [layer for layer in net.down.modules() if isinstance(layer, nn.Conv2d)]
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert [conv.out_channels for conv in found] == widths
    # VGG-16's 14 714 688 without its classifier, and scale and shift of each channel.
    assert parameters(net.down) == 14_714_688 + 2 * sum(widths)
    back = [layer for layer in net.up.modules() if isinstance(layer, nn.Conv2d)]
    assert [conv.in_channels for conv in back] == widths[:0:-1]
    assert (net.head.in_channels, net.head.out_channels) == (64, 1)


@pytest.mark.parametrize("made", ["random", "equal", "negative"])
def test_unpooling_is_torch_s(made: str) -> None:
    x = {
        "random": draw(2, 3, 8, 6), "equal": torch.zeros(2, 3, 8, 6), "negative": -draw(2, 3, 8, 6).abs(),
    }[made]  # fmt: skip
    maxima, index = F.max_pool2d(x, 2, return_indices=True)
    found, place = pool(x)
    assert torch.equal(found, maxima)
    assert place.dtype == torch.uint8
    assert torch.equal(unpool(found, place), F.max_unpool2d(maxima, index, 2))
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(unpool(*pool(last)), unpool(found, place))


def test_by_hand() -> None:
    x = torch.tensor([[[[1.0, 9, 2, 3], [4, 5, 8, 7]]]])
    maxima, place = pool(x)
    assert maxima.tolist() == [[[[9, 8]]]]
    assert place.tolist() == [[[[1, 2]]]]
    assert unpool(torch.tensor([[[[-5.0, 6]]]]), place).tolist() == [[[[0, -5, 0, 0], [0, 0, 6, 0]]]]


def test_the_gradient_is_right() -> None:
    x = torch.randperm(48, generator=torch.Generator().manual_seed(0)).double().reshape(1, 2, 4, 6)
    x.requires_grad_()

    def round_trip(x: Tensor) -> Tensor:
        maxima, place = pool(x)
        return unpool(maxima.square(), place)

    assert torch.autograd.gradcheck(round_trip, (x,))


def test_the_decoder_undoes_the_poolings_from_the_last_to_the_first() -> None:
    torch.manual_seed(0)
    net = SegNet(1, 2, base_width=2).eval()
    image = draw(1, 1, 50, 70)
    with torch.no_grad():
        x, indices, found = pad(image, 32), [], net(image)
        for down in net.down:
            x, index = F.max_pool2d(down(x), 2, return_indices=True)
            indices.append(index)
        assert x.shape == (1, 16, 2, 3)
        for up in net.up:
            x = up(F.max_unpool2d(x, indices.pop(), 2))
        torch.testing.assert_close(found, crop(net.head(x), image))
