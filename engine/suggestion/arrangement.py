"""Arrangements: scores of images → the order in which to annotate them."""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from engine.suggestion.appearance import similarity

Floats = NDArray[np.float64]
MOST = 4096
"""Images whose similarities, with each other and with so many annotated ones, are held in memory."""
ALIKE = 0.5
"""Similarity from which two images are said to look alike."""


@dataclass(frozen=True)
class Turn:
    """One image's place in the order.

    Attributes:
        index: of the image.
        score: by which it came next; that of the next turn is no higher.
        words: what the arrangement adds to the reason, or "".
    """

    index: int
    score: float
    words: str = ""


def by_score(scores: Floats, looks: Floats | None = None, known: Floats | None = None) -> list[Turn]:
    """The highest score first; of equal ones the earlier image."""
    return [Turn(int(index), float(scores[index])) for index in np.argsort(-scores, kind="stable")]


def by_cover(
    scores: Floats, looks: Floats | None, known: Floats | None = None, *, most: int = MOST
) -> list[Turn]:
    """The image first that stands for most doubt of its own and of images that look like it; and so on.

    Greedy maximisation of the weighted facility location F(A) = Σ_i w_i max_{j ∈ A} s_ij, with the scores as
    weights w and the :func:`similarity` s, starting from the images A that are annotated already. F is
    submodular, so the greedy order reaches 1 - 1/e of the best value at each length (Nemhauser, Wolsey and
    Fisher, Mathematical Programming 14, 1978). As in Suggestive Annotation (Yang et al., MICCAI 2017),
    images that are uncertain and representative come first, but in one step; an odd one out, which k-centre
    would take first, waits.

    Args:
        scores: (n,) 0 or more.
        looks: (n, features) by :func:`engine.suggestion.appearance.appearance`.
        known: (m, features) of the annotated images; None without any.
        most: images, those of the highest scores, that take part; all others follow by score.

    Returns:
        n turns; the score of each is what it adds to F over Σ w, 0…1.
    """
    assert looks is not None  # orders that arrange by cover ask for looks
    if not len(scores):
        return []
    if len(scores) > most:
        first, *rest = np.split(np.argsort(-scores, kind="stable"), [most])
        turns = by_cover(scores[first], looks[first], known, most=most)
        covering = [Turn(int(first[turn.index]), turn.score, turn.words) for turn in turns]
        return covering + [Turn(int(index), 0.0) for index in rest[0]]
    alike = similarity(looks)
    covered = np.zeros(len(scores))
    if known is not None and len(known):
        covered = similarity(looks, known).max(axis=1)
    weights = scores / scores.sum() if scores.sum() > 0 else np.full(len(scores), 1 / len(scores))
    # Gains only shrink (F is submodular), so an image whose fresh gain is still on top is the best one
    # (Minoux, "Accelerated greedy algorithms", 1978); ties go to the earlier image.
    waiting = [(-float(gain), index, 0) for index, gain in enumerate(_gains(weights, alike, covered))]
    heapify(waiting)
    free = np.ones(len(scores), bool)
    turns = []
    while waiting:
        gain, index, when = heappop(waiting)
        if when < len(turns):
            fresh = float(_gains(weights, alike[:, [index]], covered)[0])
            heappush(waiting, (-fresh, index, len(turns)))
            continue
        free[index] = False
        others = int((alike[free, index] >= ALIKE).sum())
        alike_are = f"{others} other{'s' * (others > 1)}" if others else "no other"
        turns.append(Turn(index, -gain, f"looks like {alike_are}"))
        covered = np.maximum(covered, alike[:, index])
    return turns


def _gains(weights: Floats, alike: Floats, covered: Floats) -> Floats:
    """What each of m images adds to the cover, (m,), by its similarity (n, m) to the n images."""
    return np.asarray(weights @ np.maximum(alike - covered[:, None], 0))
