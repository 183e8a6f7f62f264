"""Small volumes on disk, of unequal sides and anisotropic voxels, for the tests of everything in 3D."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from support import fast

SHAPE = (16, 20, 24)
"""D, H, W of a made volume."""
SPACING = (2.0, 1.0, 0.5)
"""mm along z, y, x."""


def volume_settings(*settings: str) -> list[str]:
    """Settings that train a U-Net of two stages on volumes in seconds; those given go first."""
    given = {setting.partition("=")[0] for setting in settings}
    own = ("--data.patch=[16,16,16]", "--training.batch_size=2", "--training.epochs=2")
    return fast(*(flag for flag in own if flag.partition("=")[0] not in given), *settings)


def blobs(
    number: int, shape: tuple[int, ...] = SHAPE, classes: int = 2, channels: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A noisy volume with a brighter ellipsoid of each class, and its labels.

    Returns:
        image float32 (D, H, W), or (D, H, W, channels) if there are several, in which class c is bright in
        channel (c − 1) mod channels; labels uint8 (D, H, W), 0 … classes.
    """
    rng = np.random.default_rng(1000 + number)
    labels = np.zeros(shape, np.uint8)
    grid = np.indices(shape)
    for label in range(1, classes + 1):
        middle = [rng.uniform(0.35, 0.65) * length for length in shape]
        middle[2] = (label - rng.uniform(0.4, 0.6)) / classes * shape[2]  # side by side along x
        radii = [max(2.0, rng.uniform(0.15, 0.3) * length) for length in shape]
        inside = sum(
            ((axis - centre) / radius) ** 2 for axis, centre, radius in zip(grid, middle, radii, strict=True)
        )
        labels[inside <= 1] = label
    image = rng.normal(100, 15, (*shape, channels))
    for label in range(1, classes + 1):
        image[..., (label - 1) % channels][labels == label] += 80.0 + 40.0 * label
    image = image.astype(np.float32)
    return (image if channels > 1 else image[..., 0]), labels


def affine(spacing: tuple[float, float, float] = SPACING, turn: float = 10.0) -> NDArray[np.float64]:
    """A NIfTI affine, index (x, y, z, 1) → mm in RAS+, for a spacing in the order z, y, x.

    It points x to the left, turns about z by so many degrees, and does not begin at 0.
    """
    z, y, x = spacing
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    made = np.eye(4)
    made[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-x, y, z])
    made[:3, 3] = (31.5, -20.25, 7.0)
    return made


def write_nifti(
    path: Path, array: NDArray[np.generic], spacing: tuple[float, float, float] = SPACING, turn: float = 10.0
) -> None:
    """Write (D, H, W) or (D, H, W, channels) as NIfTI, with :func:`affine` as sform (1) and qform (2)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.moveaxis(array, (0, 1, 2), (2, 1, 0)), affine(spacing, turn))
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 2)
    nib.save(image, path)


def write_volumes(
    root: Path, count: int = 10, shape: tuple[int, ...] = SHAPE, classes: int = 2, channels: int = 1,
    spacing: tuple[float, float, float] = SPACING,
) -> Path:  # fmt: skip
    """Write a data set: images/bNN.nii.gz and masks/bNN.nii.gz; of several channels in nnU-Net's folders,
    imagesTr/bNN_0000.nii.gz … and labelsTr/bNN.nii.gz. Fewer than 10 are not split. Returns the root."""
    for number in range(count):
        image, labels = blobs(number, shape, classes, channels)
        name = f"b{number:02d}"
        if channels == 1:
            write_nifti(root / "images" / f"{name}.nii.gz", image, spacing)
            write_nifti(root / "masks" / f"{name}.nii.gz", labels, spacing)
            continue
        for channel in range(channels):
            path = root / "imagesTr" / f"{name}_{channel:04d}.nii.gz"
            write_nifti(path, np.ascontiguousarray(image[..., channel]), spacing)
        write_nifti(root / "labelsTr" / f"{name}.nii.gz", labels, spacing)
    if channels > 1:
        named = {"background": 0, **{f"blob_{label}": label for label in range(1, classes + 1)}}
        content = {
            "channel_names": {str(channel): f"channel {channel}" for channel in range(channels)},
            "labels": named, "numTraining": count, "file_ending": ".nii.gz",
        }  # fmt: skip
        (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return root
