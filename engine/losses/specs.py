"""Settings of the losses. One class here and one function in this room make a new loss."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from engine.spec import Part, setting

Needs = Literal["probability", "logits", "labels"]


class LossPart(Part):
    """One term of an objective.

    ``needs`` says what the target is called with: foreground probabilities and masks
    ("probability"), logits and masks ("logits"), or logits and a label map, which only
    exclusive classes have ("labels").
    """

    needs: ClassVar[Needs]

    def terms(self) -> tuple[tuple[float, "LossPart"], ...]:
        """The weighted terms that the objective adds up."""
        return ((1.0, self),)


class Dice(LossPart):
    """Soft Dice loss per class, 1 - 2TP / (2TP + FP + FN)."""

    target = "engine.losses.overlap:dice"
    needs = "probability"
    name: Literal["dice"] = "dice"
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

    def terms(self) -> tuple[tuple[float, LossPart], ...]:
        return ((self.dice_weight, Dice()), (self.ce_weight, CrossEntropy()))


class DiceBinaryCrossEntropy(Sum):
    """Dice plus classwise binary cross-entropy: the loss of SMM v2, whose grown classes overlap."""

    needs = "logits"
    name: Literal["dice_bce"] = "dice_bce"
    dice_weight: float = setting(1.0, ge=0)
    """Weight of the Dice term."""
    bce_weight: float = setting(1.0, ge=0)
    """Weight of the binary cross-entropy term."""

    def terms(self) -> tuple[tuple[float, LossPart], ...]:
        return ((self.dice_weight, Dice()), (self.bce_weight, BinaryCrossEntropy()))


Loss = Annotated[
    Dice
    | CrossEntropy
    | BinaryCrossEntropy
    | ElevatedSensitivity
    | DiceCrossEntropy
    | DiceBinaryCrossEntropy,
    Field(discriminator="name"),
]
"""Registry of losses."""
