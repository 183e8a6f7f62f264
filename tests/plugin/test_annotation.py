"""Layers → a data set's folder: what is written is what the engine reads, and what cannot be is refused."""

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from napari.layers import Image, Labels, Points

from engine.data.layouts import find
from engine.data.read import load_cases, read_image, resolve_channels, resolve_classes
from engine.data.specs import Data
from engine.errors import InputError
from napari_smm.annotation import Cancelled, Pair, Written, safe_name, write_dataset
from napari_smm.placement import Transform, read_placement


def pair_of(image: Any, labels: Any, *, rgb: bool = False, name: str = "cells") -> Pair:
    return Pair(image, labels, rgb, name, "paint", Transform.identity(image.ndim - rgb))


def painted(shape: tuple[int, ...], *, classes: int = 1, dtype: Any = np.uint8) -> np.ndarray:
    """Labels 0…classes in every plane."""
    labels = np.zeros(shape, dtype)
    for value in range(1, classes + 1):
        labels[..., value, 2:6] = value
    return labels


def read_back(written: Written) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Case → image (H, W, channels) and labels as the engine reads them."""
    data = Data(root=str(written.folder), classes=written.classes)
    found = find(data)
    classes, channels = resolve_classes(found, data), resolve_channels(found, "auto")
    arrays = load_cases(found, range(len(found.cases)), classes, channels)
    return {case.name: (one.image, one.labels) for case, one in zip(found.cases, arrays, strict=True)}


def noise(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    rng = np.random.default_rng(3)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    if np.dtype(dtype) == bool:
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype)
    native = np.dtype(dtype).newbyteorder("=")
    return rng.integers(info.min, info.max, shape, native, endpoint=True).astype(dtype)


DTYPES = ["u1", "u2", "i2", "i4", "u4", "i8", "f2", "f4", "f8", "?", ">u2", ">f4", "i1"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_engine_reads_the_pixels_that_were_in_the_layer(tmp_path: Path, dtype: str) -> None:
    image = noise((2, 20, 24), dtype)
    written = write_dataset(pair_of(image, painted((2, 20, 24))), tmp_path / "set")
    cases = read_back(written)
    assert list(cases) == ["cells_0", "cells_1"]
    for plane, (pixels, labels) in enumerate(cases.values()):
        kept = np.dtype(dtype).newbyteorder("=") in (np.uint8, np.uint16)
        expected = image[plane] if kept else image[plane].astype(np.float32)
        expected = image[plane].astype(np.uint8) * 255 if dtype == "?" else expected
        assert pixels.dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(pixels[..., 0], expected)
        np.testing.assert_array_equal(labels, painted((2, 20, 24))[plane])
    stored = tifffile.imread(tmp_path / "set" / "images" / "cells_1.tif")
    assert stored.dtype == np.dtype(dtype).newbyteorder("=")


@pytest.mark.parametrize(("colours", "dtype"), [(3, "u1"), (4, "u1"), (3, "u2"), (3, "f4")])
def test_colour_stays_colour_and_alpha_is_dropped(tmp_path: Path, colours: int, dtype: str) -> None:
    image = noise((16, 18, colours), dtype)
    layer = Image(image, rgb=True, name="stain")
    pair = Pair.of_layers(layer, Labels(painted((16, 18))))
    [(pixels, _)] = read_back(write_dataset(pair, tmp_path / "set")).values()
    np.testing.assert_array_equal(pixels, image[..., :3])


def backed(kind: str, array: np.ndarray, folder: Path) -> Any:
    if kind == "dask":
        return da.from_array(array, chunks=(1, *array.shape[1:]))
    if kind == "zarr":
        return zarr.create_array(folder / f"{array.dtype}.zarr", data=array, chunks=(1, *array.shape[1:]))
    return array


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "multiscale"])
def test_layers_backed_by_anything_are_written_at_full_resolution(tmp_path: Path, kind: str) -> None:
    image, labels = noise((3, 32, 40), "u2"), painted((3, 32, 40), classes=2)
    data, paint = (backed(kind, array, tmp_path) for array in (image, labels))
    if kind == "multiscale":
        image_layer = Image([data, data[:, ::2, ::2]], multiscale=True, name="cells")
    else:
        image_layer = Image(data, name="cells")
    pair = Pair.of_layers(image_layer, Labels(paint))
    cases = read_back(write_dataset(pair, tmp_path / "set"))
    for plane, (pixels, found) in enumerate(cases.values()):
        np.testing.assert_array_equal(pixels[..., 0], image[plane])
        np.testing.assert_array_equal(found, labels[plane])


class OnePlaneAtATime:
    """A stack that counts what is read of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.read: list[Any] = []

    def __getitem__(self, index: Any) -> np.ndarray:
        self.read.append(index)
        return self.array[index]


