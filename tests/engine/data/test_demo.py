"""The embedded set: the same from the same seed, truth on the vessels, written whole or not at all."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.morphology import skeletonize

from engine.data import demo
from engine.data.demo import demo_pair, write_demo
from engine.errors import InputError

EIGHT = np.ones((3, 3), dtype=bool)


@pytest.fixture(scope="module")
def pairs():
    return [demo_pair(number) for number in range(24)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_seed_is_the_same_set(pairs):
    for number in (0, 7):
        image, truth = demo_pair(number)
        assert np.array_equal(image, pairs[number][0])
        assert np.array_equal(truth, pairs[number][1])
    digests = {hashlib.sha256(image.tobytes()).hexdigest() for image, _ in pairs}
    assert len(digests) == len(pairs)
    assert not np.array_equal(demo_pair(0, seed=1)[0], pairs[0][0])


def test_gray_images_of_some_range_with_thin_foreground(pairs):
    for image, truth in pairs:
        assert image.shape == truth.shape == (128, 128)
        assert image.dtype == np.uint8
        assert truth.dtype == bool
        assert 0.04 <= truth.mean() <= 0.10
        assert np.ptp(image.astype(int)) > 60
        assert (image == 255).mean() < 0.02
        widest = 2 * ndimage.distance_transform_cdt(truth, "chessboard").max()
        assert widest <= 10  # where two meet; a single one is up to 5 px wide


def test_vessels_are_connected(pairs):
    """A few trees, not fragments: branches hang on their parents."""
    for _, truth in pairs:
        labels, count = ndimage.label(truth, EIGHT)
        sizes = np.bincount(labels.ravel())[1:]
        assert count <= 12
        assert np.sort(sizes)[-6:].sum() > 0.85 * truth.sum()


def test_truth_lies_on_darker_pixels(pairs):
    """Along the skeleton the image is darker than beside the vessels, in each image."""
    for image, truth in pairs:
        beside = ndimage.binary_dilation(truth, EIGHT, 5) & ~ndimage.binary_dilation(truth, EIGHT, 2)
        contrast = image[beside].mean() - image[skeletonize(truth)].mean()
        assert contrast > 4

    # Shifted truth fits less well: no offset between image and mask.
    def darkness(shift):
        return sum(float(image[np.roll(skeletonize(truth), shift, (0, 1))].mean()) for image, truth in pairs)

    there = darkness((0, 0))
    assert all(there < darkness(shift) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1), (2, 2)))


def test_thin_ends_are_hard_to_see(pairs):
    """Some of the foreground is as dark as its surroundings: misses will outnumber false alarms."""
    faint, wide = [], []
    for image, truth in pairs:
        smooth = ndimage.gaussian_filter(image.astype(float), 1)
        relative = smooth - ndimage.gaussian_filter(smooth, 12)
        core = ndimage.distance_transform_edt(truth)
        wide.append(relative[core >= 2].mean())
        faint.append(relative[skeletonize(truth) & (core <= 1)].mean())
    assert np.mean(wide) < 2 * np.mean(faint) < 0


def test_written_once_and_read_back(tmp_path):
    folder = write_demo(tmp_path / "set", images=3, size=64, seed=4)
    assert sorted(p.name for p in (folder / "images").iterdir()) == ["000.png", "001.png", "002.png"]
    for number in range(3):
        image, truth = demo_pair(number, size=64, seed=4)
        assert np.array_equal(np.asarray(Image.open(folder / f"images/{number:03d}.png")), image)
        assert np.array_equal(
            np.asarray(Image.open(folder / f"masks/{number:03d}.png")), truth * np.uint8(255)
        )
    before = (folder / "images/000.png").stat().st_mtime_ns
    assert write_demo(folder, images=3, size=64, seed=4) == folder
    assert (folder / "images/000.png").stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    assert contents(write_demo(tmp_path / "twin", images=3, size=64, seed=4)) == contents(folder)


def test_cache_is_made_whole_again(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "user_cache_dir", lambda *args, **kwargs: str(tmp_path))
    folder = write_demo(images=2, size=64)
    assert folder.parent == tmp_path
    whole = contents(folder)
    (folder / "masks/001.png").unlink()
    assert contents(write_demo(images=2, size=64)) == whole
    (folder / "demo.json").write_text("{", encoding="utf-8")
    assert contents(write_demo(images=2, size=64)) == whole
    assert write_demo(images=2, size=64, seed=1) != folder


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "demo_pair", stop)
    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "set", images=2, size=64)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_users_is_never_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="something other"):
        write_demo(tmp_path, images=2, size=64)
    assert contents(tmp_path) == {"mine.txt": b"mine"}


def test_where_nothing_can_be_written_a_sentence_says_so(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written to"):
        write_demo(tmp_path / "file" / "set", images=2, size=64)


def test_no_torch():
    code = "import engine.data.demo, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
