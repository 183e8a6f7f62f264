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


def test_an_image_is_shape_and_values() -> None:
    pixels = np.array([[[1], [2], [515]]], np.uint16)
    said = b"<u2 (1, 3, 1)\n" + bytes([1, 0, 2, 0, 3, 2])
    assert fingerprint.image(pixels) == sha256(said).hexdigest()
    narrow = np.array([[[1], [2], [255]]])
    said = b"|u1 (1, 3, 1)\n" + bytes([1, 2, 255])
    kinds = ("u1", "u2", ">u2", "i4", "i8", "u8", "f2", "f4", "f8")
    assert {fingerprint.image(narrow.astype(kind)) for kind in kinds} == {sha256(said).hexdigest()}


VALUES = {
    "|u1": [0, 7, 255], "<u2": [0, 256, 65535], "<i2": [-1, 0, 32767], "<i4": [-1, 65535, 2**31 - 1],
    "<f4": [0.5, 1, float(np.float32(0.1))], "<f8": [0.1, 1, 2],
}  # fmt: skip
"""Type → values that it is the first to hold."""


@pytest.mark.parametrize("kind", VALUES)
def test_the_first_type_that_holds_all_values_is_hashed(kind: str) -> None:
    values = np.array(VALUES[kind], np.float64).reshape(1, 3, 1)
    expected = sha256(f"{kind} (1, 3, 1)\n".encode() + values.astype(kind).tobytes()).hexdigest()
    wider = [each for each in VALUES if bool((values.astype(each) == values).all())]
    assert wider[0] == kind
    for each in wider:
        assert fingerprint.image(values.astype(each)) == expected
        # Rows that still fit a narrower type come first and last.
        rows = np.concatenate([np.zeros_like(values), values, np.ones_like(values)]).astype(each)
        assert fingerprint.image_of(np.split(rows, 3), rows.shape, rows.dtype) == fingerprint.image(rows)


def test_what_no_smaller_type_holds_keeps_its_own() -> None:
    large = np.array([[[2**53], [2**53 + 1]]], np.int64)
    assert fingerprint.image(large) != fingerprint.image(large - 1)
    assert len({fingerprint.image(large), fingerprint.image(large.astype(np.uint64))}) == 2
    odd = np.array([[[np.nan], [np.inf]]], np.float32)
    assert fingerprint.image(odd) == sha256(b"<f4 (1, 2, 1)\n" + odd.tobytes()).hexdigest()


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "f4", "i1"])
@pytest.mark.parametrize("top", [100, 60_000])
def test_the_fingerprints_of_older_runs_are_known(dtype: str, top: int) -> None:
    kind = np.dtype(dtype)
    pixels = np.random.default_rng(0).integers(0, min(top, 120 if kind.itemsize == 1 else top), (5, 4, 3))
    pixels = pixels.astype(kind)
    plain = kind.newbyteorder("<")
    older = sha256(f"{plain.str} (5, 4, 3)\n".encode() + pixels.astype(plain).tobytes()).hexdigest()
    known = fingerprint.known_as(np.split(pixels, [2, 3]), pixels.shape, kind)
    assert known[0] == fingerprint.image(pixels)
    assert known[-1] == older
    assert len(known) == 1 + (known[0] != older)
    assert (len(known) == 1) == (kind == np.uint8 or (kind.itemsize == 2 and top > 255))


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
        pixels, other, pixels / np.float32(255), -pixels.astype(np.int16), pixels.reshape(6, 4, 1),
        pixels.reshape(4, 3, 2), pixels[::-1], pixels.astype(np.uint16) + 256,
    ]  # fmt: skip
    assert len({fingerprint.image(each) for each in images}) == len(images)
