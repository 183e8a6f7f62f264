"""Networks of MONAI: their published sizes, and that nothing but padding lies between."""

import pytest
import torch
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from networks import IN_3D, build, draw, parameters

from engine.models import external, specs
from engine.models.padding import pad


def test_published_numbers_of_parameters() -> None:
    # The networks of BraTS 2021, four channels in and three out, as MONAI publishes them.
    swin = specs.SwinUNETR(base_width=48, spatial_dims=3)
    assert parameters(swin.bind()(4, 3)) == 62_191_941
    with torch.device("meta"):
        residual = specs.SegResNet(base_width=16, spatial_dims=3)
        assert parameters(residual.bind()(4, 3)) == 4_702_227


@pytest.mark.parametrize("name", sorted(set(IN_3D) - {"unet"}))
@pytest.mark.parametrize("size", [(64, 64), (40, 70)])
def test_nothing_but_padding_lies_between(name: str, size: tuple[int, int]) -> None:
    wrapped = build(name, 1, 2).eval()
    assert isinstance(wrapped, external.AnySize)
    image = draw(1, 1, *size)
    with torch.inference_mode():
        plain = wrapped.network(pad(image, wrapped.multiple))
        plain = plain[-1] if isinstance(plain, list) else plain
        assert torch.equal(wrapped(image), plain[..., : size[0], : size[1]])


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_unet_plus_plus_is_monai_s_without_the_heads_that_no_loss_sees(norm: str) -> None:
    wrapped = build("unet_plus_plus", 1, 3, norm=norm).eval()
    whole = BasicUNetPlusPlus(
        2,
        1,
        3,
        features=(2, 4, 8, 16, 32, 2),
        norm=norm if norm == "batch" else ("instance", {"affine": True}),
    ).eval()
    missing, surplus = whole.load_state_dict(wrapped.network.state_dict(), strict=False)
    assert not surplus
    assert sorted(missing) == [
        f"final_conv_0_{node}.{part}" for node in (1, 2, 3) for part in ("bias", "weight")
    ]
    image = draw(1, 1, 32, 48)
    with torch.inference_mode():
        assert torch.equal(wrapped(image), whole(image)[-1])


@pytest.mark.parametrize("depth", [1, 3, 5])
@pytest.mark.parametrize("name", ["attention_unet", "segresnet"])
def test_depth_is_how_often_the_resolution_is_halved(name: str, depth: int) -> None:
    network = build(name, depth=depth, base_width=2).eval()
    assert isinstance(network, external.AnySize)
    sizes: set[int] = set()
    for layer in network.modules():
        layer.register_forward_hook(
            lambda layer, given, result: sizes.add(result.shape[-1]) if torch.is_tensor(result) else None
        )
    with torch.no_grad():
        network(draw(1, 1, 64, 64))
    assert min(sizes) == 64 // 2**depth
    assert network.multiple == 2**depth


@pytest.mark.parametrize("width", [1, 4, 6, 8, 12, 32])
def test_segresnet_takes_any_width(width: int) -> None:
    network = build("segresnet", base_width=width, depth=1)
    groups = {layer.num_groups for layer in network.modules() if isinstance(layer, torch.nn.GroupNorm)}
    assert groups == {{1: 1, 4: 4, 6: 2, 8: 8, 12: 4, 32: 8}[width]}
