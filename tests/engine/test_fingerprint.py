"""Fingerprints: the same for what is the same, wherever and however it lies."""

from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from engine import fingerprint
from engine.models.unet import UNet


def unet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return UNet(3, 2, base_width=4, depth=2)


def test_weights_are_names_types_shapes_and_bytes() -> None:
    network = nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 2.0]]))
        network.bias.fill_(3)
    said = b"bias torch.float32 (1,)\n" + np.array([3], "<f4").tobytes()
    said += b"weight torch.float32 (1, 2)\n" + np.array([1, 2], "<f4").tobytes()
    assert fingerprint.weights(network) == sha256(said).hexdigest()


def test_weights_do_not_depend_on_how_they_lie_or_where_they_come_from(tmp_path: Any) -> None:
    network = unet()
    found = fingerprint.weights(network)
    assert fingerprint.weights(unet()) == found
    torch.save(network.state_dict(), tmp_path / "x")
    again: Any = unet(1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert fingerprint.weights(again) != found
    again.load_state_dict(torch.load(tmp_path / "x", weights_only=True))
    assert any(not weight.is_contiguous() for weight in again.parameters())
    assert fingerprint.weights(again) == found
    assert fingerprint.weights(again.eval()) == found


def test_one_bit_of_any_weight_shows() -> None:
    network = unet()
    found = {fingerprint.weights(network)}
    state = network.state_dict()
    for number, tensor in enumerate(state.values()):
        with torch.no_grad():
            flat = tensor.view(-1)
            flat[-1] = (
                flat[-1] + 1 if tensor.dtype == torch.int64 else torch.nextafter(flat[-1], flat.new_tensor(9))
            )
        assert len(found | {fingerprint.weights(network)}) == number + 2
        found.add(fingerprint.weights(network))


def test_half_precision_has_a_fingerprint_of_its_own() -> None:
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    assert len({fingerprint.weights(nn.Conv2d(1, 1, 1).to(kind)) for kind in kinds}) == 3


def test_an_image_is_type_shape_and_bytes() -> None:
    pixels = np.array([[[1], [2], [515]]], np.uint16)
    said = b"<u2 (1, 3, 1)\n" + bytes([1, 0, 2, 0, 3, 2])
    assert fingerprint.image(pixels) == sha256(said).hexdigest()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@given(data=st.data())
def test_bands_give_what_the_whole_image_gives_however_it_lies(dtype: Any, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)))
    pixels = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    found = fingerprint.image(pixels)
    cuts = sorted(data.draw(st.sets(st.integers(1, 9), max_size=3)))
    bands = np.split(pixels, [cut for cut in cuts if cut < shape[0]])
    assert fingerprint.image_of(iter(bands), shape, pixels.dtype) == found
    for lying in (
        np.asfortranarray(pixels), pixels[::-1].copy()[::-1], pixels.astype(pixels.dtype.newbyteorder(">")),
    ):  # fmt: skip
        assert fingerprint.image(lying) == found


def test_images_that_differ_are_told_apart() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    other = pixels.copy()
    other[3, 5, 0] += 1
    images: list[np.ndarray] = [
        pixels, other, pixels.astype(np.uint16), pixels.astype(np.float32), pixels.reshape(6, 4, 1),
        pixels.reshape(4, 3, 2), pixels[::-1], pixels.view(np.int8),
    ]  # fmt: skip
    assert len({fingerprint.image(each) for each in images}) == len(images)
