"""Tiny files in the real formats, written by other libraries' writers, and other people's folders."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write an array to a path below the test's folder, in the format of its ending."""

    def write(name: str, array: np.ndarray) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, array)
        elif path.suffix in (".tif", ".tiff"):
            photometric = "rgb" if array.ndim == 3 and array.shape[-1] in (3, 4) else "minisblack"
            tifffile.imwrite(path, array, photometric=photometric)
        else:
            Image.fromarray(array).save(path)
        return path

    return write


@pytest.fixture
def put_mat73(tmp_path: Path) -> Callable[..., Path]:
    """Write a struct as MATLAB 7.3 does: HDF5 behind a header, axes in reverse, text as uint16."""

    def write(name: str, struct: str, fields: dict[str, np.ndarray | str]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w", userblock_size=512) as file:
            group = file.create_group(struct)
            group.attrs["MATLAB_class"] = np.bytes_("struct")
            for field, value in fields.items():
                if isinstance(value, str):
                    codes = np.array([[ord(letter)] for letter in value], np.uint16)
                    group.create_dataset(field, data=codes).attrs["MATLAB_class"] = np.bytes_("char")
                else:
                    group.create_dataset(field, data=np.asarray(value).T)
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116))
        return path

    return write


@pytest.fixture
def put_ground_truth(tmp_path: Path) -> Callable[..., Path]:
    """Write a MATLAB 5 file with the struct ``groundTruth``, as CrackForest has it."""

    def write(name: str, segmentation: np.ndarray) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        edges = np.zeros_like(segmentation)
        scipy.io.savemat(path, {"groundTruth": {"Segmentation": segmentation, "Boundaries": edges}})
        return path

    return write
