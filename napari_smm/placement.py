"""Where the images of a data set lay in the viewer, so that what a run makes of them is laid there again.

`placement.json` stands in the data set's folder beside `images` and `masks`. It holds each image layer's
transform once, and for each case the layer and the plane in it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.stacks import length_unit
from engine.disk import replace_text
from engine.errors import InputError

FORMAT = 1
"""Version of placement.json."""
FILE = "placement.json"
EPOCH = "epoch"
"""Label of the axis that derived layers have in front."""
EPOCH_UNIT = "pixel"
"""Its unit: napari's own for what has none. napari drops the scale bar's unit as soon as two layers have
units of different kinds on one axis."""
MILLIMETRE = "millimeter"
"""As napari's units are called."""

DEPTH = ("z", "depth")
"""Labels of an axis of depth."""

Row = tuple[float, ...]


@dataclass(frozen=True)
class Transform:
    """A layer's way from data to world, in napari's parts: affine ∘ (translate · rotate · shear · scale).

    Attributes:
        scale, translate: (D,) in units of the world.
        rotate, shear: (D, D).
        affine: (D + 1, D + 1), homogeneous.
        units: D names of units, such as "micrometer".
        axis_labels: D texts.
    """

    scale: Row
    translate: Row
    rotate: tuple[Row, ...]
    shear: tuple[Row, ...]
    affine: tuple[Row, ...]
    units: tuple[str, ...]
    axis_labels: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise ValueError for parts that do not fit together or are not finite."""
        d = len(self.scale)
        shapes = {
            "translate": (d,), "rotate": (d, d), "shear": (d, d), "affine": (d + 1, d + 1), "scale": (d,)
        }  # fmt: skip
        for name, shape in shapes.items():
            part = np.asarray(getattr(self, name), dtype=np.float64)
            if part.shape != shape or not np.isfinite(part).all():
                raise ValueError(f"{name} is not {' × '.join(map(str, shape))} finite numbers")
        if len(self.units) != d or len(self.axis_labels) != d:
            raise ValueError(f"units and axis labels are not {d} each")

    @property
    def ndim(self) -> int:
        """Number of axes D, without RGB's."""
        return len(self.scale)

    @property
    def linear(self) -> NDArray[np.float64]:
        """(D, D): rotate · shear · scale."""
        return np.asarray(np.asarray(self.rotate) @ np.asarray(self.shear) @ np.diag(self.scale))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(D + 1, D + 1), homogeneous: all of the way from data to world."""
        inner = np.eye(self.ndim + 1)
        inner[:-1, :-1] = self.linear
        inner[:-1, -1] = self.translate
        return np.asarray(np.asarray(self.affine) @ inner)

    @classmethod
    def identity(cls, ndim: int) -> "Transform":
        """The transform of a layer that was given none."""
        eye = _rows(np.eye(ndim))
        labels = tuple(str(axis) for axis in range(-ndim, 0))
        return cls((1.0,) * ndim, (0.0,) * ndim, eye, eye, _rows(np.eye(ndim + 1)), ("pixel",) * ndim, labels)

    @classmethod
    def spaced(cls, spacing: Sequence[float], unit: str = MILLIMETRE) -> "Transform":
        """The transform of an image (H, W) or a volume (D, H, W) whose pixels are so far apart."""
        plain = cls.identity(len(spacing))
        labels = tuple("zyx"[-len(spacing) :])
        scale = tuple(map(float, spacing))
        return replace(plain, scale=scale, units=(unit,) * len(spacing), axis_labels=labels)

    @classmethod
    def of_layer(cls, layer: Any) -> "Transform":
        """The transform of a napari layer."""
        return cls(
            scale=tuple(map(float, layer.scale)),
            translate=tuple(map(float, layer.translate)),
            rotate=_rows(layer.rotate),
            shear=_rows(_shear_matrix(np.asarray(layer.shear, dtype=np.float64), layer.ndim)),
            affine=_rows(np.asarray(layer.affine)),
            units=tuple(map(str, layer.units)),
            axis_labels=tuple(map(str, layer.axis_labels)),
        )


@dataclass(frozen=True)
class Placement:
    """Where one image of a data set lay.

    Attributes:
        layer: name of the image layer.
        plane: index of the 2D plane among the layer's leading axes, empty for a 2D layer; or of a volume,
            empty for a 3D layer.
        shape: of the layer's data at full resolution: (*leading, *S), and a colour axis if it is RGB.
        transform: of the layer.
    """

    layer: str
    plane: tuple[int, ...]
    shape: tuple[int, ...]
    transform: Transform

    def __post_init__(self) -> None:
        """Raise ValueError for a plane or a shape that does not fit the transform."""
        leading = len(self.plane)
        if self.ndim - leading not in (2, 3) or len(self.shape) not in (self.ndim, self.ndim + 1):
            raise ValueError(f"the shape {self.shape} is not that of an image with {self.ndim} axes")
        if any(not 0 <= index < length for index, length in zip(self.plane, self.shape, strict=False)):
            raise ValueError(f"there is no plane {self.plane} in an image of shape {self.shape}")

    @property
    def ndim(self) -> int:
        """Number of the layer's axes, without RGB's."""
        return self.transform.ndim

    def matches(self, image_layer: Any) -> bool:
        """Whether a napari layer has the name and the shape of the one that the image came from."""
        return bool(image_layer.name == self.layer and full_shape(image_layer) == self.shape)


def spacing_of(transform: Transform, dims: int) -> tuple[float, ...] | None:
    """mm between pixels along the last axes of a layer; None where their units are no lengths."""
    units = [length_unit(name) for name in transform.units[-dims:]]
    steps = np.linalg.norm(transform.matrix[:-1, :-1], axis=0)[-dims:]
    found = [float(step) * unit for step, unit in zip(steps, units, strict=True) if unit is not None]
    return tuple(found) if len(found) == dims else None


def is_deep(layer: Any) -> bool:
    """Whether a layer says that the axis before its last two is depth, as those of volumes do."""
    labels = [str(label).strip().lower() for label in layer.axis_labels]
    return len(labels) > 2 and labels[-3] in DEPTH


def full_shape(layer: Any) -> tuple[int, ...] | None:
    """Shape of an image or labels layer's data at full resolution; None for data without a shape."""
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    shape = getattr(data, "shape", None)
    return None if shape is None else tuple(map(int, shape))


