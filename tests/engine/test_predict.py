"""Predicting files: sizes, tiles, formats, metadata, refusals."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import fast

from engine import predict, train
from engine.errors import InputError
from engine.trained import Trained


def test_results_have_the_inputs_size_and_agree(finished: Path, vessels: Path, tmp_path: Path) -> None:
    images = sorted((vessels / "images").iterdir())[:2]
    assert predict.main([str(finished), *map(str, images), "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "v00_mask.png", "v00_probability.tif", "v01_mask.png", "v01_probability.tif"
    ]  # fmt: skip
    p = tifffile.imread(tmp_path / "v00_probability.tif")
    mask = np.asarray(Image.open(tmp_path / "v00_mask.png"))
    assert p.dtype == np.float32
    assert p.squeeze().shape == mask.shape == (40, 48)
    assert 0 <= p.min() < p.max() <= 1
    np.testing.assert_array_equal(mask, 255 * (p.squeeze() >= 0.5))


def test_a_threshold_of_the_users_own(finished: Path, vessels: Path, tmp_path: Path) -> None:
    image = str(vessels / "images" / "v00.png")
    predict.main([str(finished), image, "--out", str(tmp_path), "--threshold=0.2"])
    p = tifffile.imread(tmp_path / "v00_probability.tif").squeeze()
    mask = np.asarray(Image.open(tmp_path / "v00_mask.png"))
    np.testing.assert_array_equal(mask > 0, p >= np.float32(0.2))


def test_any_size_and_tiles_that_agree_with_the_whole_inside(finished: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = np.repeat(np.repeat(rng.integers(0, 255, (19, 23)), 7, 0), 7, 1)[:131, :157].astype(np.uint8)
    trained = Trained.open(finished, device="cpu")
    whole = trained.probability(pixels[..., None])
    tiled = trained.tiled(64).probability(pixels[..., None])
    assert whole.shape == tiled.shape == (1, 131, 157)
    # Tiles see less around them, so they agree but for a little near their seams.
    assert np.abs(whole - tiled).mean() < 0.05
    for shape in ((1, 1), (3, 200), (33, 17)):
        assert trained.probability(np.zeros((*shape, 1), np.uint8)).shape == (1, *shape)


def test_resized_runs_come_back_to_the_native_size(vessels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train.main(
        ["--data.root", str(vessels), "--out", str(out), *fast("--data.size=[24,32]", "--training.epochs=1")]
    )
    trained = Trained.open(out, device="cpu")
    image = np.asarray(Image.open(vessels / "images" / "v00.png"))[..., None]
    assert trained.probability(image).shape == (1, 40, 48)
    assert trained.probability(image, native=False).shape == (1, 24, 32)


def test_a_mask_of_several_classes_holds_class_numbers(organs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train.main(
        [
            "--data.root",
            str(organs),
            "--out",
            str(out),
            *fast("--modulation.name=none", "--training.epochs=8"),
        ]
    )
    predict.main([str(out), str(organs / "images"), "--out", str(tmp_path / "p")])
    masks = np.stack([np.asarray(Image.open(path)) for path in (tmp_path / "p").glob("*_mask.png")])
    p = tifffile.imread(tmp_path / "p" / "o00_probability.tif")
    assert p.shape == (2, 32, 32)
    assert set(np.unique(masks)) <= {0, 1, 2}
    best = np.concatenate([1 - p.sum(0, keepdims=True), p]).argmax(0)
    agree = np.asarray(Image.open(tmp_path / "p" / "o00_mask.png")) == best
    assert agree.mean() > 0.999  # float32 ties aside


def test_resolution_and_calibration_are_kept(finished: Path, tmp_path: Path) -> None:
    pixels = np.zeros((20, 24), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scan.png", dpi=(300, 300))
    tifffile.imwrite(
        tmp_path / "cells.tif",
        pixels,
        imagej=True,
        resolution=(5.0, 5.0),
        metadata={"unit": "um", "axes": "YX"},
    )
    tifffile.imwrite(tmp_path / "plain.tif", pixels, resolution=(40.0, 20.0), resolutionunit="CENTIMETER")
    files = [str(tmp_path / name) for name in ("scan.png", "cells.tif", "plain.tif")]
    assert predict.main([str(finished), *files, "--out", str(tmp_path / "p")]) == 0
    with Image.open(tmp_path / "p" / "scan_mask.png") as mask:
        assert mask.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
    for name in ("cells_mask.tif", "cells_probability.tif"):
        with tifffile.TiffFile(tmp_path / "p" / name) as file:
            assert file.imagej_metadata is not None
            assert file.imagej_metadata["unit"] == "um"
            assert file.pages.first.tags["XResolution"].value == (5, 1)
    with tifffile.TiffFile(tmp_path / "p" / "plain_mask.tif") as file:
        assert file.pages.first.tags["XResolution"].value == (40, 1)
        assert file.pages.first.tags["YResolution"].value == (20, 1)
        assert file.pages.first.tags["ResolutionUnit"].value == 3


def test_results_that_exist_are_not_replaced_unasked(finished: Path, vessels: Path, tmp_path: Path) -> None:
    command = [str(finished), str(vessels / "images" / "v00.png"), "--out", str(tmp_path)]
    predict.main(command)
    before = (tmp_path / "v00_mask.png").stat().st_mtime_ns
    with pytest.raises(InputError, match=r"v00_probability\.tif exists already.*--overwrite"):
        predict.main(command)
    assert (tmp_path / "v00_mask.png").stat().st_mtime_ns == before
    assert predict.main([*command, "--overwrite"]) == 0


def refused(tmp_path: Path, finished: Path, case: str) -> list[str]:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / folder / "x.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_bytes(b"no image")
    run = str(finished)
    return {
        "no such file": [run, str(tmp_path / "none.png")],
        "empty folder": [run, str(tmp_path / "empty")],
        "one name twice": [run, str(tmp_path / "a" / "x.png"), str(tmp_path / "b" / "x.png")],
        "no run": [str(tmp_path / "a"), str(tmp_path / "a" / "x.png")],
        "corrupt": [run, str(tmp_path / "bad.png")],
        "threshold": [run, str(tmp_path / "a"), "--threshold=1.5"],
        "unknown flag": [run, str(tmp_path / "a"), "--treshold=0.5"],
        "no checkpoint": [run, str(tmp_path / "a"), "--checkpoint=/nowhere"],
    }[case]


SENTENCES = {
    "no such file": "none.png does not exist", "empty folder": "holds no images",
    "one name twice": "both be written",
    "no run": "no run", "corrupt": "bad.png", "threshold": "0 to 1", "unknown flag": "treshold",
    "no checkpoint": "/nowhere",
}  # fmt: skip


@pytest.mark.parametrize("case", SENTENCES)
def test_bad_input_is_refused_in_one_sentence(case: str, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=SENTENCES[case]) as refusal:
        predict.main([*refused(tmp_path, finished, case), "--out", str(tmp_path / "out")])
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
