"""Settings of the networks."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from engine.spec import Part, setting


class UNet(Part):
    """U-Net with double 3×3 convolutions and transposed-convolution upsampling (SMM paper, 5.2)."""

    target: ClassVar[str] = "engine.models.unet:UNet"
    name: Literal["unet"] = "unet"
    base_width: int = setting(32, ge=1, le=512, unit="channels")
    """Channels after the first stage; each stage below has twice as many. 64 is the paper's."""
    depth: int = setting(4, ge=1, le=7, unit="stages")
    """Encoder stages, each halving the resolution, and as many decoder stages."""
    norm: Literal["batch", "instance", "none"] = "batch"
    """Normalisation after each convolution."""
    dropout: float = setting(0.0, ge=0, lt=1)
    """Share of channels dropped after each double convolution while training."""


Model = Annotated[UNet, Field()]
"""Registry of networks."""
