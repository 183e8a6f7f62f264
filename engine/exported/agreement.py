"""Whether an exported file gives the run's own probabilities."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import InputError
from engine.trained import Trained

TOLERANCE = 1e-4
"""Largest difference of a probability. Runtimes add up in other orders, which moves a probability by about
1e-6; a mistake moves it by far more."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        image: of what.
        shape: of the input, (B, channels, *S).
        difference: largest |difference| of a probability, over all pixels and classes.
    """

    image: str
    shape: tuple[int, ...]
    difference: float


def agreement(
    trained: Trained, run: Callable[[Tensor], Tensor], images: Iterable[tuple[str, Tensor]], what: str
) -> list[Check]:
    """Compare what a file gives with what the run predicts, on real images.

    Args:
        trained: the run.
        run: the file: (B, channels, *S) to (B, C, *S).
        images: names and normalised images.
        what: the file, for the error.

    Raises:
        InputError: another shape, or a difference beyond :data:`TOLERANCE`, or no number.
    """
    checks = []
    for name, image in images:
        expected = trained.predictor.probability(image)
        try:
            found = run(image)
        except Exception as error:  # a runtime raises what it likes
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise _refused(what, f"cannot predict {name}, {tuple(image.shape)} ({reason})") from error
        if found.shape != expected.shape:
            raise _refused(what, f"gives {tuple(found.shape)} for {name}, not {tuple(expected.shape)}")
        difference = float((found.double() - expected.double()).abs().max())
        if not difference <= TOLERANCE:  # NaN is not
            raise _refused(what, f"differs from the run by up to {difference:.2g} on {name}")
        checks.append(Check(name, tuple(image.shape), difference))
    return checks


def _refused(what: str, reason: str) -> InputError:
    return InputError(
        f"{what} {reason}, more than {TOLERANCE:g} is not accepted, so nothing was written: another kind of "
        f"export may work, with torch {torch.__version__}."
    )


def largest(checks: Iterable[Check]) -> float:
    """The largest difference of some comparisons."""
    return max(check.difference for check in checks)
