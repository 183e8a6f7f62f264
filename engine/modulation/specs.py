"""Settings of the mask modulations."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from engine.spec import Part, setting

Source = Literal["auto", "train", "pass"]


class NoModulation(Part):
    """Plain training on the original masks."""

    target: ClassVar[str] = "engine.modulation.strategies:NoModulation"
    name: Literal["none"] = "none"


class Modulated(Part):
    """What both versions of Supervised Mask Modulation share."""

    warmup: float = setting(0.2, ge=0, le=1, unit="of the epochs")
    """Share of the epochs, rounded up, trained on the original masks before any modulation."""
    radius: int = setting(2, ge=1, le=50, unit="px")
    """Radius of the diamond by which missed foreground is dilated."""
    threshold: float = setting(0.5, ge=0, le=1, advanced=True)
    """A pixel counts as predicted at or above this probability when misses and recall are taken."""
    source: Source = setting("auto", advanced=True)
    """Predictions that misses and recall come from: `train`, those of the training pass itself,
    at no cost, where augmentation can be undone exactly (flips and quarter turns); `pass`, one
    more pass over the training images after each epoch, which adds 20 to 30 % to an epoch;
    `auto`, `train` where it can, else `pass`."""


class SMMv1(Modulated):
    """Supervised Mask Modulation v1, the hard way: an Elevated Sensitivity Loss on masks rebuilt
    from every epoch's misses is added to the loss on the original masks (SMM paper, Alg. 2)."""

    target: ClassVar[str] = "engine.modulation.strategies:SMMv1"
    name: Literal["smm_v1"] = "smm_v1"
    weight: float = setting(1.0, ge=0)
    """Weight of the Elevated Sensitivity Loss."""


class SMMv2(Modulated):
    """Supervised Mask Modulation v2, the soft way: the loss sees masks grown where the model
    misses, rebuilt after epochs whose recall slope β falls below the decaying threshold γ
    (SMM paper, Alg. 3 and 4)."""

    target: ClassVar[str] = "engine.modulation.strategies:SMMv2"
    name: Literal["smm_v2"] = "smm_v2"
    queue: int = setting(15, ge=2, le=1000, unit="epochs")
    """Number of latest recalls to which the slope β is fitted (L in the paper)."""


Modulation = Annotated[NoModulation | SMMv1 | SMMv2, Field(discriminator="name")]
"""Registry of modulations."""
