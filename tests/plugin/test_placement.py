"""Derived layers lie on their source, whatever its transform; where they lay is kept with the data set."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Points

from engine.errors import InputError
from napari_smm.placement import (
    FILE,
    Placement,
    Transform,
    derived_transform,
    read_placement,
    write_placement,
)

# A rotation out of the shown plane is napari's to warn of; here only where pixels lie is looked at.
pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing:UserWarning")

QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
"""A failing transform is shown as it was drawn: to simplify it takes minutes with napari's layers."""

numbers = st.floats(-50, 50).map(lambda value: round(value, 3))
factors = st.floats(0.1, 20).map(lambda value: round(value, 3))


def rotation(ndim: int, angle: float) -> np.ndarray:
    """A rotation in the last two axes."""
    matrix = np.eye(ndim)
    a = np.radians(angle)
    matrix[-2:, -2:] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return matrix


@st.composite
def places(draw: st.DrawFn, ndim: int) -> dict[str, Any]:
    """Transform arguments of a napari layer."""
    shear: Any = np.array(draw(st.lists(st.floats(-1, 1), min_size=ndim * (ndim - 1) // 2,
                                        max_size=ndim * (ndim - 1) // 2)))  # fmt: skip
    if draw(st.booleans()):
        lower = np.eye(ndim)
        lower[np.tril_indices(ndim, k=-1)] = shear
        shear = lower
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = rotation(ndim, draw(numbers)) @ np.diag(draw(st.tuples(*[factors] * ndim)))
    affine[0, ndim - 1] += draw(st.floats(-1, 1))
    affine[:-1, -1] = draw(st.tuples(*[numbers] * ndim))
    return {
        "scale": draw(st.tuples(*[factors] * ndim)),
        "translate": draw(st.tuples(*[numbers] * ndim)),
        "rotate": rotation(ndim, draw(st.floats(-180, 180))),
        "shear": shear,
        "affine": affine,
        "units": draw(st.sampled_from(["pixel", "micrometer", "nm"])),
        "axis_labels": tuple("tzyx"[-ndim:]),
    }


@st.composite
def crops(draw: st.DrawFn) -> tuple[int, dict[str, Any], tuple[int, int], tuple[float, float], bool]:
    """Axes, transform, first pixel, size of the pixels, and whether the layer itself is the source."""
    ndim = draw(st.integers(2, 4))
    origin = draw(st.tuples(st.integers(0, 90), st.integers(0, 90)))
    factor = draw(st.tuples(*[st.sampled_from([1.0, 2.0, 0.5, 3.7])] * 2))
    return ndim, draw(places(ndim)), origin, factor, draw(st.booleans())


@settings(deadline=None, max_examples=60, phases=QUICK)
@given(crops())
def test_every_pixel_of_a_derived_layer_lies_on_the_pixels_it_came_from(
    crop: tuple[int, dict[str, Any], tuple[int, int], tuple[float, float], bool],
) -> None:
    ndim, place, origin, factor, from_layer = crop
    leading = (2, 3)[: ndim - 2]
    source = Image(np.zeros((*leading, 100, 120), np.uint8), **place)
    given_source = source if from_layer else Placement(
        "a", (0,) * len(leading), (*leading, 100, 120), Transform.of_layer(source)
    )  # fmt: skip
    shape = (5, *leading, 4, 6)
    arguments = derived_transform(given_source, origin=origin, scale_factor=factor)
    derived = Image(np.zeros(shape, np.float32), **arguments)
    # Compared by the pixels' edges: half a pixel before the first is where the crop begins.
    for corner in itertools.product((0, 4), *((0, n - 1) for n in leading), (-0.5, 3.5), (-0.5, 5.5)):
        there = [o + f * (c + 0.5) - 0.5 for o, f, c in zip(origin, factor, corner[-2:], strict=True)]
        expected = source.data_to_world([*corner[1:-2], *there])
        np.testing.assert_allclose(derived.data_to_world(corner)[1:], expected, rtol=1e-9, atol=1e-6)
        assert derived.data_to_world(corner)[0] == corner[0]
    assert derived.extent.step[0] == pytest.approx(1)
    assert derived.units[1:] == source.units
    assert derived.axis_labels == ("epoch", *source.axis_labels)


def test_the_centre_of_a_larger_pixel_is_the_middle_of_those_it_covers() -> None:
    arguments = derived_transform(Transform.identity(2), origin=(10, 20), scale_factor=(4, 3))
    np.testing.assert_allclose(arguments["translate"], [0, 11.5, 21])
    np.testing.assert_allclose(arguments["scale"], [1, 4, 3])


@settings(deadline=None, max_examples=60, phases=QUICK)
@given(places(3))
def test_a_layer_that_is_there_can_be_moved_by_the_same_arguments(place: dict[str, Any]) -> None:
    source = Image(np.zeros((3, 10, 12), np.uint8), **place)
    arguments = derived_transform(source, origin=(3, 4), scale_factor=(2, 2))
    made = Image(np.zeros((2, 3, 3, 4), np.float32), **arguments)
    moved = Image(np.zeros((2, 3, 3, 4), np.float32))
    for name, value in arguments.items():
        setattr(moved, name, value)
    for corner in itertools.product((0, 1), (0, 2), (0, 2), (0, 3)):
        np.testing.assert_allclose(made.data_to_world(corner), moved.data_to_world(corner), atol=1e-9)


@pytest.mark.parametrize("unit", ["pixel", "micrometer"])
def test_the_scale_bar_keeps_its_unit_and_the_slider_steps_by_epochs(unit: str) -> None:
    viewer = ViewerModel()
    source = viewer.add_image(np.zeros((64, 64)), scale=(0.3, 0.3), rotate=30, units=unit, name="cells")
    arguments = derived_transform(source, origin=(8, 8), scale_factor=(2, 2))
    viewer.add_image(np.zeros((7, 20, 20), np.float32), **arguments)
    assert str(viewer.layers.units[-1]) == unit
    assert tuple(viewer.dims.range[0]) == pytest.approx((0, 6, 1))
    assert source.scale[0] == pytest.approx(0.3), "the source is left as it was"


def test_a_placement_knows_its_layer_by_name_and_shape() -> None:
    layer = Image(np.zeros((3, 16, 20, 3), np.uint8), rgb=True, name="cells")
    placement = Placement("cells", (2,), (3, 16, 20, 3), Transform.of_layer(layer))
    assert placement.ndim == 3
    assert placement.matches(layer)
    assert not placement.matches(Image(np.zeros((3, 16, 20, 3), np.uint8), rgb=True, name="other"))
    assert not placement.matches(Image(np.zeros((3, 16, 21, 3), np.uint8), rgb=True, name="cells"))
    assert not placement.matches(Points(np.zeros((3, 2)), name="cells"))
    levels = [np.zeros((3, 16, 20), np.uint8), np.zeros((3, 8, 10), np.uint8)]
    pyramid = Image(levels, multiscale=True, name="cells")
    assert Placement("cells", (0,), (3, 16, 20), Transform.of_layer(pyramid)).matches(pyramid)


@settings(deadline=None, max_examples=60, phases=QUICK)
@given(places(3), st.text(max_size=8), st.integers(0, 4))
def test_placements_come_back_from_the_disk_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, place: dict[str, Any], name: str, plane: int
) -> None:
    folder = tmp_path_factory.mktemp("data")
    transform = Transform.of_layer(Image(np.zeros((5, 10, 12), np.uint8), **place))
    placements = {
        "one": Placement(name, (plane,), (5, 10, 12), transform),
        "two": Placement(name, (0,), (5, 10, 12), transform),
        "flat": Placement("other", (), (8, 9), Transform.identity(2)),
    }
    write_placement(folder, placements)
    assert read_placement(folder) == placements


def test_a_folder_without_placement_has_none(tmp_path: Path) -> None:
    assert read_placement(tmp_path) is None
    assert read_placement(tmp_path / "nowhere") is None


def spoil(content: dict[str, Any], how: str) -> str:
    """A broken placement.json."""
    layer, case = content["layers"][0], content["cases"]["a"]
    if how == "cut":
        return json.dumps(content)[:-20]
    if how == "list":
        return "[]"
    if how == "format":
        content["format"] = 9
    elif how == "no scale":
        del layer["scale"]
    elif how == "axes":
        layer["translate"] = [0]
    elif how == "nan":
        layer["affine"][0][0] = float("nan")
    elif how == "plane":
        case["plane"] = [7]
    elif how == "layer":
        case["layer"] = 3
    elif how == "text":
        layer["shape"] = "abc"
    elif how == "cases":
        content["cases"] = [1]
    return json.dumps(content)


@pytest.mark.parametrize(
    "how", ["cut", "list", "format", "no scale", "axes", "nan", "plane", "layer", "text", "cases"]
)
def test_a_broken_placement_is_refused_in_one_sentence(tmp_path: Path, how: str) -> None:
    write_placement(tmp_path, {"a": Placement("cells", (1,), (2, 8, 9), Transform.identity(3))})
    content = json.loads((tmp_path / FILE).read_text("utf-8"))
    (tmp_path / FILE).write_text(spoil(content, how), "utf-8")
    with pytest.raises(InputError, match=r"placement\.json") as refused:
        read_placement(tmp_path)
    assert "\n" not in str(refused.value)
