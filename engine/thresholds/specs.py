"""Settings of the threshold rules: those that guarantee something, and those that do not."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from engine.spec import Part, setting


class Guarantee(Part):
    """A rule that keeps a promise on new images; bound, it takes :class:`engine.thresholds.Units`."""

    title: ClassVar[str]
    """What the rule is called where people read it."""
    guarantees: ClassVar[bool] = True


class Wish(Part):
    """A rule that takes what is best on validation images, and promises nothing for new ones; bound, it
    takes the images' :class:`engine.thresholds.Curve`."""

    title: ClassVar[str]
    guarantees: ClassVar[bool] = False


class Kept(Guarantee):
    """What both forms of Conformal Lesion Segmentation share."""

    epsilon: float = setting(0.1, ge=0, le=1)
    """ε: share of a lesion that may be missed."""
    alpha: float = setting(0.1, ge=0, le=1)
    """α: share of new images in which more than ε may be missed."""


class Cls(Kept):
    """Conformal Lesion Segmentation: with probability 1 − α a new image misses at most ε of its lesion."""

    target: ClassVar[str] = "engine.thresholds.rules:cls"
    title: ClassVar[str] = "CLS: miss at most ε in all but α of images"
    name: Literal["cls"] = "cls"


class Conditional(Kept):
    """Training-conditional CLS, for those who calibrate once: with probability 1 − δ the calibration is one
    with which at most α of all new images miss more than ε of their lesion."""

    target: ClassVar[str] = "engine.thresholds.rules:conditional"
    title: ClassVar[str] = "CLS calibrated once, with confidence 1 − δ"
    name: Literal["conditional"] = "conditional"
    delta: float = setting(0.1, ge=0, le=1)
    """δ: how often a calibration may fail to keep α."""


class Crc(Guarantee):
    """Conformal Risk Control: on average at most α of a new image's lesion is missed."""

    target: ClassVar[str] = "engine.thresholds.rules:crc"
    title: ClassVar[str] = "CRC: miss at most α on average"
    name: Literal["crc"] = "crc"
    alpha: float = setting(0.1, ge=0, le=1)
    """α: mean share of a new image's lesion that may be missed."""


class BestDice(Wish):
    """The threshold of the highest mean Dice on the validation images; of several the one nearest to 0.5."""

    target: ClassVar[str] = "engine.thresholds.softmax:best_dice"
    title: ClassVar[str] = "Best mean Dice, no guarantee"
    name: Literal["dice"] = "dice"


class WantedPrecision(Wish):
    """The lowest threshold with a mean precision of the target or more on the validation images."""

    target: ClassVar[str] = "engine.thresholds.softmax:wanted_precision"
    title: ClassVar[str] = "Wanted mean precision, no guarantee"
    name: Literal["precision"] = "precision"
    wanted: float = setting(0.9, ge=0, le=1)
    """Mean precision on the validation images that is wanted."""


class WantedRecall(Wish):
    """The highest threshold with a mean recall of the target or more on the validation images."""

    target: ClassVar[str] = "engine.thresholds.softmax:wanted_recall"
    title: ClassVar[str] = "Wanted mean recall, no guarantee"
    name: Literal["recall"] = "recall"
    wanted: float = setting(0.9, ge=0, le=1)
    """Mean recall on the validation images that is wanted."""


AnyGuarantee = Cls | Conditional | Crc
AnyWish = BestDice | WantedPrecision | WantedRecall
Rule = Annotated[AnyGuarantee | AnyWish, Field(discriminator="name")]
"""Registry of threshold rules."""
