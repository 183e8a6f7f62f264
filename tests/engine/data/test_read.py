"""Files → arrays: what each format holds comes back, in every dtype; what cannot be used is refused."""

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import scipy.io
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from engine.data.classes import Classes, from_table, infer, survey, to_labels
from engine.data.decode import Raster, Source, count_channels, decode, probe
from engine.data.layouts import Case, Found, find
from engine.data.read import _ahead as ahead
from engine.data.read import load_case, load_cases, read_image, read_labels, resolve_channels, resolve_classes
from engine.data.specs import Data
from engine.errors import InputError

Put = Callable[..., Path]
GRAY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
RGB = np.dstack([GRAY, GRAY[::-1], GRAY[:, ::-1]])
MASK = np.zeros((6, 8), np.uint8)
MASK[2, 1:7] = 1
ONE = from_table({"vessel": [1]}, "refuse")


def case(image: Path, mask: Path | None = None, key: str = "") -> Case:
    return Case("a", (Source(image, key),), (Source(mask),) if mask else ())


def values(*codes: int) -> list[tuple[str, list[int] | None, list[int]]]:
    return [("m.png", [code], [code * 0x010101]) for code in codes]


# ------------------------------------------------------------------ images


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "npy"])
@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
def test_8_bit(put: Put, ending: str, pixels: np.ndarray) -> None:
    path = put(f"a.{ending}", pixels)
    image = read_image(case(path))
    np.testing.assert_array_equal(image, pixels.reshape(6, 8, -1))
    assert image.dtype == np.uint8
    assert count_channels(Source(path)) == image.shape[2]


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "float32", ">f4"])
@pytest.mark.parametrize("ending", ["tif", "npy"])
def test_deep_images_keep_their_values(tmp_path: Path, dtype: str, ending: str) -> None:
    pixels = (GRAY.astype(dtype) * 200).astype(dtype)
    path = tmp_path / f"a.{ending}"
    (np.save if ending == "npy" else tifffile.imwrite)(path, pixels)
    image = read_image(case(path))
    np.testing.assert_array_equal(image[..., 0], pixels)
    assert image.dtype == np.dtype(dtype).newbyteorder("=")


@pytest.mark.parametrize("dtype", ["int16", "uint32", "int64", "float16", "float64"])
def test_other_numbers_become_float32(put: Put, dtype: str) -> None:
    image = read_image(case(put("a.npy", GRAY.astype(dtype))))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[..., 0], GRAY)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png(tmp_path: Path, channels: int) -> None:
    pixels = np.dstack([GRAY.astype(np.uint16) * (100 + channel) for channel in range(channels)])
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(pixels.squeeze()))
    kept = {1: 1, 2: 1, 3: 3, 4: 3}[channels]  # 2 and 4 have alpha
    np.testing.assert_array_equal(read_image(case(path)), pixels[..., :kept])
    assert count_channels(Source(path)) == kept


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "LA", "RGBA"])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_png_is_what_pillow_says(tmp_path: Path, mode: str, transparent: bool) -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    image = Image.fromarray(values).convert(mode)
    options = {"transparency": (1, 2, 3) if mode == "RGB" else 7} if transparent and len(mode) != 2 else {}
    image.save(tmp_path / "a.png", **({} if mode in ("RGBA", "1") else options))
    source = Source(tmp_path / "a.png")
    raster = decode(source)
    with Image.open(source.path) as again:
        stored = np.asarray(again)
    alpha = mode in ("LA", "RGBA")
    assert raster.alpha == alpha
    assert raster.pixels.dtype == stored.dtype
    assert np.array_equal(
        raster.pixels, (stored[..., 0] if mode == "LA" else stored[..., :3]) if alpha else stored
    )
    head = probe(source)
    assert (head.shape, head.channels, head.dtype) == (raster.shape, raster.channels, raster.pixels.dtype)


@pytest.mark.parametrize("together", [1, 3, 50])
def test_many_are_read_ahead_in_order_up_to_the_first_error(together: int) -> None:
    def half(number: int) -> int:
        if number == 31:
            raise InputError("31 is odd.")
        return 2 * number

    assert list(ahead(half, range(31), 8, together)) == [2 * number for number in range(31)]
    made = ahead(half, range(40), 8, together)
    assert [next(made) for _ in range(31)] == [2 * number for number in range(31)]
    with pytest.raises(InputError, match="31 is odd"):
        next(made)


