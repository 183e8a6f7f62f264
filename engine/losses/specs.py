"""Settings of the losses. One class here and one function in this room make a new loss."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from engine.head import Head
from engine.spec import Part, import_target, setting

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


class Overlap(LossPart):
    """A loss made of true positives, false positives and false negatives."""

    needs = "probability"
    name: str
    include_background: bool = setting(False, advanced=True)
    """Average the loss of each class with that of all else, its background, as the DSC++ paper's code."""
    batch: bool = setting(False, advanced=True)
    """Pool the sums over the images of a batch, instead of averaging over images."""
    smooth: float = setting(1e-5, ge=0, advanced=True)
    """Added to numerator and denominator, so that an absent class predicted absent costs 0."""

    def settings(self) -> dict[str, Any]:
        own = super().settings()
        return {key: value for key, value in own.items() if key not in ("include_background", "batch")}

    def bind(self) -> Callable[..., Any]:
        if not (self.include_background or self.batch):
            return super().bind()
        summing = import_target("engine.losses.sums:summing")
        bound: Callable[..., Any] = summing(
            super().bind(), include_background=self.include_background, batch=self.batch
        )
        return bound


class Dice(Overlap):
    """Soft Dice loss per class, 1 - 2TP / (2TP + FP + FN)."""

    target = "engine.losses.overlap:dice"
    name: Literal["dice"] = "dice"


class DSCPlusPlus(Overlap):
    """DSC++ loss: Dice whose errors are raised to γ, so that sure ones cost more than unsure ones."""

    target = "engine.losses.overlap:dsc_plus_plus"
    name: Literal["dsc_plus_plus"] = "dsc_plus_plus"
    gamma: float = setting(2.0, gt=0)
    """γ: power of each pixel's error; 1 is the Dice loss."""


class _Tversky(Overlap):
    """What the Tversky losses share."""

    target = "engine.losses.overlap:tversky"
    alpha: float = setting(0.3, ge=0)
    """α: weight of false positives."""
    beta: float = setting(0.7, ge=0)
    """β: weight of false negatives; above α, missing costs more than a false alarm."""


class Tversky(_Tversky):
    """Tversky loss per class, 1 - TP / (TP + α FP + β FN)."""

    name: Literal["tversky"] = "tversky"


class TverskyPlusPlus(_Tversky):
    """Tversky loss with the errors of DSC++, raised to γ."""

    name: Literal["tversky_plus_plus"] = "tversky_plus_plus"
    gamma: float = setting(2.0, gt=0)
    """γ: power of each pixel's error; 1 is the Tversky loss."""


class _FocalTversky(_Tversky):
    """What the Focal Tversky losses share."""

    target = "engine.losses.overlap:focal_tversky"
    exponent: float = setting(0.75, gt=0)
    """Power of the Tversky loss of each class; the published γ = 4/3 is 1 / 0.75."""


class FocalTversky(_FocalTversky):
    """Tversky loss of each class raised to a power below 1, so that what is nearly found still counts."""

    name: Literal["focal_tversky"] = "focal_tversky"


class FocalTverskyPlusPlus(_FocalTversky):
    """Focal Tversky loss with the errors of DSC++, raised to γ."""

    name: Literal["focal_tversky_plus_plus"] = "focal_tversky_plus_plus"
    gamma: float = setting(2.0, gt=0)
    """γ: power of each pixel's error; 1 is the Focal Tversky loss."""


class _Combo(LossPart):
    """What the Combo losses share."""

    target = "engine.losses.compound:combo"
    needs = "probability"
    name: str
    alpha: float = setting(0.5, ge=0, le=1)
    """α: share of the cross-entropy; 1 - α is the Dice's."""
    beta: float = setting(0.5, ge=0, le=1)
    """β: weight of foreground pixels in the cross-entropy; 1 - β is the background's."""
    smooth: float = setting(1e-5, ge=0, advanced=True)
    """Added to numerator and denominator of the Dice, which is so 1 for an absent class predicted absent."""


class Combo(_Combo):
    """Weighted classwise cross-entropy minus Dice; at best α - 1, so it may be negative."""

    name: Literal["combo"] = "combo"


class ComboPlusPlus(_Combo):
    """Combo loss with DSC++ in place of Dice."""

    name: Literal["combo_plus_plus"] = "combo_plus_plus"
    gamma: float = setting(2.0, gt=0)
    """γ: power of each pixel's error in the Dice; 1 is the Combo loss."""