def test_a_stack_is_read_plane_by_plane_and_only_where_it_is_labelled(tmp_path: Path) -> None:
    labels = np.zeros((2, 3, 16, 16), np.int64)
    labels[0, 1, 3:5], labels[1, 2, 4:6] = 1, 1
    image, paint = OnePlaneAtATime(noise((2, 3, 16, 16), "u1")), OnePlaneAtATime(labels)
    written = write_dataset(pair_of(image, paint), tmp_path / "set")
    assert image.read == [(0, 1), (1, 2)]
    assert paint.read == [(t, z) for t in range(2) for z in range(3)]
    assert (written.used, written.left_out, written.classes) == (2, 4, None)
    assert list(read_back(written)) == ["cells_0_1", "cells_1_2"]


def test_unlabelled_planes_can_be_background(tmp_path: Path) -> None:
    labels = painted((12, 16, 16))
    labels[3:] = 0
    pair = pair_of(noise((12, 16, 16), "u1"), labels)
    written = write_dataset(pair, tmp_path / "set", unlabelled="background")
    assert (written.used, written.left_out) == (12, 0)
    cases = read_back(written)
    assert list(cases) == [f"cells_{plane:02d}" for plane in range(12)]
    assert not cases["cells_05"][1].any()


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "i8", "?", "i1"])
def test_labels_of_any_whole_numbers_are_stored_small(tmp_path: Path, dtype: str) -> None:
    written = write_dataset(pair_of(noise((16, 16), "u1"), painted((16, 16), dtype=dtype)), tmp_path / "set")
    assert tifffile.imread(tmp_path / "set" / "masks" / "cells.tif").dtype == np.uint8
    [(_, labels)] = read_back(written).values()
    np.testing.assert_array_equal(labels, painted((16, 16)))


def test_labels_beyond_a_byte_keep_their_values(tmp_path: Path) -> None:
    labels = painted((16, 16), classes=2, dtype=np.int32)
    labels[labels == 2] = 1000
    written = write_dataset(pair_of(noise((16, 16), "u1"), labels), tmp_path / "set")
    assert tifffile.imread(tmp_path / "set" / "masks" / "cells.tif").dtype == np.uint16
    assert written.classes == {"class_1": [1], "class_1000": [1000]}
    [(_, found)] = read_back(written).values()
    np.testing.assert_array_equal(found, painted((16, 16), classes=2))


def test_objects_are_one_class(tmp_path: Path) -> None:
    labels = np.arange(1024, dtype=np.int64).reshape(32, 32) * 100
    pair = pair_of(noise((32, 32), "u1"), labels)
    with pytest.raises(InputError, match=r"0 to 65535.*one class"):
        write_dataset(pair, tmp_path / "set")
    written = write_dataset(pair, tmp_path / "set", meaning="one class", class_names=["nucleus"])
    assert written.classes == {"nucleus": [1]}
    [(_, found)] = read_back(written).values()
    np.testing.assert_array_equal(found, labels > 0)