def test_jpeg_and_gif(tmp_path: Path) -> None:
    smooth = np.full((16, 16, 3), 120, np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(case(tmp_path / "a.jpg")).astype(int) - 120).max() <= 2
    frames = [Image.fromarray(GRAY), Image.fromarray(GRAY[::-1].copy())]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(case(tmp_path / "a.gif"), 1)[..., 0], GRAY)


def test_a_palette_is_colours_in_an_image(tmp_path: Path) -> None:
    few = np.array([[[255, 0, 0], [0, 0, 255]], [[0, 255, 0], [255, 0, 0]]], np.uint8)
    Image.fromarray(few).quantize(4).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(case(tmp_path / "a.png")), few)
    colormap = np.zeros((3, 256), np.uint16)
    colormap[:, 1] = 65535, 257, 0
    tifffile.imwrite(tmp_path / "a.tif", MASK, photometric="palette", colormap=colormap)
    np.testing.assert_array_equal(read_image(case(tmp_path / "a.tif"))[2, 3], [255, 1, 0])
    assert count_channels(Source(tmp_path / "a.tif")) == 3


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_with_a_note(tmp_path: Path, put: Put, mode: str) -> None:
    Image.fromarray(RGB).convert(mode).save(tmp_path / "a.png")
    loaded = load_case(case(tmp_path / "a.png", put("m.png", MASK)), ONE)
    assert loaded.notes == ("an alpha channel was dropped",)
    assert loaded.image.shape[2] == len(mode) - 1
    opaque = load_case(case(put("b.tif", np.dstack([RGB, GRAY])), put("m.png", MASK)), ONE)
    np.testing.assert_array_equal(opaque.image, RGB)


def test_tiff_channels_first_last_and_white_is_zero(tmp_path: Path) -> None:
    planes = np.stack([GRAY, GRAY + 1, GRAY + 2, GRAY + 3, GRAY + 4])
    tifffile.imwrite(tmp_path / "first.tif", planes, photometric="minisblack")
    tifffile.imwrite(
        tmp_path / "last.tif", np.moveaxis(planes, 0, -1), photometric="minisblack", planarconfig="contig"
    )
    tifffile.imwrite(tmp_path / "named.ome.tif", planes, metadata={"axes": "CYX"}, photometric="minisblack")
    for name in ("first.tif", "last.tif", "named.ome.tif"):
        np.testing.assert_array_equal(read_image(case(tmp_path / name)), np.moveaxis(planes, 0, -1))
        assert count_channels(Source(tmp_path / name)) == 5
    tifffile.imwrite(tmp_path / "white.tif", GRAY, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(case(tmp_path / "white.tif"))[..., 0], 255 - GRAY)
    tifffile.imwrite(tmp_path / "bits.tif", MASK.astype(bool), photometric="minisblack")
    np.testing.assert_array_equal(read_image(case(tmp_path / "bits.tif"))[..., 0], MASK * 255)


def test_matlab_5_and_7_3(tmp_path: Path, put_mat73: Put) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"scan": GRAY.astype(float)})
    np.testing.assert_array_equal(read_image(case(tmp_path / "a.mat"))[..., 0], GRAY)
    path = put_mat73("b.mat", "s", {"scan": RGB, "other": GRAY})
    np.testing.assert_array_equal(read_image(case(path, key="s.scan")), RGB)
    with pytest.raises(InputError, match=r"b.mat has no array 's.nothing': in it are s"):
        decode(Source(path, "s.nothing"))
    scipy.io.savemat(tmp_path / "c.mat", {"one": GRAY, "two": GRAY})
    with pytest.raises(InputError, match=r"c.mat does not hold just one array: in it are one, two"):
        decode(Source(tmp_path / "c.mat"))


@given(
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.tuples(st.integers(6, 20), st.integers(6, 20), st.integers(2, 5)),
    st.integers(0, 2**32),
)
def test_numpy_round_trip(
    tmp_path_factory: pytest.TempPathFactory, dtype: type, shape: tuple[int, ...], seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)
    path = tmp_path_factory.getbasetemp() / "round.npy"
    np.save(path, pixels)
    image = read_image(case(path))
    assert image.dtype == pixels.dtype
    np.testing.assert_array_equal(image, pixels)
    np.save(path, np.moveaxis(pixels, -1, 0))
    np.testing.assert_array_equal(read_image(case(path)), pixels)


