"""The papers' data sets in miniature: a few small images each, in the folders and formats of their owners."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import tifffile
from PIL import Image

from engine.data.demo import demo_pair

SIDE = 32


def write(path: Path, array: np.ndarray) -> None:
    """Write an array in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="rgb" if array.ndim == 3 else "minisblack")
    else:
        Image.fromarray(array).save(path)


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A colour image (32, 32, 3) uint8 with thin structures, and its mask (32, 32), 0 and 255."""
    image, truth = demo_pair(number, size=64, seed=7)
    gray = image[:SIDE, :SIDE]
    return np.dstack([gray, 255 - gray, gray // 2]), truth[:SIDE, :SIDE].astype(np.uint8) * 255


def bombr(root: Path) -> None:
    """Three training and two test images; 0 reticulin, 1 fat, 2 cells, 3 bone."""
    for number in range(5):
        image, truth = scene(number)
        tissue = np.full((SIDE, SIDE), 2, np.uint8)
        tissue[:8], tissue[24:], tissue[truth > 0] = 1, 3, 0
        split = "train" if number < 3 else "test"
        write(root / f"images/{split}/Image_1036{number}.tif", image)
        write(root / f"masks/{split}/Image_1036{number}.png", tissue)


def drive(root: Path) -> None:
    """Eight training and two test images, with fields of view."""
    inside = np.zeros((SIDE, SIDE), np.uint8)
    inside[1:-1, 1:-1] = 255
    for number in range(10):
        image, truth = scene(number)
        split, stem = ("training", 21 + number) if number < 8 else ("test", number - 7)
        write(root / f"{split}/images/{stem:02d}_{split}.tif", image)
        write(root / f"{split}/1st_manual/{stem:02d}_manual1.gif", truth)
        write(root / f"{split}/mask/{stem:02d}_{split}_mask.gif", inside)


def cracks(root: Path) -> None:
    """Ten images, one of them without a crack."""
    folder = root / "Dataset_for_semantic_segmentation"
    for number in range(1, 11):
        image, truth = scene(number)
        write(folder / f"Images/image_{number}.jpg", image)
        write(folder / f"Masks/mask_{number}.png", truth * (number != 4))


def drone(root: Path) -> None:
    """Ten images whose masks hold six of the owner's colours, of all five groups."""
    colors = [(70, 70, 70), (28, 42, 168), (0, 102, 0), (255, 22, 96), (128, 64, 128), (102, 102, 156)]
    stripes = np.array(colors, np.uint8)[np.arange(SIDE) * len(colors) // SIDE]
    for number in range(10):
        truth = np.repeat(np.roll(stripes, 3 * number, axis=0)[None], SIDE, axis=0)
        write(root / f"training_set/images/{number:03d}.jpg", truth // 2 + 60)
        write(root / f"training_set/gt/semantic/label_images/{number:03d}.png", truth)


def bus(root: Path) -> None:
    """Ten gray images."""
    for number in range(1, 11):
        image, truth = scene(number)
        write(root / f"BUS/original/{number:06d}.png", image[..., 0])
        write(root / f"BUS/GT/{number:06d}.png", truth)


def nuclei(root: Path) -> None:
    """Ten images with a mask for each half of what they show, and one without."""
    for number in range(11):
        image, truth = scene(number)
        folder = root / f"stage1_{'train' if number < 10 else 'test'}/case{number}"
        write(folder / f"images/case{number}.png", np.dstack([image, np.full((SIDE, SIDE), 255, np.uint8)]))
        if number < 10:
            halves = np.array([truth, truth])
            halves[0, SIDE // 2 :] = halves[1, : SIDE // 2] = 0
            for half, mask in enumerate(halves):
                write(folder / f"masks/nucleus{half}.png", mask)


def isic(root: Path) -> None:
    """Ten images of the challenge's training folder."""
    for number in range(10):
        image, truth = scene(number)
        write(root / f"ISIC2018_Task1-2_Training_Input/ISIC_{number:07d}.jpg", image)
        write(root / f"ISIC2018_Task1_Training_GroundTruth/ISIC_{number:07d}_segmentation.png", truth)


def polyps(root: Path) -> None:
    """Ten frames, each of another sequence of the 29."""
    for number, frame in enumerate((1, 26, 51, 68, 79, 104, 127, 152, 178, 200)):
        image, truth = scene(number)
        write(root / f"Original/{frame}.tif", image)
        write(root / f"Ground Truth/{frame}.tif", truth)


def brains(root: Path) -> None:
    """Ten slices of ten patients, as MATLAB 7.3 writes structs."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 11):
        image, truth = scene(number)
        path = root / f"{number}.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            group = file.create_group("cjdata")
            group["image"] = image[..., 0].astype(np.int16).T
            group["tumorMask"] = (truth // 255).T
            group["PID"] = np.array([[ord(letter)] for letter in f"1003{number:02d}"], np.uint16)
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116))


WRITERS: dict[str, Callable[[Path], None]] = {
    "bombr": bombr,
    "drive": drive,
    "narrow-cracks": cracks,
    "semantic-drone": drone,
    "bus2017": bus,
    "dsb2018": nuclei,
    "isic": isic,
    "cvc-clinicdb": polyps,
    "figshare-brain": brains,
}
"""Layout → what writes its miniature."""
