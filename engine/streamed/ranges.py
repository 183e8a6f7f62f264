"""Rows of a prediction's chunks, one range after the other.

Ranges know nothing of each other: each predicts all tiles that reach into it, which costs a little more
and changes no bit. What they write are chunks of their own, so they need no order either.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod

from engine.data.rows import Rows
from engine.streamed.progress import Progress
from engine.streamed.pyramid import Pyramid
from engine.streamed.state import Span, State
from engine.tiles import unit
from engine.trained import Part, Trained


def written(
    trained: Trained, rows: Rows, pyramid: Pyramid, part: Part, ticked: Callable[[], None]
) -> Iterator[int]:
    """Predict rows of chunks into the largest array. Yields each one's number when all of it is there."""
    units = unit(pyramid.shapes[0])
    across = prod(
        -(-length // extent) for length, extent in zip(pyramid.shapes[0][1:], units[1:], strict=True)
    )
    chunks: Counter[int] = Counter()
    for box, p in trained.probabilities(rows, ticked, part=part):
        pyramid.write(box, p)
        row = box[0].start // units[0]
        chunks[row] += 1
        if chunks[row] == across:
            yield row


def tiles_of(trained: Trained, rows: Rows, span: Span | None = None) -> int:
    """Tiles that are predicted for a range, or for all of an image."""
    if trained.resizes(rows):
        return trained.predictor.count(trained.frame(rows))
    return trained.predictor.count(rows.shape[:-1], span)


def predict_here(trained: Trained, rows: Rows, part: Part, state: State, progress: Progress) -> None:
    """Predict all that is missing, in this process."""
    missing = state.missing()
    left = sum(tiles_of(trained, rows, span) for span in missing)
    total = max(left, tiles_of(trained, rows))
    progress.begin(total, total - left)
    for span in missing:
        for row in written(trained, rows, state.pyramid, replace(part, rows=span), progress.tick):
            keep(row, state, progress)


def keep(row: int, state: State, progress: Progress) -> None:
    """Complete the smaller arrays by a row that is written, and note it."""
    state.pyramid.follow(state.done | {row}, row, progress.look)
    state.add(row)