def test_gray_and_rgb_on_request(put: Put) -> None:
    gray, rgb = put("g.png", GRAY), put("c.png", RGB)
    np.testing.assert_array_equal(read_image(case(gray), 3), np.dstack([GRAY] * 3))
    luminance = np.rint(RGB @ np.array([0.299, 0.587, 0.114]))
    assert np.abs(read_image(case(rgb), 1)[..., 0] - luminance).max() <= 1
    np.testing.assert_array_equal(read_image(case(put("e.png", np.dstack([GRAY] * 3))), 1)[..., 0], GRAY)
    with pytest.raises(InputError, match="has 2 channels where 3 are needed"):
        read_image(case(put("two.npy", np.dstack([GRAY, GRAY]))), 3)


@pytest.mark.parametrize(
    ("pixels", "color", "channels"),
    [
        ([GRAY, GRAY], "auto", 1),
        ([GRAY, RGB], "auto", 3),
        ([np.dstack([GRAY] * 3)] * 3, "auto", 1),  # gray, stored as RGB
        ([*[np.dstack([GRAY] * 3)] * 7, RGB], "auto", 3),
        ([RGB], "gray", 1),
        ([GRAY], "rgb", 3),
    ],
)
def test_channels_of_a_data_set(put: Put, pixels: list[np.ndarray], color: str, channels: int) -> None:
    cases = tuple(case(put(f"{index}.png", each)) for index, each in enumerate(pixels))
    found = Found("", "", Path(), cases, None, "", False, ())
    assert resolve_channels(found, color) == channels


def test_images_of_2_and_3_channels_do_not_mix(put: Put) -> None:
    cases = (case(put("a.png", RGB)), case(put("b.npy", np.dstack([GRAY, GRAY]))))
    with pytest.raises(InputError, match=r"the images have 2, 3 channels .*a.png and .*b.npy differ"):
        resolve_channels(Found("", "", Path(), cases, None, "", False, ()), "auto")


