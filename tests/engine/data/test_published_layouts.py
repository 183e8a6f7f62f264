"""The layouts of the papers' data sets, on miniatures of the trees that owners or readers document."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.data.layouts import Found, Layout, find, known
from engine.data.pairs import Files, match
from engine.data.read import load_case, read_image, read_labels, resolve_channels, resolve_classes
from engine.data.specs import Data
from engine.errors import InputError

Put = Callable[..., Path]
PICTURE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
GRAY = PICTURE[..., 0]
MASK = np.zeros((6, 8), np.uint8)
MASK[2, 1:7] = 255
TISSUE = np.full((6, 8), 2, np.uint8)
TISSUE[0], TISSUE[1], TISSUE[2] = 0, 1, 3

DRONE = {
    "unlabeled": (0, 0, 0),
    "paved-area": (128, 64, 128),
    "dirt": (130, 76, 0),
    "grass": (0, 102, 0),
    "gravel": (112, 103, 87),
    "water": (28, 42, 168),
    "rocks": (48, 41, 30),
    "pool": (0, 50, 89),
    "vegetation": (107, 142, 35),
    "roof": (70, 70, 70),
    "wall": (102, 102, 156),
    "window": (254, 228, 12),
    "door": (254, 148, 12),
    "fence": (190, 153, 153),
    "fence-pole": (153, 153, 153),
    "person": (255, 22, 96),
    "dog": (102, 51, 0),
    "car": (9, 143, 150),
    "bicycle": (119, 11, 32),
    "tree": (51, 51, 0),
    "bald-tree": (190, 250, 190),
    "ar-marker": (112, 150, 146),
    "obstacle": (2, 135, 115),
    "conflicting": (255, 0, 0),
}
"""class_dict.csv of the Semantic Drone Dataset, in its order."""
GROUPS = {
    "water": {"water", "pool"},
    "soft_surface": {"dirt", "grass", "vegetation", "tree", "bald-tree"},
    "moving_object": {"person", "dog", "car", "bicycle"},
    "landing_zone": {"paved-area", "gravel", "roof"},
}


def found_in(root: Path, **settings: object) -> Found:
    return find(Data(root=str(root), **settings))


def labels(found: Found, index: int = 0) -> np.ndarray:
    return read_labels(found.cases[index], resolve_classes(found, Data()))


def bombr(put: Put) -> None:
    for split, names in {"train": ("Image_10369", "T-1129 24 100X (4)"), "test": ("Image_01",)}.items():
        for name in names:
            put(f"images/{split}/{name}.tif", PICTURE)
            put(f"masks/{split}/{name}.png", TISSUE)


def bombr_without_split(put: Put) -> None:
    put("integer-encoded-images/Image_10369.jpg", PICTURE)
    put("integer-encoded-masks/Image_10369.png", TISSUE)


def drone(put: Put, archive: str = "semantic_drone_dataset/") -> None:
    """All 24 classes, in the owner's colours."""
    colors = np.array(list(DRONE.values()), np.uint8).reshape(4, 6, 3)
    for name in ("000", "001"):
        put(f"{archive}training_set/images/{name}.jpg", np.zeros((4, 6, 3), np.uint8))
        put(f"{archive}training_set/gt/semantic/label_images/{name}.png", colors)
        put(f"{archive}training_set/gt/bounding_box/masks/person/{name}.png", colors)


def drone_of_kaggle(put: Put) -> None:
    """All 24 classes as numbers, and the same in colours in a folder that is not read."""
    for name in ("000", "001"):
        put(f"dataset/semantic_drone_dataset/original_images/{name}.jpg", np.zeros((4, 6, 3), np.uint8))
        put(
            f"dataset/semantic_drone_dataset/label_images_semantic/{name}.png",
            np.arange(24, dtype=np.uint8).reshape(4, 6),
        )
        put(f"RGB_color_image_masks/RGB_color_image_masks/{name}.png", np.zeros((4, 6, 3), np.uint8))


def cracks(put: Put, folder: str = "Dataset_for_semantic_segmentation/") -> None:
    for number in (1, 2, 10):
        put(f"{folder}Images/image_{number}.jpg", PICTURE)
        put(f"{folder}Masks/mask_{number}.png", np.dstack([MASK * (number != 2)] * 3))  # one without a crack


def cracks_of_the_archive(put: Put) -> None:
    cracks(put, "NCCD-PF_Dataset/Dataset_for_semantic_segmentation/")
    put("NCCD-PF_Dataset/Dataset_for_classification/Cracks/image_1.jpg", PICTURE)


def bus(put: Put) -> None:
    for name in ("000001", "000002"):
        put(f"BUS/original/{name}.png", GRAY)
        put(f"BUS/GT/{name}.png", MASK)


MINIATURES = {
    bombr: "bombr",
    bombr_without_split: "bombr",
    drone: "semantic-drone",
    drone_of_kaggle: "semantic-drone",
    cracks: "narrow-cracks",
    cracks_of_the_archive: "narrow-cracks",
    bus: "bus2017",
}


