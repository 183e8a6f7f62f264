"""Settings of the networks. One class here and one function or module in this room make a new network."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Field

from engine.errors import InputError
from engine.spec import Part, setting


class Network(Part):
    """Settings of a network. Its target is called with the channels of the image and of the logits."""

    def located(self) -> Self:
        """The same with absolute paths, so that the settings hold from any folder."""
        return self

    def from_scratch(self) -> Self:
        """The same without a file of starting weights, for weights that are loaded over it."""
        return self

    def settings(self) -> dict[str, object]:
        """Keyword arguments for the target, whose own default stands for dimensions that are not given."""
        return {key: value for key, value in super().settings().items() if (key, value) != (DIMS, None)}

    def of_dims(self, dims: int) -> Self:
        """The same for images of 2 or 3 dimensions.

        Raises:
            InputError: the settings say another number, or the network cannot.
        """
        given = getattr(self, DIMS, dims) or dims
        if given != dims:
            # A planar network has no other number to set.
            way = f"leave it out, or use model.spatial_dims {dims}"
            if dims not in able(type(self)):
                way = f"model.name {', '.join(_names(dims))} would work"
            raise InputError(
                f"model.spatial_dims is {given}, but the images of a run have {dims} dimensions: {way}."
            )
        return self.model_copy(update={DIMS: dims}) if hasattr(self, DIMS) else self


DIMS = "spatial_dims"


def able(part: type[Network]) -> frozenset[int]:
    """Numbers of dimensions in which a network works."""
    kind = part.model_fields[DIMS].annotation
    values = {value for each in (kind, *get_args(kind)) for value in get_args(each)}
    return frozenset(value for value in values if isinstance(value, int))


def _names(dims: int) -> list[str]:
    """The networks that work in so many dimensions."""
    networks = get_args(get_args(Model)[0])
    return [part.model_fields["name"].default for part in networks if dims in able(part)]


def _planar(value: object) -> object:
    """Refuse 3 with the networks that would work."""
    if value == 3:
        raise ValueError(f"this network works in 2 dimensions only; in 3, {', '.join(_names(3))} do")
    return value


class PlanarNetwork(Network):
    """Settings of a network for 2 dimensions only, whose target takes no number of dimensions."""

    def settings(self) -> dict[str, object]:
        """Keyword arguments for the target."""
        return {key: value for key, value in super().settings().items() if key != DIMS}


Planar = Annotated[Literal[2], BeforeValidator(_planar)]


class UNet(Network):
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
    initialization: Literal["default", "xavier"] = setting("default", advanced=True)
    """Random weights to start from: torch's own, or Xavier's uniform ones with biases of 0, from which
    the DSC++ paper starts."""
    spatial_dims: Literal[2, 3] | None = setting(None, advanced=True)
    """Dimensions of the images; without it those that they have."""


class SegNet(PlanarNetwork):
    """SegNet: the 13 convolutions of VGG-16 with batch norm, unpooled to where the maxima were (SMM paper,
    appendix C)."""

    target: ClassVar[str] = "engine.models.segnet:SegNet"
    name: Literal["segnet"] = "segnet"
    base_width: int = setting(64, ge=1, le=512, unit="channels")
    """Channels after the first stage; the last two stages have eight times as many. 64 is VGG-16's."""
    spatial_dims: Planar = setting(2, advanced=True)
    """Dimensions of the images; this network takes no others."""


class SemanticFPN(PlanarNetwork):
    """Semantic FPN: a feature pyramid on ResNet-50, joined at a quarter of the resolution (comparison of
    U-Net and ResNet+FPN, section 6)."""

    target: ClassVar[str] = "engine.models.semantic_fpn:SemanticFPN"
    name: Literal["semantic_fpn"] = "semantic_fpn"
    weights: str | None = None
    """File of ImageNet weights that the ResNet-50 starts from, such as torchvision's resnet50-….pth; it is
    read once, at the start. Goes with data.normalization imagenet. For images of one channel, the
    first convolution's weights are summed over red, green and blue."""
    head: Literal["fusion", "two_convs"] = "fusion"
    """What joins the pyramid's levels: a 1×1 convolution with batch norm, or two 3×3 convolutions without."""
    dropout: float = setting(0.1, ge=0, lt=1)
    """Share of channels dropped before the last convolution while training."""
    base_width: int = setting(64, ge=1, le=512, unit="channels", advanced=True)
    """Channels of the trunk's stem; its last stage has 32 times as many. 64 is ResNet-50's, for which
    weights are."""
    pyramid_width: int = setting(256, ge=1, le=1024, unit="channels", advanced=True)
    """Channels of each level of the pyramid, and of the head."""
    spatial_dims: Planar = setting(2, advanced=True)
    """Dimensions of the images; this network takes no others."""

    def located(self) -> Self:
        """The same with an absolute path of the weights."""
        if self.weights is None:
            return self
        return self.model_copy(update={"weights": str(Path(self.weights).expanduser().resolve())})

    def from_scratch(self) -> Self:
        """The same without a file of weights."""
        return self.model_copy(update={"weights": None})


