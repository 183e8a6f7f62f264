"""A data set as nnU-Net has it: what was in it comes back, and what is unlabelled stays so."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from support import write_pair

from engine import export
from engine.data import annotated
from engine.data.annotated import AnnotationClass
from engine.data.dataset import Dataset
from engine.data.specs import Data
from engine.errors import InputError
from engine.exported.nnunet_folder import write

IGNORED = {"cell": [1], "debris": [2], "ignore": [255]}


def held(data: Data) -> dict[str, tuple[NDArray[Any], NDArray[np.uint8]]]:
    """Name → image and labels (255 where nothing counts) of all cases."""
    dataset = Dataset.open(data)
    found = {}
    for sample in dataset.some(range(len(dataset.found.cases))):
        labels = sample.labels if sample.valid is None else np.where(sample.valid, sample.labels, 255)
        found[sample.name] = (sample.image, labels)
    return found


def assert_comes_back(data: Data, out: Path) -> None:
    before, after = held(data), held(Data(root=str(out)))
    assert before.keys() == after.keys()
    for name, (image, labels) in before.items():
        np.testing.assert_array_equal(after[name][0], image)
        assert after[name][0].dtype == image.dtype
        np.testing.assert_array_equal(after[name][1], labels)


def described(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "dataset.json").read_text("utf-8"))
    return found


@given(
    seed=st.integers(0, 2**32 - 1),
    sides=st.tuples(st.integers(3, 20), st.integers(3, 20)),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    channels=st.sampled_from([1, 3]),
    unlabelled=st.booleans(),
)
@settings(max_examples=12)
def test_images_come_back(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sides: tuple[int, int], dtype: type, channels: int,
    unlabelled: bool,
) -> None:  # fmt: skip
    root, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(seed)
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for name in "ab":
        image = rng.integers(0, 256, (*sides, channels)).astype(dtype)
        image.ravel()[:3] = 0, 1, 255  # no gray
        kind = {"photometric": "rgb"} if channels == 3 else {"photometric": "minisblack"}
        tifffile.imwrite(root / "images" / f"{name}.tif", image if channels == 3 else image[..., 0], **kind)
        mask = rng.choice([0, 1, 2, 255] if unlabelled else [0, 1, 2], sides).astype(np.uint8)
        mask.ravel()[:4] = 0, 1, 2, 255 if unlabelled else 0
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    data = Data(root=str(root), classes=IGNORED)
    converted = write(root / "out", data)
    assert_comes_back(data, root / "out")
    told = described(root / "out")
    assert told["labels"] == {"background": 0, "cell": 1, "debris": 2} | ({"ignore": 3} if unlabelled else {})
    assert told["file_ending"] == (".png" if dtype is np.uint8 else ".tif")
    assert converted.ignored == (3 if unlabelled else None)
    assert list(told["channel_names"].values()) == (["R", "G", "B"] if channels == 3 else ["channel0"])
    assert (told["numTraining"], converted.train, converted.test) == (2, 2, 0)


def test_a_test_set_and_a_field_of_view(tmp_path: Path) -> None:
    root, rng = tmp_path / "set", np.random.default_rng(0)
    for part, name in (("train", "a"), ("train", "b"), ("test", "c")):
        mask = rng.integers(0, 2, (12, 10)).astype(np.uint8) * 255
        write_pair(root / part, name, rng.integers(0, 256, (12, 10), np.uint8), mask)
        (root / part / "fov").mkdir(exist_ok=True)
        field = np.zeros((12, 10), np.uint8)
        field[2:9, 1:9] = 255
        Image.fromarray(field).save(root / part / "fov" / f"{name}.png")
    out = tmp_path / "raw"
    command = [
        "--dataset",
        str(root),
        "--nnunet",
        str(out),
        "--name",
        "Dataset101_X",
        "--data.rest=background",
    ]
    assert export.main(command) == 0
    assert_comes_back(Data(root=str(root)), out / "Dataset101_X")
    files = sorted(path.relative_to(out / "Dataset101_X").as_posix() for path in out.rglob("*.png"))
    assert files == [
        "imagesTr/a_0000.png", "imagesTr/b_0000.png", "imagesTs/c_0000.png",
        "labelsTr/a.png", "labelsTr/b.png", "labelsTs/c.png",
    ]  # fmt: skip
    assert described(out / "Dataset101_X")["labels"] == {"background": 0, "foreground": 1, "ignore": 2}
    assert described(out / "Dataset101_X")["name"] == "Dataset101_X"


def test_volumes_keep_their_place(blobs3d: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, Data(root=str(blobs3d)))
    assert_comes_back(Data(root=str(blobs3d)), out)
    before = {case.name: case for case in Dataset.open(Data(root=str(blobs3d))).found.cases}
    for case in Dataset.open(Data(root=str(out))).found.cases:
        old, new = (nibabel.load(each.images[0].path) for each in (before[case.name], case))
        np.testing.assert_array_equal(old.affine, new.affine)
        assert new.header["sform_code"] == old.header["sform_code"]
        assert case.images[0].path.name == f"{case.name}_0000.nii.gz"


def test_channels_in_files_of_their_own(tmp_path: Path) -> None:
    root, rng = tmp_path / "set", np.random.default_rng(0)
    for kind in ("dapi", "actin", "masks"):
        (root / kind).mkdir(parents=True)
        for name in ("a", "b"):
            pixels = rng.integers(0, 2 if kind == "masks" else 60000, (9, 8))
            tifffile.imwrite(root / kind / f"{name}.tif", pixels.astype(np.uint16), photometric="minisblack")
    data = Data(root=str(root), images="dapi/{id}.tif; actin/{id}.tif", masks="masks/{id}.tif")
    write(tmp_path / "out", data)
    assert_comes_back(data, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "imagesTr").iterdir()) == [
        "a_0000.tif", "a_0001.tif", "b_0000.tif", "b_0001.tif",
    ]  # fmt: skip


def test_an_annotated_folder_with_the_origin_of_its_masks(tmp_path: Path) -> None:
    root = tmp_path / "plates"
    root.mkdir()
    annotated.write_classes(
        root, [AnnotationClass("cell", 1, "#e69f00"), AnnotationClass("dirt", 7, "#000000")]
    )
    for number in range(3):
        Image.fromarray(np.full((8, 9), 60 * number, np.uint8)).save(root / f"{number}.png")
    labels = np.full((8, 9), 255, np.uint8)
    labels[:3], labels[3], labels[4] = 0, 1, 7
    annotated.save(root, "0.png", labels, status="done", origin="drawn", annotator="ada")
    annotated.save(
        root, "1.png", labels, status="reviewed", origin="corrected", run="r1", epoch="4", split="test"
    )
    converted = write(tmp_path / "out", Data(root=str(root)))
    assert (converted.train, converted.test, converted.provenance) == (1, 1, True)
    assert_comes_back(Data(root=str(root)), tmp_path / "out")
    assert described(tmp_path / "out")["labels"] == {"background": 0, "cell": 1, "dirt": 2, "ignore": 3}
    with (tmp_path / "out" / "provenance.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["0.png", "1.png"]
    assert (rows["0.png"]["origin"], rows["0.png"]["annotator"]) == ("drawn", "ada")
    assert (rows["1.png"]["origin"], rows["1.png"]["run"], rows["1.png"]["epoch"]) == ("corrected", "r1", "4")
    assert (tmp_path / "out" / rows["1.png"]["label"]).is_file()
    assert rows["1.png"]["label"].startswith("labelsTs/")


def test_a_used_folder_is_refused_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("a", "b"):
        write_pair(root, name, np.zeros((8, 8), np.uint8), np.eye(8, dtype=np.uint8))
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", Data(root=str(root)))
    with pytest.raises(InputError, match=r"out is there already and is not empty"):
        write(tmp_path / "out", Data(root=str(root)))
    (root / "images" / "b.png").write_bytes((root / "images" / "b.png").read_bytes()[:40])
    with pytest.raises(InputError, match=r"b\.png"):
        write(tmp_path / "other", Data(root=str(root)))
    assert {path.name for path in tmp_path.iterdir() if path.name != "napari-smm-home"} == {"set", "out"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "x"], "--dataset FOLDER goes with --nnunet OUT alone"),
        (["r", "--dataset", "x", "--nnunet", "y"], "--dataset FOLDER goes with --nnunet OUT alone"),
        (["r", "--nnunet", "y"], "--nnunet and --name go with --dataset FOLDER"),
        (["r"], "a run and what to make of it are needed"),
        (["r", "--onnx", "a.zip"], "--onnx a.zip needs a name that ends in .onnx"),
        (["r", "--onnx", "a.onnx", "--data.layout=x"], "unrecognized arguments: --data.layout=x"),
        (["--dataset", "x", "--nnunet", "y", "--loss.name=dice"], "unrecognized arguments: --loss.name=dice"),
        (["r", "--onnx", "/no/such/a.onnx"], "there is no folder /no/such to write a.onnx into"),
    ],
)
def test_what_cannot_be_asked_for_is_said(arguments: list[str], words: str) -> None:
    with pytest.raises(InputError) as error:
        export.main(arguments)
    assert words in str(error.value)
