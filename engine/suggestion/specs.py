"""Settings of the orders in which images are suggested: the registry."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from engine.spec import Part, setting


class Order(Part):
    """A way to say what is worth annotating next; bound, it takes a :class:`engine.suggestion.seen.Seen`."""

    title: ClassVar[str]
    """What the order is called where people read it."""
    arrangement: ClassVar[str] = "engine.suggestion.arrangement:by_score"
    """The function that makes an order of the scores."""
    looks: ClassVar[bool] = False
    """Whether the arrangement asks how images look."""


class Uncertain(Order):
    """Images first about which the model is least sure: mean binary entropy, outlines left out."""

    target: ClassVar[str] = "engine.suggestion.uncertainty:uncertain"
    title: ClassVar[str] = "Unsure: most pixels near p = ½"
    name: Literal["uncertain"] = "uncertain"
    rim: int = setting(1, ge=0, le=16, unit="px")
    """Ridges of doubt up to about twice as wide, as along outlines, do not count; 0 counts all."""
    share: float = setting(1.0, gt=0, le=1)
    """Share of an image's pixels, the most uncertain ones, over which the mean is taken."""


class Misses(Order):
    """Images first of whose foreground the model's own decision likely misses the largest share."""

    target: ClassVar[str] = "engine.suggestion.misses:misses"
    title: ClassVar[str] = "Misses: foreground that p ≥ T leaves out"
    name: Literal["misses"] = "misses"
    floor: float = setting(0.1, ge=0, le=1)
    """Share of T below which p counts as background."""
    faint: float = setting(0.5, gt=0, le=1)
    """Share of T from which neighbouring pixels make up a spot, which the decision may drop."""
    smallest: int = setting(16, ge=1, unit="px")
    """Pixels of a spot that counts; images with less expected foreground come late."""


class Wrong(Order):
    """What the orders share that ask for the Dice which the model expects of its own mask."""

    floor: float = setting(0.1, ge=0, le=1)
    """Share of T below which p counts as background."""
    smallest: int = setting(16, ge=1, unit="px")
    """Foreground below which the score falls towards 0."""
    rim: int = setting(1, ge=0, le=16, unit="px")
    """Expected errors along outlines, up to about twice as wide, do not attract places."""


class Errors(Wrong):
    """Images first of whose mask the model itself expects the lowest Dice."""

    target: ClassVar[str] = "engine.suggestion.errors:errors"
    title: ClassVar[str] = "Errors: lowest expected Dice"
    name: Literal["errors"] = "errors"


class Varied(Wrong):
    """As `errors`, but spread over what images look like: each next one stands for much doubt of its own and
    of images like it, and for which none that came before, or is annotated, stands already."""

    target: ClassVar[str] = "engine.suggestion.errors:errors"
    title: ClassVar[str] = "Varied: low expected Dice, and unlike each other"
    arrangement: ClassVar[str] = "engine.suggestion.arrangement:by_cover"
    looks: ClassVar[bool] = True
    name: Literal["varied"] = "varied"


class Random(Order):
    """A draw without any model's opinion, to compare with."""

    target: ClassVar[str] = "engine.suggestion.drawn:drawn"
    title: ClassVar[str] = "Random"
    name: Literal["random"] = "random"
    seed: int = setting(0, ge=0)
    """Of the draw."""


AnyOrder = Annotated[Varied | Errors | Uncertain | Misses | Random, Field(discriminator="name")]
"""Registry of orders."""