def pairs(layout: Layout, files: list[str]) -> int:
    return sum(len(match(part, layout.where, Files.of(files)).pairs) for part in layout.part)


@pytest.mark.parametrize("write", MINIATURES, ids=lambda write: write.__name__)
def test_a_miniature_fits_its_own_layout_alone(
    write: Callable[[Put], None], tmp_path: Path, put: Put
) -> None:
    write(put)
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert found_in(tmp_path).layout == MINIATURES[write]
    assert [layout.name for layout in known() if pairs(layout, files)] == [MINIATURES[write]]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/train/cat_1.jpg", "masks/train/cat_1.png"),
        ("Images/image_1.jpg", "Masks/mask_1.png"),
        ("original/photo.png", "GT/photo.png"),
        ("Original/1.tif", "GT/1.tif"),
        ("original_images/a.png", "label_images_semantic/a.png"),  # a copy on Kaggle with other classes
    ],
)
def test_trees_that_could_be_anybodys_are_left_alone(tmp_path: Path, put: Put, image: str, mask: str) -> None:
    put(image, PICTURE)
    put(mask, MASK)
    with pytest.raises(InputError, match="no pairs of image and mask"):
        found_in(tmp_path)


def test_a_layout_asked_for_by_name_needs_no_sign(tmp_path: Path, put: Put) -> None:
    cracks(put, "")
    found = found_in(tmp_path, layout="narrow-cracks")
    assert [case.name for case in found.cases] == ["1", "2", "10"]


def test_bombr_by_name_in_anybodys_folders_keeps_its_own_values(tmp_path: Path, put: Put) -> None:
    put("images/S-7.tif", PICTURE)
    put("masks/S-7.png", TISSUE)
    assert found_in(tmp_path).layout == "images-masks"
    found = found_in(tmp_path, layout="bombr")
    assert resolve_classes(found, Data()).names == ("fat", "reticulin", "bone")


def test_bombr(tmp_path: Path, put: Put) -> None:
    bombr(put)
    found = found_in(tmp_path)
    assert [(case.name, case.split) for case in found.cases] == [
        ("Image_10369", "train"),
        ("T-1129_24_100X_4_", "train"),
        ("Image_01", "test"),
    ]
    classes = resolve_classes(found, Data())
    assert classes.names == ("fat", "reticulin", "bone")
    expected = np.zeros((6, 8))  # cells and all else
    expected[0], expected[1], expected[2] = 2, 1, 3  # in the files reticulin is 0 and fat 1
    loaded = load_case(found.cases[0], classes)
    np.testing.assert_array_equal(loaded.labels, expected)
    np.testing.assert_array_equal(loaded.image, PICTURE)


@pytest.mark.parametrize("write", [drone, drone_of_kaggle])
def test_semantic_drone_groups_its_24_classes(tmp_path: Path, put: Put, write: Callable[[Put], None]) -> None:
    write(put)
    found = found_in(tmp_path)
    assert [case.name for case in found.cases] == ["000", "001"]
    classes = resolve_classes(found, Data())
    assert classes.names == tuple(GROUPS)  # with obstacles as the background, five
    group = {name: index for index, names in enumerate(GROUPS.values(), 1) for name in names}
    expected = np.array([group.get(name, 0) for name in DRONE]).reshape(4, 6)
    np.testing.assert_array_equal(labels(found), expected)


def test_semantic_drone_names_every_value_and_every_colour_once() -> None:
    table = next(layout.classes for layout in known() if layout.name == "semantic-drone")
    assert table is not None
    entries = [entry for entries in table.values() for entry in entries]
    assert sorted(entry for entry in entries if isinstance(entry, int)) == list(range(24))
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in DRONE.values()]
    assert sorted(entry for entry in entries if isinstance(entry, str)) == sorted(colors)


def test_semantic_drone_in_groups_of_ones_own(tmp_path: Path, put: Put) -> None:
    drone(put)
    settings = {"classes": {"person": ["#ff1660"]}, "rest": "background"}
    classes = resolve_classes(found_in(tmp_path), Data(root=str(tmp_path), **settings))
    found = read_labels(found_in(tmp_path, **settings).cases[0], classes)
    assert found.sum() == 1
    assert found.flat[list(DRONE).index("person")] == 1


def test_narrow_cracks(tmp_path: Path, put: Put) -> None:
    cracks(put)
    found = found_in(tmp_path)
    assert [(case.name, case.split) for case in found.cases] == [("1", ""), ("2", ""), ("10", "")]
    np.testing.assert_array_equal(labels(found), MASK // 255)
    assert not labels(found, 1).any()


def test_bus2017(tmp_path: Path, put: Put) -> None:
    bus(put)
    found = found_in(tmp_path)
    assert [case.name for case in found.cases] == ["000001", "000002"]
    np.testing.assert_array_equal(labels(found), MASK // 255)
    np.testing.assert_array_equal(read_image(found.cases[0])[..., 0], GRAY)
    assert resolve_channels(found, "auto") == 1
