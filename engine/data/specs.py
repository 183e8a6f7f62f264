"""Settings of the data and of its augmentation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator, model_validator

from engine.errors import InputError
from engine.spec import Spec, setting


def _lengths(value: Any) -> Any:
    """256 and "256" mean (256, 256); "256,320" and "256x320" height, width; three depth, height, width."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.lower().replace("x", ",").split(",")]
        value = [int(part) for part in parts] if all(map(str.isdigit, parts)) else value
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return (value, value) if isinstance(value, int) else value


def _spacings(value: Any) -> Any:
    """ "1, 0.5, 0.5" means three numbers."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Length = Annotated[int, setting(..., ge=1, le=65536)]
Size = Annotated[tuple[Length, ...], setting(..., min_length=2, max_length=3), BeforeValidator(_lengths)]
Step = Annotated[float, setting(..., gt=0)]
Spacing = Annotated[tuple[Step, ...], setting(..., min_length=2, max_length=3), BeforeValidator(_spacings)]
Interval = tuple[float, float]
Share = Annotated[float, setting(..., ge=0, le=1)]


PATCHES = {2: (256, 256), 3: (96, 96, 96)}
"""Crops of images and of volumes where `data.patch` says nothing."""


class Data(Spec):
    """Where images and masks are, what the mask values mean, and how they are cut and normalised."""

    root: str = ""
    """Folder of the images and masks, or `demo` for the embedded, generated set."""
    layout: str = "auto"
    """How the folder is laid out: a layout's name, `auto` to recognise it, or `patterns` to use
    `images` and `masks` below. `python -m engine.train --layouts` lists them."""
    images: str | None = None
    """Pattern of the images below root, such as `raw/{id}.tif` (layout `patterns`); several with `;` between
    them, such as `flair/{id}.{ext}; t1/{id}.{ext}`, are a channel each."""
    masks: str | None = None
    """Pattern of the masks, with the same `{id}`, such as `labels/{id}_mask.png`."""
    valid: str | None = setting(None, advanced=True)
    """Pattern of field-of-view masks: nothing outside them counts anywhere."""
    group: str | None = setting(None, advanced=True)
    """Regular expression with one group, searched in each image's path below root: images for which
    it gives the same text (patient, eye, sequence) stay in the same split."""
    classes: dict[str, list[int | str]] | None = None
    """Class name → mask values or colours (`#rrggbb`) that mean it, such as
    `{nucleus = [1, 2], debris = ["#ff0000"]}`. Without it: 0/1 and 0/255 are one class, 0…K are K."""
    rest: Literal["refuse", "background", "ignore"] = setting("refuse", advanced=True)
    """Mask values that no class and not 0 (black) names: refuse to train, take as background, or
    leave those pixels out of everything."""
    size: Size | None = setting(None, unit="px")
    """Resize every image to height, width (volumes to depth, height, width). Without it images keep
    their native size."""
    spacing: Spacing | None = setting(None, unit="mm", advanced=True)
    """Resample every volume to voxels of this depth, height, width, by the spacing that its file gives.
    Without it voxels stay as they are."""
    patch: Size | None = setting(None, unit="px")
    """Height, width (of volumes depth, height, width) of the crops that training takes from images at
    native size; height and width multiples of 8. Without it 256, 256, and 96, 96, 96 for volumes."""
    patches_per_image: int | None = setting(None, ge=1, advanced=True)
    """Crops from an image in an epoch at the most; without it as many as fit side by side."""
    foreground: Share = setting(0.33, advanced=True)
    """Where `patches_per_image` leaves crops out: the share of those taken that shall hold a class, if
    there are as many. The others are taken from all."""
    axes: str | None = setting(None, advanced=True)
    """Axes of the files that do not name theirs (NPY, zarr, plain TIFF), a letter each: `zyx` is a volume,
    `yxc` and `cyx` an image with channels behind or before. Without it an axis of up to 16 is channels."""
    color: Literal["auto", "gray", "rgb"] = setting("auto", advanced=True)
    """Channels that the network sees; `auto` is RGB if any image has colour."""
    normalization: Literal["zscore", "unit", "percentile", "imagenet"] = "zscore"
    """Intensities of each channel, by the whole image: mean 0 and deviation 1; range to 0…1; 1st to 99th
    percentile to 0…1, clipped; or ImageNet's constants (RGB)."""
    split: tuple[Share, Share, Share, Share] = (0.6, 0.15, 0.1, 0.15)
    """Shares of train, val, calib and test, by group. A test split that the layout has is kept.
    Under 10 images all are train."""
    split_seed: int = setting(0, ge=0, advanced=True)
    """Seed of the split, apart from training's, so that several seeds share one split."""
    cache: Literal["auto", "device", "memory", "disk", "none"] = setting("auto", advanced=True)
    """Where decoded images are kept: on the training device, in memory, or in a memory-mapped file
    of the run directory; `auto` takes the first that has room. `none` keeps none: each crop is read from
    its file (zarr, OME-Zarr, tiled TIFF), as `auto` does where such files are too large for memory."""

    follow: bool = False
    """Take up masks that are saved while training goes on, at the next epoch: new ones, and corrected ones of
    train and val. The run keeps what it took up when, so that it can be repeated."""
    replay: str | None = setting(None, advanced=True)
    """Run directory of a run with `follow`: take up what that one took up, at the same epochs, to the same
    result."""

    def window(self, dims: int = 2) -> tuple[int, ...]:
        """What a training step sees of an image, (H, W) or (D, H, W): all of it if resized, else a crop.

        Args:
            dims: spatial axes of the images, 2 or 3.

        Raises:
            InputError: lengths for another number of axes.
        """
        self.require_dims(dims)
        if self.size is not None:
            return (*self.size[:-1], -(-self.size[-1] // 8) * 8)
        return self.patch if self.patch is not None else PATCHES[dims]

    def require_dims(self, dims: int, names: Sequence[str] = ("size", "spacing", "patch")) -> None:
        """Raise InputError if a setting has another number of lengths than images have axes."""
        for name in names:
            given = getattr(self, name)
            if given is not None and len(given) != dims:
                kind, axes = ("images", "height, width") if dims == 2 else ("volumes", "depth, height, width")
                raise InputError(
                    f"data.{name} has {len(given)} numbers, {', '.join(map(str, given))}, but these are "
                    f"{kind}: {dims} are needed ({axes})."
                )

    def located(self) -> "Data":
        """The same with an absolute root, so that the settings hold from any folder."""
        own = {"root": self.root} if self.root not in ("", "demo") else {}
        own |= {"replay": self.replay} if self.replay else {}
        return self.model_copy(
            update={name: str(Path(path).expanduser().resolve()) for name, path in own.items()}
        )

    @property
    def grows(self) -> bool:
        """Whether masks are taken up while training goes on."""
        return self.follow or self.replay is not None

    @field_validator("replay")
    @classmethod
    def _none_if_empty(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("patch")
    @classmethod
    def _bytes(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and any(length % 8 for length in value[-2:]):
            near = ", ".join(map(str, (*value[:-2], *(-(-length // 8) * 8 for length in value[-2:]))))
            raise ValueError(f"multiples of 8 are needed, as {near} would be")
        return value

    @field_validator("size")
    @classmethod
    def _long_enough(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and min(value[-2:]) < 8:
            raise ValueError("height and width of 8 or more are needed")
        return value

    @field_validator("axes")
    @classmethod
    def _letters(cls, value: str | None) -> str | None:
        known = ("yx", "yxc", "cyx", "zyx", "zyxc", "czyx", "zcyx")
        if value is not None and value not in known:
            raise ValueError(f"one of {', '.join(known)} is needed")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> "Data":
        if self.size is not None and self.spacing is not None:
            raise ValueError("size and spacing both say how images are resized: only one of them is needed")
        return self

    @field_validator("split")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if abs(sum(value) - 1) > 1e-6 or value[0] <= 0:
            raise ValueError("four shares that add up to 1, the first above 0, are needed")
        return value


class Augment(Spec):
    """Random changes of each training image, drawn anew in every epoch, on the device."""

    flip: Share = 0.5
    """Probability of a mirror image, for each axis."""
    quarter_turn: Share = 0.5
    """Probability of a turn by 90°, 180° or 270° (of 180° where the crop is not square). Volumes are turned,
    rotated, zoomed and deformed in the plane of height and width, all slices alike."""
    probability: Share = 0.15
    """Probability of each change below, where it is switched on."""
    rotation: float = setting(0.0, ge=0, le=180, unit="°")
    """Largest angle of a free rotation, either way; 0 is off."""
    scale: Interval = (1.0, 1.0)
    """Smallest and largest zoom; 1, 1 is off."""
    elastic_alpha: Interval = setting((0.0, 0.0), advanced=True, unit="px")
    """Smallest and largest strength of an elastic deformation; 0, 0 is off."""
    elastic_sigma: Interval = setting((9.0, 13.0), advanced=True, unit="px")
    """Smallest and largest smoothness of the elastic deformation."""
    brightness: Interval = (1.0, 1.0)
    """Smallest and largest factor on the raw intensities; 1, 1 is off."""
    contrast: Interval = (1.0, 1.0)
    """Smallest and largest factor on the distance from the image's mean; 1, 1 is off."""

    @property
    def resamples(self) -> bool:
        """Whether pixels fall between pixels, so that the change cannot be undone exactly."""
        changed = self.rotation > 0 or self.scale != (1, 1) or self.elastic_alpha != (0, 0)
        return self.probability > 0 and changed

    @model_validator(mode="after")
    def _ordered(self) -> "Augment":
        lows = {"scale": 0.01, "elastic_alpha": 0, "elastic_sigma": 0.1, "brightness": 0, "contrast": 0}
        for field, low in lows.items():
            first, last = getattr(self, field)
            if not low <= first <= last:
                raise ValueError(
                    f"{field} needs two numbers, smallest first, from {low} up, not {first}, {last}"
                )
        return self