def derived_transform(
    source: Any, *, origin: Sequence[float], scale_factor: Sequence[float]
) -> dict[str, Any]:
    """Arguments for a napari layer (epoch, *leading, H, W) that lies on the layer that it was made from.

    The parts stay what they are in the source and only `scale` and `translate` change, so that napari's
    controls, slider steps and scale bar show the same numbers for both layers.

    Args:
        source: a :class:`Placement`, a :class:`Transform` or the napari layer itself, with D axes.
        origin: corner of the derived layer's first pixel, in pixels of the source counted from the corner
            of its first pixel: where a crop begins. At most D numbers, for the last axes; others are 0.
        scale_factor: extents of the derived layer's pixels in pixels of the source, as many as `origin`.
            The centre of its first pixel is thus at the source's data coordinate origin + (factor - 1) / 2.

    Returns:
        scale, translate, rotate, shear, affine, units and axis_labels for D + 1 axes; the epoch's index
        is its world coordinate.
    """
    found = source.transform if isinstance(source, Placement) else source
    way = found if isinstance(found, Transform) else Transform.of_layer(found)
    first, factor = np.zeros(way.ndim), np.ones(way.ndim)
    first[way.ndim - len(origin) :] = origin
    factor[way.ndim - len(scale_factor) :] = scale_factor
    translate = np.asarray(way.translate) + way.linear @ (first + (factor - 1) / 2)
    return {
        "scale": np.array([1.0, *(way.scale * factor)]),
        "translate": np.array([0.0, *translate]),
        "rotate": _behind_epoch(way.rotate),
        "shear": _behind_epoch(way.shear),
        "affine": _behind_epoch(way.affine),
        "units": (EPOCH_UNIT, *way.units),
        "axis_labels": (EPOCH, *way.axis_labels),
    }


def write_placement(folder: Path, placements: Mapping[str, Placement]) -> None:
    """Write `placement.json` into a data set's folder: where each case, by its name, lay."""
    layers: list[dict[str, Any]] = []
    cases = {}
    for case, placement in placements.items():
        layer = {"name": placement.layer, "shape": placement.shape, **asdict(placement.transform)}
        if not layers or layers[-1] != layer:
            layers.append(layer)
        cases[case] = {"layer": len(layers) - 1, "plane": placement.plane}
    content = {"format": FORMAT, "layers": layers, "cases": cases}
    replace_text(folder / FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_placement(folder: Path) -> dict[str, Placement] | None:
    """Where the cases of a data set lay, by their names; None for one that did not come from layers.

    Raises:
        InputError: `placement.json` is broken or of another version.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise InputError(
                f"{path} has format {content['format']}, and this version reads format {FORMAT}: "
                "without it the run's layers are shown at the viewer's origin."
            )
        layers = [_layer(given) for given in content["layers"]]
        return {name: _placement(given, layers) for name, given in content["cases"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except InputError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}): "
            "without it the run's layers are shown at the viewer's origin."
        ) from None


def _layer(given: Mapping[str, Any]) -> tuple[str, tuple[int, ...], Transform]:
    transform = Transform(
        scale=tuple(map(float, given["scale"])),
        translate=tuple(map(float, given["translate"])),
        rotate=_rows(given["rotate"]),
        shear=_rows(given["shear"]),
        affine=_rows(given["affine"]),
        units=tuple(map(str, given["units"])),
        axis_labels=tuple(map(str, given["axis_labels"])),
    )
    return str(given["name"]), tuple(map(int, given["shape"])), transform


def _placement(
    given: Mapping[str, Any], layers: Sequence[tuple[str, tuple[int, ...], Transform]]
) -> Placement:
    name, shape, transform = layers[given["layer"]]
    return Placement(name, tuple(map(int, given["plane"])), shape, transform)


def _rows(matrix: Any) -> tuple[Row, ...]:
    return tuple(tuple(map(float, row)) for row in matrix)


def _shear_matrix(shear: NDArray[np.float64], ndim: int) -> NDArray[np.float64]:
    """napari gives an upper triangular shear as the list of its values above the diagonal."""
    if shear.ndim == 2:
        return shear
    matrix = np.eye(ndim)
    matrix[np.triu_indices(ndim, k=1)] = shear
    return matrix


def _behind_epoch(matrix: Sequence[Row]) -> NDArray[np.float64]:
    """The matrix with an axis in front that it leaves alone."""
    wider = np.eye(len(matrix) + 1)
    wider[1:, 1:] = matrix
    return wider