class _UnifiedFocal(LossPart):
    """What the Unified Focal losses share."""

    target = "engine.losses.compound:unified_focal"
    needs = "probability"
    name: str
    lam: float = setting(0.5, ge=0, le=1)
    """λ: share of the focal cross-entropy; 1 - λ is the focal Tversky's."""
    delta: float = setting(0.6, ge=0, le=1)
    """δ: weight of foreground pixels and of false negatives; 1 - δ is that of the others."""
    gamma: float = setting(0.1, ge=0, lt=1)
    """γ: how far easy background is played down, and well found foreground up; 0 is not at all."""
    symmetric: bool = False
    """Treat foreground and background alike."""
    smooth: float = setting(1e-5, ge=0, advanced=True)
    """Added to numerator and denominator of the Tversky index."""


class UnifiedFocal(_UnifiedFocal):
    """Focal cross-entropy plus focal Tversky of foreground and background, under common settings."""

    name: Literal["unified_focal"] = "unified_focal"


class UnifiedFocalPlusPlus(_UnifiedFocal):
    """Unified Focal loss with the errors of DSC++ in its Tversky index."""

    name: Literal["unified_focal_plus_plus"] = "unified_focal_plus_plus"
    gamma_pp: float = setting(2.0, gt=0)
    """γ of DSC++: power of each pixel's error in the Tversky index; 1 is the Unified Focal loss."""


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


class Focal(LossPart):
    """Cross-entropy that plays easy pixels down: categorical for exclusive classes, else classwise."""

    target = "engine.losses.pixelwise:focal"
    needs = "channels"
    name: Literal["focal"] = "focal"
    gamma: float = setting(2.0, ge=0)
    """γ: the larger, the less easy pixels weigh; 0 is cross-entropy."""
    alpha: float | None = setting(None, ge=0, le=1)
    """α: weight of foreground pixels, 1 - α of background; without it, both weigh 1."""


class ElevatedSensitivity(LossPart):
    """Elevated Sensitivity Loss (ESL) of SMM v1, from -1 to 0: rewards found foreground."""

    target = "engine.losses.sensitivity:elevated_sensitivity"
    needs = "probability"
    name: Literal["elevated_sensitivity"] = "elevated_sensitivity"


class SkeletonRecallTerm(LossPart):
    """Minus the recall on the tubed skeleton of the truth, from -1 to 0: a term, no loss of its own."""

    target = "engine.losses.topology:skeleton_recall"
    needs = "tube"


class BoundaryTerm(LossPart):
    """Mean of probability times signed distance: a term, no loss of its own."""

    target = "engine.losses.boundary:boundary"
    needs = "distance"


class SoftCLDice(LossPart):
    """1 - soft clDice: a term, no loss of its own."""

    target = "engine.losses.topology:soft_cldice"
    needs = "probability"
    iterations: int | None = setting(None, ge=0)
    """Erosions of the soft skeletons."""
    smooth: float = setting(1.0, gt=0)
    """Added to numerator and denominator of both shares."""


class Sum(LossPart):
    """A weighted sum of losses; it has no function of its own."""


class DiceCrossEntropy(Sum):
    """Dice plus categorical cross-entropy: the plain training of the SMM paper. Exclusive classes only."""

    name: Literal["dice_ce"] = "dice_ce"
    dice_weight: float = setting(1.0, ge=0)
    """Weight of the Dice term."""
    ce_weight: float = setting(1.0, ge=0)
    """Weight of the cross-entropy term."""

    def terms(self, head: Head) -> tuple[tuple[Weight, LossPart], ...]:
        return ((self.dice_weight, Dice()), (self.ce_weight, CrossEntropy()))


class DiceBinaryCrossEntropy(Sum):
    """Dice plus classwise binary cross-entropy: the loss of SMM v2, whose grown classes overlap."""

    name: Literal["dice_bce"] = "dice_bce"
    dice_weight: float = setting(1.0, ge=0)
    """Weight of the Dice term."""
    bce_weight: float = setting(1.0, ge=0)
    """Weight of the binary cross-entropy term."""

    def terms(self, head: Head) -> tuple[tuple[Weight, LossPart], ...]:
        return ((self.dice_weight, Dice()), (self.bce_weight, BinaryCrossEntropy()))