def test_many_labels_are_taken_for_objects(tmp_path: Path) -> None:
    labels = np.arange(1024, dtype=np.int32).reshape(32, 32)
    with pytest.raises(InputError, match="objects than classes"):
        write_dataset(pair_of(noise((32, 32), "u1"), labels), tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_many_labels_over_several_planes_are_noticed_too(tmp_path: Path) -> None:
    labels = np.arange(800, dtype=np.int32).reshape(8, 10, 10)
    with pytest.raises(InputError, match="objects than classes"):
        write_dataset(pair_of(noise((8, 10, 10), "u1"), labels), tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_classes_have_the_names_that_are_given(tmp_path: Path) -> None:
    labels = painted((16, 16), classes=3)
    labels[labels == 2] = 0
    pair = pair_of(noise((16, 16), "u1"), labels)
    written = write_dataset(pair, tmp_path / "set", class_names=["vein", "artery", "nerve"])
    assert written.classes == {"vein": [1], "nerve": [3]}
    assert set(np.unique(next(iter(read_back(written).values()))[1])) == {0, 1, 2}


@pytest.mark.parametrize("value", [40, 255])
def test_labels_that_leave_a_doubt_get_a_table(tmp_path: Path, value: int) -> None:
    labels = painted((16, 16), classes=2)
    labels[labels == 2] = value
    written = write_dataset(pair_of(noise((16, 16), "u1"), labels), tmp_path / "set")
    assert written.classes == {"class_1": [1], f"class_{value}": [value]}
    assert read_back(written)


def test_labels_that_fill_the_image_get_a_table(tmp_path: Path) -> None:
    labels = np.ones((16, 16), np.uint8)
    labels[8:] = 2
    written = write_dataset(pair_of(noise((16, 16), "u1"), labels), tmp_path / "set")
    [(_, found)] = read_back(written).values()
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(
    ("names", "meaning", "match"),
    [
        (["a"], "classes", "hold 2 but 1 class name is given"),
        (["a", "a"], "classes", "'a' is given twice"),
        (["a", " "], "classes", "an empty one"),
        (["a", "b"], "one class", "one would work"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    tmp_path: Path, names: list[str], meaning: Any, match: str
) -> None:
    pair = pair_of(noise((16, 16), "u1"), painted((16, 16), classes=2))
    with pytest.raises(InputError, match=match):
        write_dataset(pair, tmp_path / "set", class_names=names, meaning=meaning)
    assert not list(tmp_path.iterdir())


@settings(max_examples=40, deadline=None)
@given(
    shape=hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=7),
    name=st.text(max_size=100),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_and_name_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], name: str, seed: int
) -> None:
    if len(shape) > 2 and shape[-1] in (3, 4):
        shape = (*shape[:-1], 5)
    rng = np.random.default_rng(seed)
    image, labels = rng.integers(0, 2**16, shape, np.uint16), rng.integers(0, 2, shape, np.int32)
    labels[..., 0, 0] = 1
    folder = tmp_path_factory.mktemp("data") / "set"
    pair = pair_of(image, labels, name=name)
    written = write_dataset(pair, folder)
    assert written.used == len(pair.planes)
    cases = find(Data(root=str(folder))).cases
    placements = read_placement(folder)
    assert placements is not None
    assert {case.name for case in cases} == set(placements)
    for case in cases:
        placement = placements[case.name]
        assert (placement.layer, placement.shape) == (name, shape)
        np.testing.assert_array_equal(read_image(case)[..., 0], image[placement.plane])
        np.testing.assert_array_equal(
            tifffile.imread(case.masks[0].path).reshape(shape[-2:]), labels[placement.plane]
        )


@given(st.text())
def test_a_safe_name_is_one_everywhere(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe) <= 61
    assert safe.isascii()
    assert not set(safe) & set('/\\:*?"<>|. ')
    assert safe_name(safe) == safe


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Übergröße", "Ubergroe"),
        ("../../etc", "etc"),
        ("NUL", "NUL_"),
        ("细胞", "image"),
        ("a b [1]", "a_b_1"),
    ],
)
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_progress_counts_every_plane(tmp_path: Path) -> None:
    labels = painted((4, 16, 16))
    labels[1] = 0
    told: list[tuple[int, int]] = []
    write_dataset(
        pair_of(noise((4, 16, 16), "u1"), labels), tmp_path / "set",
        progress=lambda done, of: told.append((done, of)),
    )  # fmt: skip
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_cancelled_writing_leaves_nothing(tmp_path: Path, after: int) -> None:
    told: list[int] = []
    with pytest.raises(Cancelled):
        write_dataset(
            pair_of(noise((4, 16, 16), "u1"), painted((4, 16, 16))), tmp_path / "set",
            progress=lambda done, of: told.append(done), cancelled=lambda: len(told) >= after,
        )  # fmt: skip
    assert told == list(range(1, after + 1))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = tifffile.imwrite, iter(range(100))

    def full(path: Path, *arguments: Any, **options: Any) -> None:
        real(path, *arguments, **options)
        if next(count) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(InputError, match=r"set.*the disk is full"):
        write_dataset(pair_of(noise((4, 16, 16), "u1"), painted((4, 16, 16))), tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_a_used_folder_is_left_alone_and_an_empty_one_taken(tmp_path: Path) -> None:
    pair = pair_of(noise((16, 16), "u1"), painted((16, 16)))
    for name in ("used", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("")
    for name in ("used", "file", "file/below"):
        with pytest.raises(InputError, match=name):
            write_dataset(pair, tmp_path / name)
    assert [item.name for item in (tmp_path / "used").iterdir()] == ["thesis.txt"]
    assert read_back(write_dataset(pair, tmp_path / "empty"))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["empty", "file", "used"]


def test_painting_while_it_is_written_changes_one_plane_as_a_whole(tmp_path: Path) -> None:
    image, labels = noise((2, 16, 16), "u1"), painted((2, 16, 16))

    def paint(done: int, of: int) -> None:
        labels[:] = 1

    cases = read_back(write_dataset(pair_of(image, labels), tmp_path / "set", progress=paint))
    assert 0 < cases["cells_0"][1].mean() < 1
    assert cases["cells_1"][1].all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_value_that_is_not_finite_is_named_with_its_plane(tmp_path: Path, value: float) -> None:
    image = noise((2, 3, 16, 16), "f8")
    image[1, 2, 5, 5:7] = value
    with pytest.raises(InputError, match=r"'cells' holds 2 values in plane \(1, 2\)") as refused:
        write_dataset(pair_of(image, painted((2, 3, 16, 16))), tmp_path / "set")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_layer_whose_file_is_gone_says_so(tmp_path: Path) -> None:
    def lost(block: np.ndarray) -> np.ndarray:
        raise OSError(errno.EIO, "Input/output error")

    image = da.zeros((2, 16, 16), chunks=(1, 16, 16), dtype=np.uint8).map_blocks(
        lost, dtype=np.uint8, meta=np.zeros((0, 0, 0), np.uint8)
    )
    with pytest.raises(InputError, match=r"the image 'cells' cannot be read in plane 0"):
        write_dataset(pair_of(image, painted((2, 16, 16))), tmp_path / "set")


def test_empty_labels_are_refused(tmp_path: Path) -> None:
    nothing = np.zeros((2, 16, 16), np.uint8)
    image = noise((2, 16, 16), "u1")
    with pytest.raises(InputError, match="are empty"):
        Pair.of_layers(Image(image), Labels(nothing))
    lazy = Pair.of_layers(Image(image), Labels(da.from_array(nothing, chunks=(1, 16, 16))))
    for unlabelled in ("leave out", "background"):
        with pytest.raises(InputError, match="are empty"):
            write_dataset(lazy, tmp_path / "set", unlabelled=unlabelled)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_negative_labels_are_refused(tmp_path: Path) -> None:
    labels = painted((16, 16), dtype=np.int16)
    labels[9, 9] = -3
    with pytest.raises(InputError, match=r"hold -3: 0 to 65535"):
        write_dataset(pair_of(noise((16, 16), "u1"), labels), tmp_path / "set")


def layers(**given: Any) -> tuple[Any, Any]:
    """An image and a labels layer that fit, but for what is given."""
    image = given.get("image", Image(noise((8, 16, 20), "u1"), name="cells"))
    return image, given.get("labels", Labels(painted((8, 16, 20)), name="paint"))


WRONG: dict[str, tuple[Callable[[], tuple[Any, Any]], str]] = {
    "points as image": (lambda: layers(image=Points(np.zeros((3, 2)), name="spots")),
                        "the Points layer 'spots' is chosen where an Image layer"),
    "image as labels": (lambda: layers(labels=Image(painted((8, 16, 20)), name="mask")),
                        r"the Image layer 'mask'.*Labels layer.*Convert to Labels"),
    "labels as image": (lambda: layers(image=Labels(painted((8, 16, 20)), name="paint")),
                        "the Labels layer 'paint' is chosen where an Image layer"),
    "nothing": (lambda: layers(labels=None), "no layer is chosen where a Labels layer"),
    "an array": (lambda: layers(image=7), "7 is chosen where an Image layer"),
    "sizes": (lambda: layers(labels=Labels(painted((8, 16, 21)), name="paint")),
              r"\(8, 16, 21\).*'cells' has \(8, 16, 20\).*labels of shape \(8, 16, 20\) would work"),
    "order": (lambda: layers(labels=Labels(painted((16, 20, 8)), name="paint")),
              r"another order: labels\.data\.transpose\(2, 0, 1\) would work"),
    "one plane": (lambda: layers(labels=Labels(painted((16, 20)), name="paint")),
                  "one image of the stack as a layer of its own"),
    "hidden colour": (lambda: (Image(noise((16, 20, 3), "u1"), rgb=False, name="cells"),
                               Labels(painted((16, 20)))), "rgb=True"),
    "scale": (lambda: layers(labels=Labels(painted((8, 16, 20)), scale=(1, 1, 1.2))), "do not lie on"),
    "shift": (lambda: layers(labels=Labels(painted((8, 16, 20)), translate=(0, 0, 2))), "do not lie on"),
    "units": (lambda: (Image(noise((16, 20), "u1"), units="nm"), Labels(painted((16, 20)), units="um")),
              "do not lie on"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_layers_that_cannot_be_trained_on_are_refused_in_one_sentence(what: str) -> None:
    make, match = WRONG[what]
    with pytest.raises(InputError, match=match) as refused:
        Pair.of_layers(*make())
    assert "\n" not in str(refused.value)


def test_arrays_that_no_layer_holds_are_refused_too() -> None:
    with pytest.raises(InputError, match="height and width"):
        pair_of(np.zeros(9, np.uint8), np.ones(9, np.uint8))
    with pytest.raises(InputError, match="float64: whole numbers"):
        pair_of(np.zeros((9, 9), np.uint8), np.ones((9, 9)))
    with pytest.raises(InputError, match="complex64 as intensities: real numbers, such as its absolute"):
        pair_of(np.zeros((9, 9), np.complex64), np.ones((9, 9), np.uint8))
    with pytest.raises(InputError, match="no pixel"):
        pair_of(np.zeros((0, 9), np.uint8), np.ones((0, 9), np.uint8))


def test_the_same_place_in_other_units_or_parts_will_do() -> None:
    image = Image(noise((16, 20), "u1"), units="um", scale=(0.5, 0.5), translate=(3, 4))
    for place in (
        {"units": "nm", "scale": (500, 500), "translate": (3000, 4000)},
        {"units": "um", "affine": np.array([[0.5, 0, 3.0], [0, 0.5, 4.1], [0, 0, 1]])},
    ):
        assert Pair.of_layers(image, Labels(painted((16, 20)), **place)).shape == (16, 20)


def test_the_pair_keeps_where_the_image_lay(tmp_path: Path) -> None:
    place = {"scale": (2, 0.5, 0.25), "translate": (1, 2, 3), "units": ("s", "um", "um")}
    image = Image(noise((12, 16, 20), "u1"), name="film", axis_labels=("t", "y", "x"), **place)
    labels = painted((12, 16, 20))
    labels[:11] = 0
    pair = Pair.of_layers(image, Labels(labels, **place))
    write_dataset(pair, tmp_path / "set")
    placements = read_placement(tmp_path / "set")
    assert placements is not None
    assert list(placements) == ["film_11"]
    placement = placements["film_11"]
    assert placement.plane == (11,)
    assert placement.matches(image)
    assert placement.transform == Transform.of_layer(image)
    assert placement.transform.units == ("second", "micrometer", "micrometer")


def test_random_names_never_leave_the_folder(tmp_path: Path) -> None:
    rng = random.Random(2)
    for number in range(20):
        name = "".join(rng.choice("./\\ab:\0~$ ") for _ in range(12))
        write_dataset(pair_of(noise((8, 9), "u1"), painted((8, 9)), name=name), tmp_path / f"set{number}")
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted(f"set{n}" for n in range(20))
