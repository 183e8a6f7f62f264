"""Layers that are quick on a CPU give what torch's give."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from networks import NAMES, build, draw
from torch import Tensor, nn

from engine.models import quick
from engine.models.quick import (
    QuickConv2d,
    QuickInstanceNorm2d,
    QuickInstanceNorm3d,
    quicken,
    weight_gradient,
)

LAST = torch.channels_last


@pytest.fixture(autouse=True)
def avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quicker way on any processor, and for images of any size."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(quick, "LEAST_NUMBERS", 1)


@pytest.fixture
def reckoned(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Sizes of the images for which the gradient of the weights was reckoned here."""
    sizes: list[torch.Size] = []

    def noted(image: Tensor, gradient: Tensor) -> Tensor:
        sizes.append(image.shape)
        return weight_gradient(image, gradient)

    monkeypatch.setattr(quick, "weight_gradient", noted)
    return sizes


def quickened(layer: nn.Module) -> nn.Module:
    holder = nn.Sequential(deepcopy(layer))
    quicken(holder)
    return holder.to(memory_format=LAST)[0]  # type: ignore[call-overload, no-any-return]


def run(layer: nn.Module, image: Tensor, slope: Tensor) -> list[Tensor]:
    """Result, and gradients of image and parameters."""
    image = image.clone(memory_format=torch.preserve_format).requires_grad_()
    result = layer(image)
    return [result, *torch.autograd.grad(result, [image, *layer.parameters()], slope)]


def by_definition(image: Tensor, gradient: Tensor) -> Tensor:
    """Each tap's sum over all pixels."""
    height, width = image.shape[2:]
    padded = nn.functional.pad(image, (1, 1, 1, 1))
    taps = [
        torch.einsum("bohw,bihw->oi", gradient, padded[:, :, row : row + height, column : column + width])
        for row in range(3)
        for column in range(3)
    ]
    return torch.stack(taps, -1).unflatten(-1, (3, 3))


@pytest.mark.parametrize("block", [1, 200, 2**19])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 1), (9, 6)])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (3, 2), (1, 1)])
def test_the_gradient_of_the_weights(
    inputs: int, outputs: int, size: tuple[int, int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "BLOCK", block)
    image, gradient = draw(2, inputs, *size).double(), draw(2, outputs, *size).double().flip(0)
    expected = by_definition(image, gradient)
    for form in (torch.contiguous_format, LAST):
        found = weight_gradient(image.contiguous(memory_format=form), gradient.contiguous(memory_format=form))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution(bias: bool, reckoned: list[torch.Size]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 32, 3, padding=1, bias=bias)
    image, slope = draw(2, 16, 12, 10), draw(2, 32, 12, 10)
    layer = quickened(plain)
    assert isinstance(layer, QuickConv2d)
    expected = run(plain, image, slope)
    found = run(layer, image.contiguous(memory_format=LAST), slope.contiguous(memory_format=LAST))
    assert reckoned == [(2, 16, 12, 10)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    assert found[0].is_contiguous(memory_format=LAST)
    assert found[1].is_contiguous(memory_format=LAST)


def test_its_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    layer = quickened(nn.Conv2d(16, 16, 3, padding=1).double())
    image = draw(1, 16, 3, 2).double().requires_grad_()

    def convolve(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, image)

    assert torch.autograd.gradcheck(convolve, (image, *layer.parameters()), fast_mode=True)


def test_a_second_derivative_is_refused() -> None:
    layer = quickened(nn.Conv2d(16, 16, 3, padding=1))
    (slope,) = torch.autograd.grad(layer(draw(1, 16, 4, 4)).square().sum(), layer.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize(
    "plain",
    [
        nn.Conv2d(16, 16, 1),
        nn.Conv2d(16, 16, 3),
        nn.Conv2d(16, 16, 3, padding=1, stride=2),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.Conv2d(16, 16, 3, padding=1, groups=2),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 16, 3, padding=1),
        nn.InstanceNorm2d(4, track_running_stats=True),
    ],
)
def test_other_layers_stay(plain: nn.Module) -> None:
    assert type(quickened(plain)) is type(plain)


def ways_out() -> dict[str, Callable[[nn.Module, Tensor], object]]:
    def frozen(layer: nn.Module, image: Tensor) -> None:
        layer.requires_grad_(False)(image.requires_grad_()).sum().backward()

    def cast(layer: nn.Module, image: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            result = layer(image)
        assert result.dtype == torch.bfloat16
        result.sum().backward()

    def channels_first(layer: nn.Module, image: Tensor) -> None:
        layer.to(memory_format=torch.contiguous_format)(image).sum().backward()  # type: ignore[call-overload]

    return {"frozen": frozen, "autocast": cast, "channels first": channels_first}


@pytest.mark.parametrize("way", ways_out())
def test_elsewhere_torch_s_own_way_is_taken(way: str, reckoned: list[torch.Size]) -> None:
    layer = quickened(nn.Conv2d(16, 16, 3, padding=1))
    layer(draw(1, 16, 4, 4)).sum().backward()
    assert len(reckoned) == 1
    ways_out()[way](layer, draw(1, 16, 4, 4))
    assert len(reckoned) == 1


def test_on_other_processors_torch_s_own_way_is_taken(
    reckoned: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    quickened(nn.Conv2d(16, 16, 3, padding=1))(draw(1, 16, 4, 4)).sum().backward()
    assert not reckoned


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dims", [2, 3])
def test_instance_norm(dims: int, batch: int) -> None:
    plain = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims](5, affine=True)
    last = {2: LAST, 3: torch.channels_last_3d}[dims]
    size = (6, 7, 4)[:dims]
    image, slope = draw(batch, 5, *size), draw(batch, 5, *size).flip(-1)
    layer = nn.Sequential(deepcopy(plain))
    quicken(layer)
    assert isinstance(layer[0], QuickInstanceNorm2d | QuickInstanceNorm3d)
    expected = run(plain, image, slope)
    # Torch's own is wrong for the second of these with one image.
    for of_image, of_slope in (
        (last, last),
        (torch.contiguous_format, last),
        (last, torch.contiguous_format),
    ):
        found = run(layer, image.contiguous(memory_format=of_image), slope.contiguous(memory_format=of_slope))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert found[0].is_contiguous(memory_format=of_image)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_gives_the_same(name: str) -> None:
    plain = build(name, 1, 2).double().eval()
    image = draw(1, 1, 64, 64).double()
    network = deepcopy(plain).to(memory_format=LAST)  # type: ignore[call-overload]
    quicken(network)
    assert list(network.state_dict()) == list(plain.state_dict())
    results = []
    for one, form in ((plain, torch.contiguous_format), (network, LAST)):
        logits = one(image.contiguous(memory_format=form))
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in one.parameters())])
    for first, last in zip(*results, strict=True):
        torch.testing.assert_close(last, first)


@pytest.mark.filterwarnings("ignore:.*jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_graph_holds_plain_layers() -> None:
    network = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.InstanceNorm2d(16)).to(memory_format=LAST)  # type: ignore[call-overload]
    image = draw(2, 16, 4, 4).contiguous(memory_format=LAST)
    expected = network(image)
    quicken(network)
    graph = torch.export.export(network, (image,)).module()
    assert "instance_norm" in str(graph.graph)
    torch.testing.assert_close(graph(image), expected)
    traced = torch.jit.trace(network, image, check_trace=False)
    assert "instance_norm" in str(traced.inlined_graph)
