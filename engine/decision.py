"""What `--threshold` means: a number, or what a rule chose in an earlier `python -m engine.calibrate`."""

from dataclasses import dataclass
from typing import Literal

from engine import thresholds_file
from engine.errors import InputError
from engine.thresholds_file import RULES
from engine.trained import Threshold, Trained

HELP = (
    "T in p ≥ T, or the rule that chose it in an earlier calibration "
    f"({', '.join(RULES)}); without it 0.5, or argmax (softmax)"
)
"""Of the flag."""


@dataclass(frozen=True)
class Decision:
    """How probabilities become masks.

    Attributes:
        threshold: T of all classes, of each, or None.
        words: the rule, for tables and messages.
        entry: of thresholds.json, where T comes from there.
    """

    threshold: Threshold
    words: str
    entry: thresholds_file.Entry | None = None

    @property
    def guarantees(self) -> bool:
        """Whether something is promised of new images."""
        return self.entry is not None and self.entry.guarantees


def given(text: str | None) -> float | str | None:
    """A flag's text: a number, the name of a rule, or nothing.

    Raises:
        InputError: neither a number in 0…1 nor a rule.
    """
    if text is None or text in RULES:
        return text
    try:
        number = float(text)
    except ValueError:
        raise InputError(
            f"--threshold {text} is neither a number nor a rule: 0 to 1, or {', '.join(RULES)} would work."
        ) from None
    if not 0 <= number <= 1:
        raise InputError(f"--threshold {text} is no probability: 0 to 1 would work.")
    return number


def decide(
    trained: Trained, threshold: float | str | None, size: Literal["native", "trained"] = "native"
) -> Decision:
    """The decision of a run.

    Args:
        trained: the run, with the checkpoint and tiles with which it predicts.
        threshold: what :func:`given` gave.
        size: at which it is decided.

    Raises:
        InputError: a rule that was not calibrated, or whose calibration no longer fits the run.
    """
    if not isinstance(threshold, str):
        return Decision(threshold, trained.rule(threshold))
    entry = thresholds_file.require(trained.root, threshold, trained.predicted(size), trained.classes)
    return Decision(entry.thresholds, f"{trained.rule(entry.thresholds)} by {entry.settings}", entry)
