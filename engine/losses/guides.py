"""What a loss is told beside logits and masks."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Guides:
    """What a loss is told beside logits and masks: maps of the original truth, and the epoch.

    A loss says which maps it needs with :meth:`engine.losses.specs.LossPart.guides`, so that
    the others need not be computed.

    Attributes:
        tube: bool (B, C, *S): tubed skeletons of the original truth, see
            :func:`engine.losses.topology.tubed_skeleton`.
        distance: float32 (B, C, *S): signed distance to the original truth's boundary, see
            :func:`engine.losses.boundary.signed_distance`.
        epoch: 1…E, which the weight of a term may follow.
    """

    tube: Tensor | None = None
    distance: Tensor | None = None
    epoch: int = 1