class AttentionUNet(Network):
    """Attention U-Net: skip connections weighted by attention gates (Oktay et al. 2018), from MONAI."""

    target: ClassVar[str] = "engine.models.external:attention_unet"
    name: Literal["attention_unet"] = "attention_unet"
    base_width: int = setting(32, ge=2, le=512, unit="channels")
    """Channels after the first stage; each stage below has twice as many."""
    depth: int = setting(4, ge=1, le=7, unit="stages")
    """Encoder stages, each halving the resolution, and as many decoder stages."""
    dropout: float = setting(0.0, ge=0, lt=1)
    """Share of values dropped after each convolution while training."""
    spatial_dims: Literal[2, 3] | None = setting(None, advanced=True)
    """Dimensions of the images; without it those that they have."""


class UNetPlusPlus(Network):
    """U-Net++: nested, dense skip connections over five resolutions (Zhou et al. 2018), from MONAI."""

    target: ClassVar[str] = "engine.models.external:unet_plus_plus"
    name: Literal["unet_plus_plus"] = "unet_plus_plus"
    base_width: int = setting(32, ge=1, le=512, unit="channels")
    """Channels at the first resolution; each below has twice as many. 32 is the paper's."""
    norm: Literal["batch", "instance"] = "batch"
    """Normalisation after each convolution."""
    dropout: float = setting(0.0, ge=0, lt=1)
    """Share of values dropped after each convolution while training."""
    spatial_dims: Literal[2, 3] | None = setting(None, advanced=True)
    """Dimensions of the images; without it those that they have."""


class SegResNet(Network):
    """SegResNet: residual blocks with group norm and a light decoder (Myronenko 2018), from MONAI."""

    target: ClassVar[str] = "engine.models.external:segresnet"
    name: Literal["segresnet"] = "segresnet"
    base_width: int = setting(32, ge=1, le=512, unit="channels")
    """Channels at the first resolution; each below has twice as many. 32 is the paper's; of others, multiples
    of 8 are normalised in 8 groups as well."""
    depth: int = setting(3, ge=1, le=7, unit="stages")
    """How often the encoder halves the resolution. 3 is the paper's."""
    dropout: float = setting(0.0, ge=0, lt=1)
    """Share of values dropped after the first convolution while training."""
    spatial_dims: Literal[2, 3] | None = setting(None, advanced=True)
    """Dimensions of the images; without it those that they have."""


class SwinUNETR(Network):
    """Swin UNETR: a Swin transformer with a convolutional decoder (Hatamizadeh et al. 2021), from MONAI."""

    target: ClassVar[str] = "engine.models.external:swin_unetr"
    name: Literal["swin_unetr"] = "swin_unetr"
    base_width: Literal[12, 24, 36, 48, 60, 72, 84, 96] = 24
    """Channels at the first resolution; each below has twice as many. 48 is the paper's."""
    window: int = setting(7, ge=2, le=32, unit="patches", advanced=True)
    """Side of the windows within which patches attend to each other; a patch is 2 pixels wide at first."""
    dropout: float = setting(0.0, ge=0, lt=1)
    """Share of values dropped in each transformer block while training."""
    attention_dropout: float = setting(0.0, ge=0, lt=1, advanced=True)
    """Share of attention weights dropped while training."""
    path_dropout: float = setting(0.0, ge=0, lt=1, advanced=True)
    """Probability that the deepest transformer block is left out for an image while training; shallower ones
    are left out less often, in proportion."""
    spatial_dims: Literal[2, 3] | None = setting(None, advanced=True)
    """Dimensions of the images; without it those that they have."""


Model = Annotated[
    UNet | SegNet | SemanticFPN | AttentionUNet | UNetPlusPlus | SegResNet | SwinUNETR,
    Field(discriminator="name"),
]
"""Registry of networks."""