class DiceFocal(Sum):
    """Dice plus focal loss: categorical for exclusive classes, else classwise."""

    name: Literal["dice_focal"] = "dice_focal"
    dice_weight: float = setting(1.0, ge=0)
    """Weight of the Dice term."""
    focal_weight: float = setting(1.0, ge=0)
    """Weight of the focal term."""
    gamma: float = setting(2.0, ge=0)
    """γ of the focal term: the larger, the less easy pixels weigh."""
    alpha: float | None = setting(None, ge=0, le=1)
    """α of the focal term: weight of foreground pixels, 1 - α of background; without it, both weigh 1."""

    def terms(self, head: Head) -> tuple[tuple[Weight, LossPart], ...]:
        return (
            (self.dice_weight, Dice()),
            (self.focal_weight, Focal(gamma=self.gamma, alpha=self.alpha)),
        )


class _DiceAndPixelwise(Sum):
    """Dice and the cross-entropy that the head can take, to which the others of the SMM paper add a term."""

    name: str
    dice_weight: float = setting(1.0, ge=0)
    """Weight of the Dice term."""
    ce_weight: float = setting(1.0, ge=0)
    """Weight of the cross-entropy term: categorical for exclusive classes, else classwise binary."""
    weight: float = setting(1.0, ge=0)
    """Weight of the term that is added."""

    def plain(self, head: Head) -> tuple[tuple[float, LossPart], ...]:
        """The terms without the added one."""
        pixelwise = CrossEntropy() if head == "softmax" else BinaryCrossEntropy()
        return ((self.dice_weight, Dice()), (self.ce_weight, pixelwise))


class SkeletonRecall(_DiceAndPixelwise):
    """Dice plus cross-entropy plus skeleton recall (SRL), for thin structures that must stay connected."""

    name: Literal["skeleton_recall"] = "skeleton_recall"

    def terms(self, head: Head) -> tuple[tuple[Weight, LossPart], ...]:
        return (*self.plain(head), (self.weight, SkeletonRecallTerm()))


class Boundary(_DiceAndPixelwise):
    """Dice plus cross-entropy plus boundary loss (BL), which weighs by the distance to the true boundary."""

    name: Literal["boundary"] = "boundary"
    schedule: Literal["constant", "rebalance"] = "constant"
    """`constant` keeps the weights; `rebalance` takes 1 % more of the boundary and less of the others
    in each epoch, down to 1 %."""

    def terms(self, head: Head) -> tuple[tuple[Weight, LossPart], ...]:
        if self.schedule == "constant":
            return (*self.plain(head), (self.weight, BoundaryTerm()))
        plain = [(_falling(weight), term) for weight, term in self.plain(head)]
        return (*plain, (_rising(self.weight), BoundaryTerm()))


def rebalance(epoch: int) -> float:
    """α_t = max(1 - 0.01 t, 0.01): share of the region losses (Kervadec et al., MIDL 2019, "rebalance")."""
    return max(1 - 0.01 * epoch, 0.01)


def _falling(weight: float) -> Callable[[int], float]:
    return lambda epoch: weight * rebalance(epoch)


def _rising(weight: float) -> Callable[[int], float]:
    return lambda epoch: weight * (1 - rebalance(epoch))


class CLDice(Sum):
    """Dice plus soft clDice, for thin structures that must stay connected."""

    name: Literal["cldice"] = "cldice"
    weight: float = setting(0.5, ge=0, lt=1)
    """Share of the soft clDice; the rest is Dice."""
    iterations: int | None = setting(None, ge=0, advanced=True)
    """Erosions of the soft skeletons; without it, as many as the widest structure of each image needs,
    which takes long where structures are wide."""
    smooth: float = setting(1.0, gt=0, advanced=True)
    """Added to numerator and denominator of both of clDice's shares."""

    def terms(self, head: Head) -> tuple[tuple[Weight, LossPart], ...]:
        thin = SoftCLDice(iterations=self.iterations, smooth=self.smooth)
        return ((1 - self.weight, Dice()), (self.weight, thin))


Loss = Annotated[
    Dice
    | DSCPlusPlus
    | Tversky
    | TverskyPlusPlus
    | FocalTversky
    | FocalTverskyPlusPlus
    | Combo
    | ComboPlusPlus
    | UnifiedFocal
    | UnifiedFocalPlusPlus
    | CrossEntropy
    | BinaryCrossEntropy
    | Focal
    | DiceCrossEntropy
    | DiceBinaryCrossEntropy
    | DiceFocal
    | ElevatedSensitivity
    | SkeletonRecall
    | Boundary
    | CLDice,
    Field(discriminator="name"),
]
"""Registry of losses."""
