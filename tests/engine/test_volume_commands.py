"""The commands on runs of volumes: predict, evaluate, report."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from support import write_pair
from volumes import SHAPE, blobs, volume_settings, write_nifti, write_volumes

from engine import calibrate, decision, evaluate, predict, report, train
from engine.errors import InputError
from engine.record import RunReader
from engine.trained import Trained


@pytest.fixture(scope="module")
def scored3d(finished3d: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of volumes whose test volumes are scored."""
    run = Path(shutil.copytree(finished3d, tmp_path_factory.mktemp("scored") / "volumes"))
    assert evaluate.main([str(run), "--device=cpu"]) == 0
    return run


def in_order(path: Path) -> np.ndarray:
    """A NIfTI as (D, H, W[, channels])."""
    return np.moveaxis(np.asarray(nib.load(path).dataobj), (0, 1, 2), (2, 1, 0))


def test_a_volume_is_predicted_on_its_own_voxels(finished3d: Path, blobs3d: Path, tmp_path: Path) -> None:
    scan = blobs3d / "images" / "b03.nii.gz"
    out = tmp_path / "out"
    assert predict.main([str(finished3d), str(scan), "--out", str(out), "--threshold=0.45"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["b03_mask.nii.gz", "b03_probability.nii.gz"]
    trained = Trained.open(finished3d, device="cpu")
    expected = trained.probability(in_order(scan)[..., None].astype(np.float32), spacing=(2.0, 1.0, 0.5))
    p = in_order(out / "b03_probability.nii.gz")
    np.testing.assert_array_equal(np.moveaxis(p, -1, 0), expected)
    mask = in_order(out / "b03_mask.nii.gz")
    np.testing.assert_array_equal(mask, trained.label_map(expected, 0.45))
    for name in ("mask", "probability"):
        made = nib.load(out / f"b03_{name}.nii.gz")
        np.testing.assert_array_equal(made.affine, nib.load(scan).affine)
        assert made.get_sform(coded=True)[1] == 1
        assert made.get_qform(coded=True)[1] == 2


def test_other_sizes_and_formats_are_predicted_too(finished3d: Path, tmp_path: Path) -> None:
    small = blobs(1, shape=(5, 33, 17))[0]
    np.save(tmp_path / "small.npy", small)
    # One plane short of what would be taken for channels without the run's word for it.
    write_nifti(tmp_path / "thin.nii.gz", small)
    files = [str(tmp_path / name) for name in ("small.npy", "thin.nii.gz")]
    with pytest.raises(InputError, match=r"small.npy is a 2D image of 33 × 17 px"):
        predict.main([str(finished3d), *files, "--out", str(tmp_path / "p")])
    assert predict.main([str(finished3d), files[1], "--out", str(tmp_path / "p")]) == 0
    assert in_order(tmp_path / "p" / "thin_mask.nii.gz").shape == (5, 33, 17)


def test_the_table_is_what_counting_voxels_gives(scored3d: Path, blobs3d: Path) -> None:
    trained = Trained.open(scored3d, device="cpu")
    names = RunReader(scored3d).info()["splits"]["test"]
    with (scored3d / "report" / "test.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] != "background"]
    assert [(row["image"], row["class"]) for row in rows] == [
        (name, label) for name in names for label in trained.classes
    ]
    for number, row in enumerate(rows):
        image = in_order(blobs3d / "images" / f"{row['image']}.nii.gz").astype(np.float32)
        truth = in_order(blobs3d / "masks" / f"{row['image']}.nii.gz") == number % 2 + 1
        p = trained.probability(image[..., None], spacing=(2.0, 1.0, 0.5))[number % 2]
        found = p >= 0.5
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        assert float(row["dice"]) == pytest.approx(dice, rel=1e-9)
        component, count = ndimage.label(truth, np.ones((3, 3, 3)))  # 26-connected
        assert int(row["lesions"]) == count
        assert int(row["lesions_detected"]) == len(set(component[found & truth].tolist()))
        assert float(row["brier"]) == pytest.approx(((p.astype(np.float64) - truth) ** 2).mean(), rel=1e-6)
        assert row["cldice"] != ""
    saved = json.loads((scored3d / "report" / "test.json").read_text("utf-8"))
    time = saved["inference"]
    assert (time["depth"], time["height"], time["width"]) == SHAPE
    assert saved["reliability"]["class_1"]["count"]
    assert sum(saved["reliability"]["class_1"]["count"]) == len(names) * np.prod(SHAPE)
    made = {path.name for path in (scored3d / "report").glob("*.png")}
    assert made == {"curves.png", "masks.png", "panels.png", "reliability.png", "thresholds.png"}


def test_the_page_of_a_run_of_volumes_shows_slices(scored3d: Path) -> None:
    assert report.main([str(scored3d), "--device=cpu"]) == 0
    text = (scored3d / "report" / "report.html").read_text("utf-8")
    assert "voxels missed" in text
    assert "axis z, R at the left" in text
    assert "16 × 20 × 24 voxels" in text
    assert "Dice of the table" not in text


def test_channels_in_files_of_their_own(tmp_path: Path) -> None:
    data, run, out = tmp_path / "data", tmp_path / "run", tmp_path / "out"
    write_volumes(data, channels=2, classes=1, shape=(16, 16, 16))
    train.main(["--data.root", str(data), "--out", str(run), *volume_settings("--training.epochs=1")])
    assert Trained.open(run, device="cpu").channels == 2
    folder = data / "imagesTr"
    pair = ",".join(str(folder / f"b04_000{number}.nii.gz") for number in (0, 1))
    assert predict.main([str(run), pair, "--out", str(out)]) == 0
    assert predict.main([str(run), str(folder), "--out", str(tmp_path / "all")]) == 0
    assert len(list((tmp_path / "all").iterdir())) == 20
    for name in ("b04_mask.nii.gz", "b04_probability.nii.gz"):
        np.testing.assert_array_equal(in_order(out / name), in_order(tmp_path / "all" / name))
    assert set(np.unique(in_order(out / "b04_mask.nii.gz"))) <= {0, 1}
    with pytest.raises(
        InputError, match=r"has 1 channel, .* volumes of 2 channels: .*NAME_0000.nii.gz,NAME_0001"
    ):
        predict.main([str(run), str(folder / "b04_0000.nii.gz"), "--out", str(tmp_path / "p")])


def test_images_do_not_calibrate_a_run_of_volumes(scored3d: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 255, (20, 24), np.uint8)
        write_pair(tmp_path / "flat", f"x{number}", pixels, pixels % 3)
    rule = ["--rule=cls", "--epsilon=0.3", "--alpha=0.5"]
    with pytest.raises(
        InputError, match=r"flat holds 2D images, and the run .* was trained on volumes: a folder"
    ):
        calibrate.main([str(scored3d), *rule, "--data", str(tmp_path / "flat")])
    assert not (scored3d / "thresholds.json").exists()


def test_a_calibrated_run_gives_each_class_a_mask(finished3d: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished3d, tmp_path / "run"))
    for number in range(2):
        image, labels = blobs(700 + number)
        write_nifti(tmp_path / "more" / "images" / f"m{number}.nii.gz", image)
        write_nifti(tmp_path / "more" / "masks" / f"m{number}.nii.gz", labels)
    more, scan = str(tmp_path / "more"), str(tmp_path / "more" / "images" / "m0.nii.gz")
    rule = ["--rule=cls", "--epsilon=0.3", "--alpha=0.5", "--no-figures"]
    assert calibrate.main([str(run), *rule, "--data", more]) == 0
    assert predict.main([str(run), scan, "--threshold=cls", "--out", str(tmp_path / "p")]) == 0
    saved = json.loads((run / "thresholds.json").read_text("utf-8"))
    assert "cls" in json.dumps(saved)
    trained = Trained.open(run, device="cpu")
    p = np.moveaxis(in_order(tmp_path / "p" / "m0_probability.nii.gz"), -1, 0)
    thresholds = decision.decide(trained, "cls").threshold
    for place, (name, mask) in enumerate(zip(trained.classes, trained.masks(p, thresholds), strict=True)):
        made = in_order(tmp_path / "p" / f"m0_mask_{name}.nii.gz")
        np.testing.assert_array_equal(made, mask)
        truth = blobs(700)[1] == place + 1
        assert made.dtype == np.uint8
        # The smaller of two critical thresholds: at most ε of either volume is missed.
        assert (truth & ~mask).sum() <= 0.3 * truth.sum()


def refused(folder: Path, case: str) -> str:
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(folder / "flat.png")
    (folder / "cut.nii.gz").write_bytes(b"")
    image = blobs(0)[0]
    write_nifti(folder / "whole.nii.gz", image)
    (folder / "short.nii.gz").write_bytes((folder / "whole.nii.gz").read_bytes()[:3000])
    image[3, 4, 5] = np.nan
    write_nifti(folder / "holes.nii.gz", image)
    return str(
        folder
        / {"image": "flat.png", "empty": "cut.nii.gz", "cut": "short.nii.gz", "nan": "holes.nii.gz"}[case]
    )


SENTENCES = {
    "image": "flat.png is a 2D image of 20 × 24 px, and the run .* was trained on volumes",
    "empty": r"cut.nii.gz is empty \(0 bytes\)",
    "cut": "short.nii.gz cannot be read",
    "nan": "holes.nii.gz holds 1 voxels that are NaN",
}


@pytest.mark.parametrize("case", SENTENCES)
def test_bad_volumes_are_refused_in_one_sentence(case: str, finished3d: Path, tmp_path: Path) -> None:
    given = refused(tmp_path, case)
    with pytest.raises(InputError, match=SENTENCES[case]) as refusal:
        predict.main([str(finished3d), given, "--out", str(tmp_path / "out")])
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "out").glob("*"))
