"""U-Net: the published size, inputs of any size, and what each setting does."""

import pytest
import torch
from torch import Tensor, nn

from engine.models import specs
from engine.models.padding import pad
from engine.models.unet import Norm, UNet


def small(**settings: object) -> UNet:
    torch.manual_seed(0)
    return specs.UNet.model_validate({"base_width": 4, "depth": 3, **settings}).bind()(2, 3)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("base_width", "parameters"), [(64, 31_037_633), (32, 7_763_041)])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_published_number_of_parameters(base_width: int, parameters: int, norm: Norm) -> None:
    with torch.device("meta"):
        net = UNet(3, 1, base_width=base_width, norm=norm)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (17, 40), (3, 100), (64, 24)])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_any_size_in_two_dimensions(size: tuple[int, int], norm: Norm) -> None:
    net = small(norm=norm).train()
    logits = net(draw(1, 2, *size))
    assert logits.shape == (1, 3, *size)
    logits.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("size", [(8, 8, 8), (1, 20, 9)])
def test_any_size_in_three_dimensions(size: tuple[int, ...]) -> None:
    net = UNet(1, 2, base_width=2, depth=2, spatial_dims=3)
    assert net(draw(2, 1, *size)).shape == (2, 2, *size)


def test_the_result_is_that_of_the_padded_image() -> None:
    net = small().eval()
    image = draw(1, 2, 21, 30)
    with torch.inference_mode():
        torch.testing.assert_close(net(image), net(pad(image, 8))[..., :21, :30])


def test_evaluation_is_deterministic_and_training_drops() -> None:
    net = small(dropout=0.5)
    image = draw(2, 2, 32, 32)
    with torch.no_grad():
        net.train()
        assert not torch.equal(net(image), net(image))
        net.eval()
        assert torch.equal(net(image), net(image))


def test_dropout_drops_whole_channels() -> None:
    net = small(dropout=0.5, norm="none").train()
    maps = net.stem(draw(1, 2, 16, 16) + 5)
    dropped = (maps == 0).flatten(2).all(-1)
    assert dropped.any()
    assert not dropped.all()


def test_a_convolution_has_a_bias_only_where_nothing_cancels_it() -> None:
    for norm, biased in (("batch", False), ("instance", False), ("none", True)):
        threes = [
            m for m in small(norm=norm).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
        ]
        assert len(threes) == 14
        assert all((conv.bias is not None) == biased for conv in threes)


def test_batch_members_are_apart_in_evaluation() -> None:
    net = small().eval()
    images = draw(3, 2, 24, 24)
    with torch.inference_mode():
        torch.testing.assert_close(net(images)[1:2], net(images[1:2]), rtol=1e-4, atol=1e-5)


def test_channels_last_gives_the_same() -> None:
    net = small().eval()
    image = draw(2, 2, 20, 27)
    with torch.inference_mode():
        usual = net(image)
        last = net.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, usual, rtol=1e-4, atol=1e-5)


def test_it_learns() -> None:
    """A bright disc on noise is found within some steps."""
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    truth = ((rows - 11) ** 2 + (columns - 13) ** 2 < 36).float()[None, None]
    image = truth + 0.5 * torch.randn(1, 1, 24, 24)
    net = UNet(1, 1, base_width=4, depth=2)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(30):
        loss = nn.functional.binary_cross_entropy_with_logits(net(image), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_xavier_start_is_uniform_with_the_published_bound(norm: Norm, spatial_dims: int) -> None:
    torch.manual_seed(0)
    net = UNet(
        1, 1, base_width=8, depth=2, norm=norm, initialization="xavier", spatial_dims=spatial_dims
    )  # fmt: skip
    kernels = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    found = [layer for layer in net.modules() if isinstance(layer, kernels)]
    assert len(found) == 13  # five double convolutions, two transposed ones, the head
    for layer in found:
        # Glorot and Bengio's eq. 16: inputs and outputs of a unit are channels times the kernel's size.
        window = layer.weight[0, 0].numel()
        bound = (6 / (window * (layer.in_channels + layer.out_channels))) ** 0.5
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.35)
        assert layer.bias is None or not layer.bias.any()


def test_the_start_is_torch_s_own_unless_it_is_asked_for() -> None:
    torch.manual_seed(0)
    usual = UNet(1, 1, base_width=4, depth=1)
    torch.manual_seed(0)
    glorot = UNet(1, 1, base_width=4, depth=1, initialization="xavier")
    torch.manual_seed(0)
    own = nn.Conv2d(1, 4, 3, padding=1, bias=False)
    assert torch.equal(usual.stem[0].weight, own.weight)
    assert not torch.equal(glorot.stem[0].weight, own.weight)
