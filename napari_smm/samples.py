"""Sample data: images of the embedded, generated set as layers. No Qt."""

from typing import Any

import numpy as np

IMAGES = 24
"""Images of the sample: enough to train on, and drawn in about a second."""


def demo() -> list[tuple[Any, dict[str, Any], str]]:
    """Images uint8 (N, 128, 128) as the layer `demo`, and their truth 0 or 1 as the labels `demo truth`."""
    # Scipy, which draws the images, takes half a second to load.
    from engine.data.demo import demo_pair

    images, masks = zip(*(demo_pair(number) for number in range(IMAGES)), strict=True)
    return [
        (np.stack(images), {"name": "demo", "colormap": "gray"}, "image"),
        (np.stack(masks).astype(np.uint8), {"name": "demo truth", "opacity": 0.5}, "labels"),
    ]
