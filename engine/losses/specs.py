"""Settings of the losses. One class here and one function in this room make a new loss."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from engine.head import Head
from engine.spec import Part, setting

Guide = Literal["tube", "distance"]
"""A map of the original truth that a loss may need, an attribute of :class:`engine.losses.guides.Guides`."""

Needs = Literal["probability", "logits", "channels", "labels", Guide]

Weight = float | Callable[[int], float]
"""Of a term: constant, or a function of the epoch 1…E."""


class LossPart(Part):
    """One term of an objective.

    ``needs`` says what the target is called with: foreground probabilities and masks
    ("probability"), logits that score each class on its own and masks ("logits"), logits of
    either head and masks ("channels"), logits and a label map, which only exclusive classes
    have ("labels"), or foreground probabilities and a map of the original truth (its name).
    """

    needs: ClassVar[Needs]

    def terms(self, head: Head) -> tuple[tuple[Weight, "LossPart"], ...]:
        """The weighted terms that the objective adds up under this head."""
        return ((1.0, self),)

    def guides(self, head: Head) -> frozenset[Guide]:
        """The maps of the original truth that the terms need under this head."""
        needs = {term.needs for _, term in self.terms(head)}
        return frozenset(guide for guide in get_args(Guide) if guide in needs)


class Dice(LossPart):
    """Soft Dice loss per class, 1 - 2TP / (2TP + FP + FN)."""

    target = "engine.losses.overlap:dice"
    needs = "probability"
    name: Literal["dice"] = "dice"
    smooth: float = setting(1e-5, ge=0, advanced=True)
    """Added to numerator and denominator, so that an absent class predicted absent costs 0."""


class DSCPlusPlus(LossPart):
    """DSC++ loss per class: Dice whose errors are raised to γ, so that overconfident ones cost more."""

    target = "engine.losses.overlap:dsc_plus_plus"
    needs = "probability"
    name: Literal["dsc_plus_plus"] = "dsc_plus_plus"
    gamma: float = setting(2.0, gt=0)
    """γ: exponent of each pixel's error. 1 is the Dice loss."""
    smooth: float = setting(1e-5, ge=0, advanced=True)
    """Added to numerator and denominator, so that an absent class predicted absent costs 0."""


class CrossEntropy(LossPart):
    """Cross-entropy over background and classes (binary for one class). Exclusive classes only."""

    target = "engine.losses.pixelwise:cross_entropy"
    needs = "labels"
    name: Literal["cross_entropy"] = "cross_entropy"


class BinaryCrossEntropy(LossPart):
    """Classwise binary cross-entropy: each class against all else, so classes may overlap."""

    target = "engine.losses.pixelwise:binary_cross_entropy"
    needs = "logits"
    name: Literal["binary_cross_entropy"] = "binary_cross_entropy"


class ElevatedSensitivity(LossPart):
    """Elevated Sensitivity Loss (ESL) of SMM v1, from -1 to 0: rewards found foreground."""

    target = "engine.losses.sensitivity:elevated_sensitivity"
    needs = "probability"
    name: Literal["elevated_sensitivity"] = "elevated_sensitivity"


class Sum(LossPart):
    """A weighted sum of two losses; it has no function of its own."""


class DiceCrossEntropy(Sum):
    """Dice plus categorical cross-entropy: the plain training of the SMM paper. Exclusive classes only."""

    needs = "labels"
    name: Literal["dice_ce"] = "dice_ce"
    dice_weight: float = setting(1.0, ge=0)
    """Weight of the Dice term."""
    ce_weight: float = setting(1.0, ge=0)
    """Weight of the cross-entropy term."""

    def terms(self, head: Head) -> tuple[tuple[Weight, LossPart], ...]:
        return ((self.dice_weight, Dice()), (self.ce_weight, CrossEntropy()))


class DiceBinaryCrossEntropy(Sum):
    """Dice plus classwise binary cross-entropy: the loss of SMM v2, whose grown classes overlap."""

    needs = "logits"
    name: Literal["dice_bce"] = "dice_bce"
    dice_weight: float = setting(1.0, ge=0)
    """Weight of the Dice term."""
    bce_weight: float = setting(1.0, ge=0)
    """Weight of the binary cross-entropy term."""

    def terms(self, head: Head) -> tuple[tuple[Weight, LossPart], ...]:
        return ((self.dice_weight, Dice()), (self.bce_weight, BinaryCrossEntropy()))


Loss = Annotated[
    Dice
    | DSCPlusPlus
    | CrossEntropy
    | BinaryCrossEntropy
    | ElevatedSensitivity
    | DiceCrossEntropy
    | DiceBinaryCrossEntropy,
    Field(discriminator="name"),
]
"""Registry of losses."""
