"""Open layers that can calibrate a threshold: probabilities, and the labels that could be their truth. No Qt.

Nothing here reads a pixel.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from engine.calibration import Predicted
from napari_smm.decisions import class_layers
from napari_smm.layers import MARK
from napari_smm.placement import full_shape
from napari_smm.targets import Target, quick_check

PREFIX = "probability · "
"""What the names of predictions begin with."""
KEPT = "labels from prediction"
"""What the names of labels begin with that are a decision, and no truth before they are corrected."""
UNNAMED = "foreground"
"""The only class of probabilities of which nothing is known."""
SEEN = {"train": "trained", "val": "validated"}
"""Splits that a network has seen, and what it was on them."""

Likeness = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Candidate:
    """The probabilities of an image, or of a stack, and what could be their truth.

    Attributes:
        layers: napari's Image layers, one for each class that has a layer of its own, else one.
        truths: Labels layers of the same shape, the topmost first.
        truth: the one whose name is most like the image's, the topmost of those that are; None if there
            is none.
        sure: whether no other truth is as likely, and this one is not as likely another image's.
        classes: names of the classes, :data:`UNNAMED` where it is not known.
        shape: (*leading, *S), without a class axis.
        dims: axes of S: 3 where volumes are known to be its images.
        brief: in a few words why it cannot be used, "" if it can.
        reason: the same in a sentence.
    """

    layers: tuple[Any, ...]
    truths: tuple[Any, ...]
    truth: Any | None
    sure: bool
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    dims: int = 2
    brief: str = ""
    reason: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for the same layers."""
        return tuple(layer.unique_id for layer in self.layers)

    @property
    def name(self) -> str:
        """Name of the layer; of several, without the class."""
        name = str(self.layers[0].name)
        return name.removesuffix(f" · {self.classes[0]}") if len(self.layers) > 1 else name

    @property
    def title(self) -> str:
        """What to call it in a list: the image's name."""
        return self.name.removeprefix(PREFIX) if self.ours else self.name

    @property
    def ours(self) -> bool:
        """Whether it is a prediction, of which more is known than its values."""
        return bool(known(self.layers[0]))

    @cached_property
    def maker(self) -> tuple[Any, ...]:
        """Equal for predictions that were made in the same way, as far as is known."""
        found = predicted(self.layers[0])
        if found is not None:
            return found.weights, json.dumps(found.path, sort_keys=True, default=str)
        return _run(known(self.layers[0])) if self.ours else ()

    @property
    def stack(self) -> bool:
        """Whether it has planes, or volumes."""
        return len(self.shape) > self.dims

    @property
    def usable(self) -> bool:
        """Whether it can calibrate."""
        return not self.reason


def candidates(layers: Iterable[Any]) -> list[Candidate]:
    """All layers that may hold probabilities, the topmost first, as in napari's own list.

    Args:
        layers: those of the viewer, the lowest first.
    """
    layers = list(layers)
    labels = [layer for layer in reversed(layers) if _may_be_truth(layer)]
    found: list[Candidate] = []
    taken: set[int] = set()
    for layer in reversed(layers):
        if id(layer) not in taken and _may_be_probability(layer):
            own = tuple(class_layers(layers, layer))
            taken.update(map(id, own))
            found.append(_candidate(own, labels))
    return _with_likeliest(found, labels)


def known(layer: Any) -> Mapping[str, Any]:
    """What a prediction's layer says of how it was made; empty for any other layer."""
    meaning: Mapping[str, Any] = layer.metadata.get(MARK, {})
    return meaning if meaning.get("kind") == "prediction" else {}


def predicted(layer: Any) -> Predicted | None:
    """What predicted a layer; None where it is not known."""
    meaning = known(layer)
    if not meaning.get("weights") or not isinstance(meaning.get("path"), Mapping):
        return None
    return Predicted(
        checkpoint=str(meaning.get("checkpoint", "")),
        epoch=int(meaning.get("epoch", 0)),
        weights=str(meaning["weights"]),
        path=dict(meaning["path"]),
    )


def differs(layer: Any, other: Any) -> str:
    """Why two layers cannot calibrate together, as the end of a sentence; "" as far as is known they can.

    Args:
        layer: of probabilities; "it" in the sentence.
        other: another; "these" in the sentence.
    """
    ours, theirs = predicted(layer), predicted(other)
    if ours is not None and theirs is not None:
        return ours.differs(theirs)
    one, two = known(layer), known(other)
    if one and two and _run(one) != _run(two):
        return (
            f"it was made with {one.get('checkpoint')} of {one.get('run')} after epoch {one.get('epoch')}, "
            f"and these with {two.get('checkpoint')} of {two.get('run')} after epoch {two.get('epoch')}"
        )
    return ""