# ------------------------------------------------------------------ files that cannot be used


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a.png is empty \(0 bytes\)"):
        read_image(case(tmp_path / "a.png"))


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "gif", "npy", "bmp", "mat"])
def test_corrupt_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"this is no image at all, whatever its name says")
    with pytest.raises(
        InputError, match=rf"a.{ending} cannot be read as {ending.upper()} .*it may be corrupt"
    ):
        read_image(case(path))
    with pytest.raises(InputError, match="cannot be read"):
        count_channels(Source(path))


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "npy"])
def test_truncated_file(put: Put, ending: str) -> None:
    path = put(f"a.{ending}", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read"):
        read_image(case(path))


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.png cannot be read"):
        read_image(case(tmp_path / "a.png"))
    with pytest.raises(InputError, match=r"a.docx has an ending that is not read: known are .png"):
        read_image(case(tmp_path / "a.docx"))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite(put: Put, value: float) -> None:
    pixels = GRAY.astype(float)
    pixels[3, 3] = value
    with pytest.raises(InputError, match=r"a.npy holds 1 pixels that are NaN or infinite"):
        read_image(case(put("a.npy", pixels)))


def test_sizes_that_differ(put: Put) -> None:
    image, small = put("a.png", GRAY), put("m.png", MASK[:5])
    with pytest.raises(InputError, match=r"the mask .*m.png is 5 × 8 px .* the image .*a.png is 6 × 8 px"):
        load_case(case(image, small), ONE)
    view = Case("a", (Source(image),), (Source(put("n.png", MASK)),), valid=Source(small))
    with pytest.raises(InputError, match=r"the field of view .*m.png is 5 × 8"):
        load_case(view, from_table({"x": [1]}, "refuse"))
    with pytest.raises(InputError, match=r"the channel .*m.png is 5 × 8"):
        read_image(Case("a", (Source(image), Source(small)), ()))


def test_a_field_of_view_without_inside(put: Put) -> None:
    blind = Case(
        "a", (Source(put("a.png", GRAY)),), (Source(put("m.png", MASK)),), Source(put("v.png", MASK * 0))
    )
    with pytest.raises(InputError, match=r"the field of view .* is black all over"):
        load_case(blind, ONE)


# ------------------------------------------------------------------ masks


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif", "npy"])
@pytest.mark.parametrize("high", [1, 255])
def test_masks_of_0_and_one_other_value(put: Put, ending: str, high: int) -> None:
    path = put(f"m.{ending}", MASK * high)
    classes = infer([("m", *survey(decode(Source(path)), "m"))])
    np.testing.assert_array_equal(read_labels(case(path, path), classes), MASK)


@pytest.mark.parametrize("dtype", ["bool", "uint16", "int32", "float32", "float64"])
def test_masks_of_any_number_type(put: Put, dtype: str) -> None:
    path = put("m.npy", MASK.astype(dtype))
    np.testing.assert_array_equal(read_labels(case(path, path), ONE), MASK)


def palette_mask(path: Path, colors: list[tuple[int, int, int]], indices: np.ndarray) -> Path:
    image = Image.new("P", indices.shape[::-1])
    image.putdata(indices.ravel().tolist())
    image.putpalette([value for color in colors for value in color])
    image.save(path)
    return path


def test_a_palettes_indices_are_a_masks_values(tmp_path: Path) -> None:
    path = palette_mask(tmp_path / "m.png", [(0, 0, 0), (128, 0, 0), (0, 128, 0)], MASK * 2)
    np.testing.assert_array_equal(
        to_labels(decode(Source(path)), from_table({"a": [1], "b": [2]}, "refuse"), "m"), MASK * 2
    )
    colors = from_table({"b": ["#008000"]}, "refuse")
    np.testing.assert_array_equal(to_labels(decode(Source(path)), colors, "m"), MASK)


def test_white_is_foreground_in_a_black_and_white_palette(tmp_path: Path) -> None:
    path = palette_mask(tmp_path / "m.png", [(255, 255, 255), (0, 0, 0)], 1 - MASK)
    np.testing.assert_array_equal(to_labels(decode(Source(path)), ONE, "m"), MASK)


def test_colours_by_table() -> None:
    mask = np.zeros((2, 3, 3), np.uint8)
    mask[0, 1], mask[0, 2], mask[1, 0], mask[1, 1] = (255, 0, 0), (0, 255, 0), (255, 255, 255), (7, 7, 7)
    table = {"vein": ["#ff0000", 255], "artery": ["#00FF00"], "ignore": ["#070707"]}
    classes = from_table(table, "refuse")
    assert classes.names == ("vein", "artery")
    np.testing.assert_array_equal(to_labels(Raster(mask), classes, "m"), [[0, 1, 2], [1, 255, 0]])


def test_one_colour_on_black_is_one_class() -> None:
    mask = np.zeros((2, 2, 3), np.uint8)
    mask[0, 0] = 255, 0, 0
    classes = infer([("m", *survey(Raster(mask), "m"))])
    np.testing.assert_array_equal(to_labels(Raster(mask), classes, "m"), [[1, 0], [0, 0]])


@given(
    arrays.arrays(np.uint8, (5, 7), elements=st.integers(0, 9)),
    st.dictionaries(st.integers(1, 9), st.sampled_from("abc"), min_size=1),
    st.sampled_from(["background", "ignore"]),
)
def test_labels_follow_the_table(mask: np.ndarray, meaning: dict[int, str], rest: str) -> None:
    table: dict[str, list[int | str]] = {}
    for value, name in meaning.items():
        table.setdefault(name, []).append(value)
    classes = from_table(table, rest)
    labels = to_labels(Raster(mask), classes, "m")
    for value, label in zip(mask.ravel(), labels.ravel(), strict=True):
        if value in meaning:
            assert classes.names[label - 1] == meaning[value]
        else:
            assert label == (255 if value and rest == "ignore" else 0)


def test_classes_in_order_several_values_to_one_and_background() -> None:
    classes = from_table({"background": [0, 9], "b": [3, "4"], "a": [1]}, "refuse")
    assert classes == Classes(("b", "a"), {0: 0, 9: 0, 3: 1, 4: 1, 1: 2}, {}, "refuse")


def test_0_may_be_a_class() -> None:
    mask = Raster(np.array([[0, 1]], np.uint8))
    np.testing.assert_array_equal(to_labels(mask, from_table({"dark": [0]}, "background"), "m"), [[1, 0]])


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"background": [0]}, "names 0 classes"),
        ({"a": []}, "gives no mask value for 'a'"),
        ({"a": [1], "b": [1]}, "gives 1 to 'b' and to another"),
        ({"a": ["red"]}, "gives 'red' to 'a': a whole number or a colour"),
    ],
)
def test_tables_refused(table: dict[str, list[int | str]], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        from_table(table, "refuse")


def test_a_value_that_no_class_names() -> None:
    mask = Raster(np.array([[0, 1, 7, 8]], np.uint8))
    with pytest.raises(
        InputError, match=r"m.png holds mask value 7 and 1 more, .*\(0 background, 1 vessel\).*data.rest"
    ):
        to_labels(mask, ONE, "m.png")
    color = Raster(np.array([[[1, 2, 3]]], np.uint8))
    with pytest.raises(InputError, match=r"m.png holds mask value #010203, which no class names"):
        to_labels(color, from_table({"a": ["#ff0000"]}, "refuse"), "m.png")
    with pytest.raises(InputError, match=r"m.png holds colours or 3 differing channels"):
        to_labels(color, ONE, "m.png")
    for odd in (0.5, np.nan):
        with pytest.raises(InputError, match=r"m.npy holds mask values that are no whole numbers"):
            to_labels(Raster(np.array([[odd]])), ONE, "m.npy")


def test_values_0_to_k_are_k_classes() -> None:
    assert infer(values(0, 1, 2, 3)).names == ("class_1", "class_2", "class_3")
    assert infer(values(0, 7)).values == {0: 0, 7: 1}


@pytest.mark.parametrize("codes", [(0, 1, 3), (1, 2), (0, 1, 255), tuple(range(40))])
def test_values_that_could_mean_anything(codes: tuple[int, ...]) -> None:
    with pytest.raises(
        InputError, match=rf"the masks hold the {len(codes)} values .*first in m.png.*data.classes"
    ):
        infer(values(*codes))


def test_jpeg_masks_are_refused_unless_a_table_names_them(tmp_path: Path, put: Put) -> None:
    noisy = np.random.default_rng(0).integers(0, 2, (32, 32), np.uint8) * 255
    put("images/a.png", noisy)
    path = put("masks/a.jpg", noisy)
    found = find(Data(root=str(tmp_path)))
    with pytest.raises(InputError, match=r"which could mean anything: .*data.classes"):
        resolve_classes(found, Data())
    everything = Data(classes={"bright": list(range(128, 256))}, rest="background")
    labels = read_labels(found.cases[0], resolve_classes(found, everything))
    np.testing.assert_array_equal(labels, np.asarray(Image.open(path)) >= 128)


def folder_of(put: Put, root: Path, masks: list[np.ndarray]) -> Found:
    for index, mask in enumerate(masks):
        put(f"images/{index}.png", GRAY + index)
        put(f"masks/{index}.png", mask)
    return find(Data(root=str(root)))


def test_every_mask_empty(tmp_path: Path, put: Put) -> None:
    found = folder_of(put, tmp_path, [MASK * 0, MASK * 0])
    with pytest.raises(
        InputError, match=r"every mask is empty \(2 masks with nothing but 0, the first .*0.png\)"
    ):
        resolve_classes(found, Data())
    loads = load_cases(found, [0, 1], ONE)
    with pytest.raises(InputError, match=r"every mask of .* is empty .*masks that show vessel are needed"):
        list(loads)
    assert len(list(load_cases(found, [0, 1], ONE, may_be_empty=True))) == 2


def test_some_masks_empty(tmp_path: Path, put: Put) -> None:
    found = folder_of(put, tmp_path, [MASK * 0, MASK])
    classes = resolve_classes(found, Data())
    assert [bool(loaded.labels.any()) for loaded in load_cases(found, [0, 1], classes)] == [False, True]


def test_cases_load_in_the_order_asked(tmp_path: Path, put: Put) -> None:
    found = folder_of(put, tmp_path, [MASK] * 40)
    order = list(np.random.default_rng(0).permutation(40))
    loaded = load_cases(found, order, ONE, 1)
    assert [int(each.image[0, 0, 0]) for each in loaded] == order
    partly = load_cases(found, order, ONE, 1)
    next(partly)
    partly.close()  # leaves no thread behind


def test_masks_of_one_image_are_merged(put: Put) -> None:
    parts = [put(f"m{row}.png", np.eye(6, 8, row, np.uint8)) for row in range(3)]
    merged = Case("a", (Source(parts[0]),), tuple(map(Source, parts)))
    np.testing.assert_array_equal(read_labels(merged, ONE), sum(np.eye(6, 8, row) for row in range(3)))
    with pytest.raises(InputError, match="has no mask"):
        read_labels(case(parts[0]), ONE)


def test_the_layouts_word_on_other_values_yields_to_the_users(tmp_path: Path) -> None:
    found = Found("", "", tmp_path, (), {"crack": [2]}, "background", False, ())
    assert resolve_classes(found, Data()).rest == "background"
    assert resolve_classes(found, Data(rest="ignore")).rest == "ignore"
    assert resolve_classes(found, Data(classes={"edge": [3]})) == from_table({"edge": [3]}, "refuse")
