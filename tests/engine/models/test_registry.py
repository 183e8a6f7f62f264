"""Every network: any size, finite gradients, seeded weights, evaluation, precision, memory formats."""

import inspect
import io
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from networks import IN_3D, NAMES, SMALL, build, draw
from torch import nn

from engine.config import Layer, RunConfig, resolve
from engine.errors import InputError
from engine.prepare import build_network
from engine.schema import choices
from engine.spec import import_target

FORMS = [((1, 1), 1, 4), ((33, 47), 3, 1), ((8, 200), 1, 1), ((64, 31), 3, 4)]
"""Sizes, with channels in and out."""


@pytest.fixture
def strict() -> Iterator[None]:
    """Raise at an algorithm that may not give the same result twice."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def assert_learns_everywhere(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_every_network_is_tested() -> None:
    assert set(SMALL) == set(NAMES)
    assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_defaults_equal_the_spec_s(name: str) -> None:
    part = choices(RunConfig, "model")[name]
    signature = inspect.signature(import_target(part.target)).parameters
    found = {key: parameter.default for key, parameter in list(signature.items())[2:]}
    expected = part().of_dims(2).settings()
    assert {**found, "spatial_dims": 2} == {**expected, "spatial_dims": 2}
    assert list(signature)[:2] == ["in_channels", "out_channels"]


@pytest.mark.parametrize(("size", "inputs", "outputs"), FORMS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("strict")
def test_a_batch_of_one_of_any_size_trains(
    name: str, size: tuple[int, int], inputs: int, outputs: int
) -> None:
    network = build(name, inputs, outputs).train()
    logits = network(draw(1, inputs, *size))
    assert type(logits) is torch.Tensor
    assert logits.shape == (1, outputs, *size)
    assert logits.dtype == torch.float32
    logits.square().sum().backward()
    assert_learns_everywhere(network)


@pytest.mark.parametrize("name", sorted(set(IN_3D) - {"swin_unetr"}))
@pytest.mark.usefixtures("strict")
def test_any_size_in_three_dimensions(name: str) -> None:
    network = build(name, 1, 2, spatial_dims=3)
    logits = network(draw(1, 1, 1, 20, 9))
    assert logits.shape == (1, 2, 1, 20, 9)
    logits.square().sum().backward()
    assert_learns_everywhere(network)


def test_swin_unetr_in_three_dimensions() -> None:
    # Without numbers: its least size of 64³ takes a core many seconds.
    network = build("swin_unetr", 1, 2, spatial_dims=3).to("meta")
    logits = network(torch.empty(1, 1, 1, 20, 9, device="meta"))
    assert logits.shape == (1, 2, 1, 20, 9)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_says_the_same_twice_and_of_each_image_alone(name: str) -> None:
    network = build(name, 1, 2).eval()
    images = draw(3, 1, 40, 33)
    with torch.inference_mode():
        whole = network(images)
        assert torch.equal(network(images), whole)
        torch.testing.assert_close(network(images[1:2]), whole[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        (name, key)
        for name, part in choices(RunConfig, "model").items()
        for key in part.model_fields
        if "dropout" in key
    ],
)
def test_every_dropout_drops_in_training_alone(name: str, setting: str) -> None:
    network = build(name, 1, 1, **{setting: 0.5})
    images = draw(2, 1, 64, 64)
    with torch.no_grad():
        network.train()
        assert not torch.equal(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_alone_decides_the_starting_weights(name: str) -> None:
    one, same, other = (build(name, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_brings_the_same_network_back(name: str) -> None:
    network, image = build(name, 1, 2), draw(2, 1, 34, 30)
    network.train()
    network(image)  # moves the running means
    network.eval()
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    again = build(name, 1, 2, seed=1).eval()
    again.load_state_dict(torch.load(file, weights_only=True))
    with torch.inference_mode():
        assert torch.equal(again(image), network(image))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision(name: str) -> None:
    network, image = build(name, 1, 2), draw(2, 1, 33, 20)
    with torch.no_grad():
        full = network.eval()(image)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(image)
        trained = network.train()(image)
    assert half.dtype == torch.bfloat16
    # bfloat16 has 8 bits, and rounding adds up over some dozens of layers.
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max() + 0.05
    trained.float().square().mean().backward()
    assert_learns_everywhere(network)


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_gives_the_same(name: str) -> None:
    network = build(name, 2, 1).eval()
    image = draw(2, 2, 20, 27)
    with torch.inference_mode():
        usual = network(image)
        last = network.to(memory_format=torch.channels_last)(
            image.contiguous(memory_format=torch.channels_last)
        )
    torch.testing.assert_close(last, usual, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns(name: str) -> None:
    """A bright disc on noise is found better after some steps."""
    network = build(name)
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    truth = ((rows - 18) ** 2 + (columns - 22) ** 2 < 100).float()[None, None]
    image = truth + 0.5 * draw(1, 1, 40, 40)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(12):
        loss = nn.functional.binary_cross_entropy_with_logits(network(image), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(IN_3D)))
def test_a_network_for_two_dimensions_refuses_three_with_those_that_would_work(name: str) -> None:
    with pytest.raises(InputError) as error:
        resolve([Layer("flags", {"model": {"name": name, "spatial_dims": 3}})])
    assert str(error.value) == (
        "model.spatial_dims = 3 cannot be used: this network works in 2 dimensions only; in 3, unet, "
        "attention_unet, unet_plus_plus, segresnet, swin_unetr do."
    )


@pytest.mark.parametrize("name", IN_3D)
@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_takes_the_dimensions_of_the_images_unless_others_are_set(name: str, dims: int) -> None:
    config, _ = resolve([Layer("flags", {"model": {"name": name, **SMALL[name]}})])
    network = build_network(config, 1, 1, torch.device("meta"), dims)
    assert max(p.ndim for p in network.parameters()) == 2 + dims
    other, _ = resolve([Layer("flags", {"model": {"name": name, "spatial_dims": 5 - dims}})])
    with pytest.raises(InputError) as error:
        build_network(other, 1, 1, torch.device("cpu"), dims)
    assert str(error.value) == (
        f"model.spatial_dims is {5 - dims}, but the images of a run have {dims} dimensions: leave it out, or "
        f"use model.spatial_dims {dims}."
    )


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(IN_3D)))
def test_a_network_for_images_refuses_volumes_with_those_that_would_work(name: str) -> None:
    config, _ = resolve([Layer("flags", {"model": {"name": name}})])
    with pytest.raises(InputError) as error:
        build_network(config, 1, 1, torch.device("cpu"), 3)
    assert str(error.value) == (
        "model.spatial_dims is 2, but the images of a run have 3 dimensions: model.name unet, "
        "attention_unet, unet_plus_plus, segresnet, swin_unetr would work."
    )


def test_monai_is_loaded_only_where_a_network_needs_it_and_warns_of_nothing() -> None:
    code = (
        "import sys; import engine.loop, engine.models.semantic_fpn, engine.models.segnet; "
        "assert 'monai' not in sys.modules; "
        "from engine.models import specs; specs.SwinUNETR(base_width=12).bind()(1, 1); "
        "assert 'monai' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