def clash(candidate: Candidate, others: Sequence[Candidate]) -> tuple[str, str]:
    """Why a candidate cannot calibrate together with others.

    Args:
        candidate: that may be chosen too.
        others: that are chosen.

    Returns:
        The reason in a few words and in a sentence, both empty if there is none.
    """
    alike = {(other.classes, other.maker): other for other in others if other is not candidate}
    for other in alike.values():
        if not _same_classes(candidate.classes, other.classes):
            return "other classes", (
                f"{candidate.name!r} has the classes {', '.join(candidate.classes)}, and {other.name!r} has "
                f"{', '.join(other.classes)}: predictions of the same classes would work."
            )
        if words := differs(other.layers[0], candidate.layers[0]):
            return "other network", (
                f"{other.name!r} cannot be calibrated on together with {candidate.name!r}: {words}; "
                "predictions by the same weights and settings would work."
            )
    return "", ""


def _may_be_truth(layer: Any) -> bool:
    from napari.layers import Labels

    return isinstance(layer, Labels) and MARK not in layer.metadata


def _may_be_probability(layer: Any) -> bool:
    """Whether a layer is listed, be it to say why it cannot be used."""
    meaning = layer.metadata.get(MARK, {})
    derived = "target" in meaning or meaning.get("role", "probability") != "probability"
    return not derived and not quick_check(layer)


def _candidate(layers: tuple[Any, ...], labels: Sequence[Any]) -> Candidate:
    target = Target.of_layers(layers[0], None)
    names = [name for layer in layers for name in Target.of_layers(layer, None).classes]
    truths = tuple(layer for layer in labels if full_shape(layer) == target.shape)
    made = Candidate(
        layers=layers,
        truths=truths,
        truth=None,
        sure=False,
        classes=tuple(name or UNNAMED for name in names),
        shape=target.shape,
        dims=target.dims,
    )
    brief, reason = _obstacle(made, target, labels)
    return replace(made, brief=brief, reason=reason)


def _obstacle(candidate: Candidate, target: Target, labels: Sequence[Any]) -> tuple[str, str]:
    """Why a candidate cannot be used, in a few words and in a sentence."""
    layer, name = candidate.layers[0], candidate.name
    meaning = layer.metadata.get(MARK, {})
    if meaning and not known(layer):
        return "watched", (
            f"{name!r} shows an image that a run watches, in half precision, and was trained or validated "
            "on: predictions of images that it has never seen would work."
        )
    if words := SEEN.get(meaning.get("split")):
        return f"{words} on", (
            f"the network was {words} on the image of {name!r}: a promise needs images that it has never "
            "seen, such as those of the run's calib split."
        )
    if candidate.truths:
        return "", ""
    smaller = {tuple(map(int, level.shape))[target.class_axis is not None :] for level in target.levels[1:]}
    if any(full_shape(layer) in smaller for layer in labels):
        return "labels too small", (
            f"{name!r} has shape {target.shape}, and there are labels of a smaller copy only: a Labels layer "
            "of the full resolution would work."
        )
    return "no labels", (
        f"no Labels layer has the shape {target.shape} of {name!r}: one that says what is right would work."
    )


def _same_classes(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Whether classes are the same; the only one of probabilities from elsewhere may be any."""
    return ours == theirs or (len(ours) == len(theirs) == 1 and UNNAMED in (*ours, *theirs))


def _run(meaning: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(meaning.get(name)) for name in ("run", "checkpoint", "epoch"))


def likeness(ours: frozenset[str], theirs: frozenset[str]) -> Likeness:
    """How likely labels are an image's, by the words of their names.

    Those that both have count for it, others against it. Names without a common word say nothing.
    """
    shared = len(ours & theirs)
    return (shared, -len(ours ^ theirs)) if shared else (0, 0)


def _words(name: str) -> frozenset[str]:
    """The words and numbers of a layer's name."""
    return frozenset(re.findall(r"[^\W_]+", name.casefold()))


def _is_kept(truth: Any) -> bool:
    return str(truth.name).startswith(KEPT)


def _scores(candidate: Candidate, words: Mapping[Any, frozenset[str]]) -> list[Likeness]:
    """How likely each of its possible truths is a candidate's."""
    own = _words(candidate.title)
    return [(-1, 0) if _is_kept(truth) else likeness(own, words[truth]) for truth in candidate.truths]


def _with_likeliest(found: Sequence[Candidate], labels: Sequence[Any]) -> list[Candidate]:
    """Candidates with the truth that is likeliest, and whether there is doubt about it."""
    words = {layer: _words(str(layer.name)) for layer in labels}
    scores = [_scores(candidate, words) for candidate in found]
    # Predictions of another network are no rivals: they may be of the same image.
    rivals: dict[Any, list[Likeness]] = defaultdict(list)
    for candidate, own in zip(found, scores, strict=True):
        for truth, score in zip(candidate.truths, own, strict=True):
            rivals[truth, candidate.maker].append(score)
    best = {key: max(each) for key, each in rivals.items()}
    made = []
    for candidate, own in zip(found, scores, strict=True):
        if not own:
            made.append(candidate)
            continue
        # Of equals max takes the first, which is the topmost.
        score, truth = max(zip(own, candidate.truths, strict=True), key=lambda pair: pair[0])
        key = truth, candidate.maker
        alone = own.count(score) == 1 and score == best[key] and rivals[key].count(score) == 1
        made.append(replace(candidate, truth=truth, sure=candidate.usable and alone and not _is_kept(truth)))
    return made
