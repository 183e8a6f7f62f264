"""Ranking: what an order says of each image → suggestions, best first."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.spec import import_target
from engine.suggestion.arrangement import Turn
from engine.suggestion.places import Place, places
from engine.suggestion.seen import Doubt, Seen
from engine.suggestion.specs import Order

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """What is kept of an image when its prediction is let go.

    Attributes:
        name: of the image.
        score: of the order.
        reason: for it.
        places: in it, best first.
    """

    name: str
    score: float
    reason: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Suggestion:
    """An image in its turn.

    Attributes:
        rank: 1 for the first.
        image: its name.
        score: by which it came next; that of the next one is no higher.
        reason: in words with numbers.
        places: in it, best first.
    """

    rank: int
    image: str
    score: float
    reason: str
    places: tuple[Place, ...]


def candidate(
    order: Order, seen: Seen, most_places: int = 3, unpainted: NDArray[np.bool_] | None = None
) -> Candidate:
    """What an order makes of one image.

    Args:
        order: which measures it.
        seen: the image.
        most_places: in it, at the most.
        unpainted: bool (*S), where nothing is labelled yet, so that places are not looked for elsewhere;
            None of an image that nobody has begun.
    """
    doubt: Doubt = order.bind()(seen)
    if unpainted is not None and doubt.map is not None:
        doubt = replace(doubt, map=np.where(unpainted, doubt.map, np.float32(0)))
    return Candidate(seen.name, doubt.score, doubt.words(seen.whole), tuple(places(doubt, most_places)))


def ranked(
    order: Order,
    candidates: Sequence[Candidate],
    looks: Floats | None = None,
    known: Floats | None = None,
) -> list[Suggestion]:
    """All images in an order's turns.

    Args:
        order: which made the candidates.
        candidates: n images.
        looks: (n, features) of the images, for orders that ask for them.
        known: (m, features) of the images that are annotated already.
    """
    turns = arranged(order, np.array([each.score for each in candidates], np.float64), looks, known)
    found = []
    for rank, turn in enumerate(turns, 1):
        each = candidates[turn.index]
        reason = "; ".join(filter(None, (each.reason, turn.words)))
        found.append(Suggestion(rank, each.name, turn.score, reason, each.places))
    return found


def arranged(
    order: Order, scores: Floats, looks: Floats | None = None, known: Floats | None = None
) -> list[Turn]:
    """The turns of images by their scores (n,); other arguments as :func:`ranked`."""
    turns: list[Turn] = import_target(order.arrangement)(scores, looks, known)
    return turns
