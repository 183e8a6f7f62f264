"""Settings of the data and of its augmentation."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator, model_validator

from engine.spec import Spec, setting


def _pair(value: Any) -> Any:
    """256 and "256" mean (256, 256); "256,320" and "256x320" mean height, width."""
    if isinstance(value, str):
        parts = value.lower().replace("x", ",").split(",")
        value = [int(part) for part in parts] if all(p.strip().isdigit() for p in parts) else value
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return (value, value) if isinstance(value, int) else value


Length = Annotated[int, setting(..., ge=8, le=65536)]
Size = Annotated[tuple[Length, Length], BeforeValidator(_pair)]
Interval = tuple[float, float]
Share = Annotated[float, setting(..., ge=0, le=1)]


class Data(Spec):
    """Where images and masks are, what the mask values mean, and how they are cut and normalised."""

    root: str = ""
    """Folder of the images and masks, or `demo` for the embedded, generated set."""
    layout: str = "auto"
    """How the folder is laid out: a layout's name, `auto` to recognise it, or `patterns` to use
    `images` and `masks` below. `python -m engine.train --layouts` lists them."""
    images: str | None = None
    """Pattern of the images below root, such as `raw/{id}.tif` (layout `patterns`)."""
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
    size: Size | None = None
    """Resize every image to height, width. Without it images keep their native size."""
    patch: Size = setting((256, 256), unit="px")
    """Height, width of the crops that training takes from images at native size; multiples of 8."""
    patches_per_image: int | None = setting(None, ge=1, advanced=True)
    """Crops from an image in an epoch at the most; without it as many as fit side by side."""
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
    cache: Literal["auto", "device", "memory", "disk"] = setting("auto", advanced=True)
    """Where decoded images are kept: on the training device, in memory, or in a memory-mapped file
    of the run directory; `auto` takes the first that has room."""

    @property
    def window(self) -> tuple[int, int]:
        """Height, width of what a training step sees of an image: all of it if resized, else a crop."""
        if self.size is None:
            return self.patch
        return self.size[0], -(-self.size[1] // 8) * 8

    def located(self) -> "Data":
        """The same with an absolute root, so that the settings hold from any folder."""
        if self.root in ("", "demo"):
            return self
        return self.model_copy(update={"root": str(Path(self.root).expanduser().resolve())})

    @field_validator("patch")
    @classmethod
    def _bytes(cls, value: tuple[int, int]) -> tuple[int, int]:
        if any(length % 8 for length in value):
            near = tuple(-(-length // 8) * 8 for length in value)
            raise ValueError(f"multiples of 8 are needed, as {near[0]}, {near[1]} would be")
        return value

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
    """Probability of a turn by 90°, 180° or 270° (of 180° where the crop is not square)."""
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
