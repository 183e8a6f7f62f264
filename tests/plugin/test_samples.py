"""Sample data."""

import subprocess
import sys

import numpy as np

from engine.data.demo import demo_pair
from napari_smm.annotation import Pair
from napari_smm.samples import IMAGES, demo


def test_images_and_their_truth_are_those_of_the_embedded_set() -> None:
    from napari.layers import Image, Labels, Layer

    image, labels = (Layer.create(*data) for data in demo())
    assert isinstance(image, Image)
    assert isinstance(labels, Labels)
    assert (image.name, labels.name) == ("demo", "demo truth")
    for number in (0, IMAGES - 1):
        picture, truth = demo_pair(number)
        np.testing.assert_array_equal(image.data[number], picture)
        np.testing.assert_array_equal(labels.data[number], truth)
    assert Pair.of_layers(image, labels).shape == (IMAGES, 128, 128)


def test_samples_load_without_torch() -> None:
    code = "import sys; from napari_smm.samples import demo; demo(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
