"""What a run proposes for an image that is being annotated, and where it may be wrong. No Qt, no napari.

A proposal fills what is not painted yet. Candidates are places to look at: objects that the decision leaves
out (*likely missed*) and such that it takes in with little confidence (*doubtful*).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine import thresholds_file
from engine.calibration import Predicted
from engine.data.annotated import BACKGROUND, UNLABELLED, AnnotationClass, Entry
from engine.errors import InputError
from engine.figures import colours
from engine.record import RunReader
from napari_smm.decisions import DroppedError, Ended
from napari_smm.layers import MARK
from napari_smm.masks import label_map
from napari_smm.planes import PlaneSource, plane_source
from napari_smm.predicted import LayerArguments, PredictedArrays, PredictedPlane
from napari_smm.predictors import RunChoice, offered_runs
from napari_smm.targets import MOST_PIXELS

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Box = tuple[slice, ...]
Kind = Literal["missed", "doubtful"]

MOST = 500
"""Candidates of each kind that are listed, the likeliest first."""
HALF = 0.5
"""T where no other is known. Where classes exclude each other and argmax decides, candidates go by it too."""
DIGEST = 8
"""Hexadecimal digits by which a run is told from others of its name."""
GROWING = ("dataset", "splits", "digests")
"""Of a run's run.json, what changes with the images that it takes up."""
UNNAMED = "foreground"
"""A run's only class where its data gave none a name."""


@dataclass(frozen=True)
class Cut:
    """How probabilities become a mask.

    Attributes:
        thresholds: T of each class in p >= T; None for argmax over background and classes.
        classes: names of the C classes.
        rule: that chose T, with its settings; "" where none did.
        note: why T is not the calibrated one although there is one, a sentence; else "".
    """

    thresholds: tuple[float, ...] | None
    classes: tuple[str, ...]
    rule: str = ""
    note: str = ""

    @property
    def limits(self) -> tuple[float, ...]:
        """T of each class, :data:`HALF` for argmax."""
        return (HALF,) * len(self.classes) if self.thresholds is None else self.thresholds

    @property
    def text(self) -> str:
        """For images.csv: T as it was compared, with its class where there are several, or "argmax"."""
        if self.thresholds is None:
            return "argmax"
        if len(self.thresholds) == 1:
            return repr(self.thresholds[0])
        return " ".join(f"{name}={t!r}" for name, t in zip(self.classes, self.thresholds, strict=True))

    @property
    def words(self) -> str:
        """For people."""
        if self.thresholds is None:
            return "largest probability"
        if len(set(self.thresholds)) == 1:
            said = f"p ≥ {self.thresholds[0]:.3g}"
        else:
            each = zip(self.classes, self.thresholds, strict=True)
            said = f"p ≥ {', '.join(f'{t:.3g} ({name})' for name, t in each)}"
        return f"{said} by {self.rule}" if self.rule else said


@dataclass(frozen=True)
class Whence:
    """What a proposal comes from, as images.csv says it.

    Attributes:
        run: :func:`identity` of the run.
        checkpoint: name of the file.
        epoch: after which its weights were saved.
        threshold: :attr:`Cut.text`.
    """

    run: str
    checkpoint: str
    epoch: str
    threshold: str


@dataclass(frozen=True, eq=False)
class Candidate:
    """A place that is worth a look.

    Attributes:
        kind: "missed", which may be foreground that is left out, or "doubtful", which may be none.
        cls: name of its class.
        box: of *S.
        mask: bool, of the box's shape: its pixels.
        peak: the pixel of largest p, of smallest where it was painted and p is low; inside the mask.
        p: there.
        size: number of its pixels.
        painted: whether the labels contradict the network here, else only the network is unsure.
    """

    kind: Kind
    cls: str
    box: Box
    mask: Mask
    peak: tuple[int, ...]
    p: float
    size: int
    painted: bool

    @property
    def words(self) -> str:
        """Why it is one."""
        if self.kind == "missed":
            why = f"painted, but p only {self.p:.2f}" if self.painted else f"left out, p up to {self.p:.2f}"
            return f"{self.cls} likely missed: {why}"
        why = f"painted as background, but p {self.p:.2f}" if self.painted else f"p no more than {self.p:.2f}"
        return f"{self.cls} doubtful: {why}"

    def shifted(self, plane: Sequence[int]) -> "Candidate":
        """The same in an image that has more axes in front, of which this is a plane."""
        if not plane:
            return self
        return replace(
            self,
            box=(*(slice(at, at + 1) for at in plane), *self.box),
            mask=self.mask.reshape((*(1,) * len(plane), *self.mask.shape)),
            peak=(*plane, *self.peak),
        )

    def is_settled(self, labels: Labels, proposal: Labels) -> bool:
        """Whether someone has painted on it since the proposal.

        Args:
            labels: as they are, (*S) of the whole image.
            proposal: as it was applied, of the same shape.
        """
        return bool(((labels[self.box] != proposal[self.box]) & self.mask).any())


@dataclass(frozen=True, eq=False)
class Proposed:
    """What came of a prediction.

    Attributes:
        labels: uint8 (*S): the proposal, with what was painted left alone.
        painted: uint8 (*S): the labels that it was made from, without an earlier proposal.
        candidates: the likely missed first, then the doubtful, each kind the likeliest first.
        cut: the decision.
        whence: for images.csv.
        notes: what the user should know, a sentence each.
        changed: pixels that it labels otherwise than they were, with an earlier proposal.
        mixed: whether it is other than the network alone would have it, because of what was painted.
    """

    labels: Labels
    painted: Labels
    candidates: tuple[Candidate, ...]
    cut: Cut
    whence: Whence
    notes: tuple[str, ...] = ()
    changed: int = 0
    mixed: bool = False

    def of_kind(self, kind: Kind) -> list[Candidate]:
        """The candidates of a kind."""
        return [candidate for candidate in self.candidates if candidate.kind == kind]

    def layer(self, kind: Kind) -> Labels:
        """Where the candidates of a kind are, uint8 (*S), 1 there."""
        found = np.zeros(self.labels.shape, np.uint8)
        for candidate in self.of_kind(kind):
            found[candidate.box][candidate.mask] = 1
        return found


# Which run, and how it decides


@dataclass(frozen=True)
class Offer:
    """A run that can propose.

    Attributes:
        choice: the run.
        calibrated: rules by which it has thresholds.
        here: whether it was trained on the folder that is annotated.
    """

    choice: RunChoice
    calibrated: tuple[str, ...] = ()
    here: bool = False

    @property
    def words(self) -> str:
        """What a list says of it."""
        return f"{self.choice.words}{' · calibrated' if self.calibrated else ''}"


def offers(watched: Path | None, root: Path | None) -> list[Offer]:
    """The runs that can propose: those trained on the folder first, the newest first.

    Args:
        watched: the run that is watched, or None.
        root: the folder that is annotated, or None.

    Raises:
        InputError: the file of the remembered folders is broken.
    """
    runs = offered_runs(watched)
    found = [Offer(choice, _rules(choice.path), _is_here(choice.path, root)) for choice in runs]
    return sorted(found, key=lambda offer: not offer.here)


def identity(run: Path) -> str:
    """What a run is called where its directory may move: its name, and a digest of how it began.

    A run is identified by its run.json, never by the directory's name; the name is for people. What a run
    that follows its folder comes to know on the way (of its images) does not enter; the moment at which it
    began does, which tells runs of one command apart.

    Raises:
        InputError: it is no run.
    """
    info = RunReader(run).info()
    kept = {key: value for key, value in info.items() if key not in GROWING}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    with suppress(FileNotFoundError), (run / "events.jsonl").open("rb") as file:
        digest.update(file.readline())
    return f"{run.name}#{digest.hexdigest()[:DIGEST]}"


def cut_of(plane: PredictedPlane, run: Path) -> Cut:
    """How a prediction of a run is decided on: by its calibrated T, else as the engine does without one.

    Of several rules that which was calibrated last counts. A T for other weights or another path, or one that
    predicts everything or nothing, is passed over, and the note says so.

    Args:
        plane: the prediction.
        run: the run directory.

    Raises:
        InputError: thresholds.json cannot be read.
    """
    head = str((plane.path or {}).get("head", "sigmoid"))
    usual = Cut(None if head == "softmax" else (HALF,) * len(plane.classes), plane.classes)
    entries = sorted(thresholds_file.read(run).values(), key=lambda entry: entry.made, reverse=True)
    for entry in entries:
        if reason := _unfit(entry, plane):
            usual = replace(usual, note=usual.note or f"T by {entry.rule.name} is not used: {reason}.")
        else:
            return Cut(entry.thresholds, plane.classes, entry.settings)
    return usual


def _unfit(entry: thresholds_file.Entry, plane: PredictedPlane) -> str:
    """Why a calibrated threshold does not hold for a prediction, "" if it does."""
    if tuple(entry.classes) != plane.classes:
        return f"it is of the classes {', '.join(entry.classes)}"
    if plane.weights is None or plane.path is None:
        return "it is not known what predicted here"
    made = Predicted(plane.checkpoint, plane.epoch, plane.weights, plane.path)
    if reason := entry.predicted.differs(made):
        return reason
    if not all(0 < t <= 1 for t in entry.thresholds):
        return "it predicts everything or nothing"
    return ""


def _rules(run: Path) -> tuple[str, ...]:
    try:
        return tuple(thresholds_file.read(run))
    except InputError:  # said when the run is asked to propose
        return ()


def _is_here(run: Path, root: Path | None) -> bool:
    if root is None:
        return False
    try:
        data = str(RunReader(run).info()["dataset"]["root"])
    except (InputError, KeyError, TypeError):
        return False
    return Path(data).resolve() == root.resolve()


# The decision


def decided(p: NDArray[np.floating[Any]], cut: Cut) -> Labels:
    """The number of the class, from 1, that is decided on at each pixel, 0 background.

    As :func:`engine.head.labels`: the class of largest p among those with p >= T; without T the largest of
    all C + 1 probabilities, of which the background's is 1 - Σp.

    Args:
        p: probabilities (C, *S).
        cut: the decision.
    """
    if cut.thresholds is not None:
        return label_map(p, cut.thresholds)
    best = p.max(axis=0)
    found: Labels = (p.argmax(axis=0) + 1).astype(np.uint8)
    found[best <= 1 - p.sum(axis=0)] = 0
    return found


def doubt(p: NDArray[np.floating[Any]], cut: Cut) -> Mask:
    """Where p is close to T: at least T/2, and less than (1 + T)/2, half way from T to 0 or 1; of any class.

    For argmax: where the two largest of all C + 1 probabilities are less than 1/2 apart, which for two is
    the same as T = 1/2.

    Args:
        p: probabilities (C, *S).
        cut: the decision.

    Returns:
        bool (*S).
    """
    if cut.thresholds is None:
        every = np.concatenate([1 - p.sum(axis=0, keepdims=True), p])
        two = np.partition(every, -2, axis=0)[-2:]
        return np.asarray(two[1] - two[0] < HALF)
    near = np.zeros(p.shape[1:], np.bool_)
    for values, t in zip(p, cut.limits, strict=True):
        near |= (values >= t / 2) & (values < (1 + t) / 2)
    return near


# The proposal


def values_of(classes: Sequence[str], known: Sequence[AnnotationClass]) -> dict[int, int]:
    """Number of a run's class, from 0 → value in the masks, by the classes' names.

    A run whose only class has no name takes that of a folder that has only one.

    Args:
        classes: names of the run's classes.
        known: the folder's.

    Raises:
        InputError: they have no name in common.
    """
    values = {each.name: each.value for each in known}
    found = {number: values[name] for number, name in enumerate(classes) if name in values}
    if found:
        return found
    if len(classes) == len(known) == 1 and UNNAMED in (classes[0], known[0].name):
        return {0: known[0].value}
    raise InputError(
        f"the run predicts {', '.join(classes)}, and the classes here are {', '.join(values) or 'none yet'}: "
        "a run trained on these, or classes of the same names, would work."
    )


def proposed(
    p: NDArray[np.floating[Any]],
    cut: Cut,
    values: Mapping[int, int],
    painted: Labels,
    *,
    over: bool = False,
    spare: bool = False,
    whole: bool = True,
) -> Labels:
    """The labels that a prediction proposes.

    Args:
        p: probabilities (C, *S) in [0, 1].
        cut: the decision.
        values: number of a class → value in the masks.
        painted: uint8 (*S), the labels so far; what is not 255 stays.
        over: also over what is painted. What is proposed as unlabelled never is.
        spare: leave pixels unlabelled where p is close to T, see :func:`doubt`.
        whole: whether the network knows all classes here. If not, what it takes for background may be a
            class that it does not know, and stays unlabelled.

    Returns:
        uint8 (*S).
    """
    table: Labels = np.full(256, BACKGROUND if whole else UNLABELLED, np.uint8)
    for number, value in values.items():
        table[number + 1] = value
    found: Labels = table[decided(p, cut)]
    if spare:
        found[doubt(p, cut)] = UNLABELLED
    free = painted == UNLABELLED
    if over:
        free |= found != UNLABELLED
    return np.asarray(np.where(free, found, painted), np.uint8)


def painted_only(labels: Labels, last: Proposed | None) -> Labels:
    """The labels without what the last proposal put there and nobody has touched since.

    So another run's proposal takes the place of an earlier one, and never that of what was painted.

    Args:
        labels: uint8 (*S).
        last: proposal for this image; None without one.
    """
    if last is None or last.labels.shape != labels.shape:
        return labels.copy()
    return np.asarray(np.where(labels == last.labels, last.painted, labels), np.uint8)


# The candidates


def candidates(
    p: NDArray[np.floating[Any]],
    cut: Cut,
    values: Mapping[int, int],
    painted: Labels,
    ended: Ended = lambda: False,
) -> list[Candidate]:
    """Places that are worth a look: the likely missed first, then the doubtful.

    Of each class, with neighbours across corners too:

    - likely missed: components of p >= T/2 that have no pixel of the decision and lie mostly where nothing
      is painted, by Σp, the foreground that is to be expected there; and before them what is painted as the
      class and not decided on, by its size;
    - doubtful: components of the decision with p < (1 + T)/2 throughout, mostly where nothing is painted,
      p nearest to T first; and before them what is decided on where background is painted, by its size.

    Where painted and decided objects overlap, what differs only by a rim is no candidate: outlines are
    seldom painted to the pixel.

    Args:
        p: probabilities (C, *S).
        cut: the decision.
        values: number of a class → value in the masks; other classes are passed over.
        painted: uint8 (*S), the labels before the proposal.
        ended: says whether to stop.

    Raises:
        DroppedError: nobody waits any more.
    """
    label, free, background = decided(p, cut), painted == UNLABELLED, painted == BACKGROUND
    ranked: dict[Kind, list[tuple[tuple[float, ...], Candidate]]] = {"missed": [], "doubtful": []}
    for number, value in values.items():
        own, t, name = p[number], cut.limits[number], cut.classes[number]
        mine, there = label == number + 1, painted == value
        low = mine | ((own >= t / 2) & (label == BACKGROUND))
        rounds: list[tuple[Kind, Iterator[tuple[float, Candidate]]]] = [
            ("missed", _contradicted("missed", name, own, there & ~mine, mine & there)),
            ("missed", _left_out(name, own, low, mine, free)),
            ("doubtful", _contradicted("doubtful", name, own, mine & background, mine & there)),
            ("doubtful", _unsure(name, own, mine, free, (1 + t) / 2)),
        ]
        for kind, found in rounds:
            if ended():
                raise DroppedError
            for rank, candidate in found:
                ranked[kind].append(((not candidate.painted, rank), candidate))
    kept: list[Candidate] = []
    for each in ranked.values():
        each.sort(key=lambda pair: pair[0])
        kept += [candidate for _, candidate in each[:MOST]]
    return kept


@dataclass(frozen=True, eq=False)
class _Parts:
    """Connected components of a mask: `numbers` int32 (*S), from 1, `sizes` (count,), `boxes` of each."""

    numbers: NDArray[np.int32]
    sizes: NDArray[np.int64]
    boxes: list[Box]

    @classmethod
    def of(cls, mask: Mask) -> "_Parts":
        """With 8 neighbours, or 26 of volumes."""
        numbers = np.empty(mask.shape, np.int32)
        count = ndimage.label(mask, np.ones((3,) * mask.ndim, np.bool_), output=numbers)
        sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
        return cls(numbers, sizes, ndimage.find_objects(numbers))

    def count(self, mask: Mask) -> NDArray[np.int64]:
        """Pixels of a mask in each component."""
        return np.bincount(self.numbers[mask], minlength=len(self.sizes) + 1)[1:]

    def inside(self, number: int) -> tuple[Box, Mask]:
        """Box and mask of a component, 0 … count - 1."""
        box = self.boxes[number]
        return box, self.numbers[box] == number + 1


def _left_out(
    name: str, p: NDArray[Any], low: Mask, mine: Mask, free: Mask
) -> Iterator[tuple[float, Candidate]]:
    """Components of `low` without a decided pixel, by the expected foreground, largest first."""
    parts = _Parts.of(low)
    kept = (parts.count(mine) == 0) & (2 * parts.count(free) >= parts.sizes)
    sums = np.bincount(parts.numbers.ravel(), p.ravel(), minlength=len(parts.sizes) + 1)[1:]
    for number in _best(kept, -sums):
        yield float(-sums[number]), _candidate("missed", name, p, parts, number)


def _unsure(
    name: str, p: NDArray[Any], mine: Mask, free: Mask, high: float
) -> Iterator[tuple[float, Candidate]]:
    """Components of the decision in which p stays below `high`, the least sure first."""
    parts = _Parts.of(mine)
    kept = (parts.count(mine & (p >= high)) == 0) & (2 * parts.count(free) >= parts.sizes)
    found = [_candidate("doubtful", name, p, parts, number) for number in map(int, np.flatnonzero(kept))]
    yield from ((candidate.p, candidate) for candidate in found)


def _contradicted(
    kind: Kind, name: str, p: NDArray[Any], mask: Mask, agreed: Mask
) -> Iterator[tuple[float, Candidate]]:
    """Components in which painted labels and the decision differ, but for rims of what both agree on."""
    if not mask.any():
        return
    parts = _Parts.of(mask)
    beside = ndimage.binary_dilation(agreed, np.ones((3,) * mask.ndim, np.bool_))
    core = ndimage.binary_erosion(mask)  # by the unit cross; what lies beyond the image's end is no mask
    kept = (parts.count(mask & beside) == 0) | (parts.count(core) > 0)
    for number in _best(kept, -parts.sizes):
        yield float(-parts.sizes[number]), _candidate(kind, name, p, parts, number, painted=True)


def _best(kept: Mask, ranks: NDArray[Any]) -> list[int]:
    """Of those kept the :data:`MOST` lowest."""
    at = np.flatnonzero(kept)
    return [int(number) for number in at[np.argsort(ranks[at], kind="stable")][:MOST]]


def _candidate(
    kind: Kind, name: str, p: NDArray[Any], parts: _Parts, number: int, *, painted: bool = False
) -> Candidate:
    box, mask = parts.inside(number)
    lowest = painted and kind == "missed"
    values = np.where(mask, p[box], np.inf if lowest else -np.inf)
    at = np.unravel_index(int(values.argmin() if lowest else values.argmax()), mask.shape)
    return Candidate(
        kind=kind,
        cls=name,
        box=box,
        mask=mask,
        peak=tuple(part.start + int(index) for part, index in zip(box, at, strict=True)),
        p=float(values[at]),
        size=int(parts.sizes[number]),
        painted=painted,
    )


# All of it


def image_source(
    layers: Sequence[Any], root: Path, entry: Entry, plane: tuple[int, ...] | None, dims: int
) -> PlaneSource:
    """What of an annotated image is to be predicted: its files themselves, or planes of its layer.

    Args:
        layers: its Image layers: one, or one a channel.
        root: the folder.
        entry: of the image.
        plane: index of the one plane, for a run of 2D images and a volume; all of them if None.
        dims: 2 for a run of images, 3 of volumes.

    Raises:
        InputError: it is not open, or planes of an image with several channels were asked for.
    """
    if not layers:
        raise InputError(f"{entry.image} is not shown: wait until it is, or choose it again in the list.")
    source = plane_source(layers[0], plane, dims)
    if source.leading and len(layers) > 1:
        raise InputError(
            f"{entry.image} is a volume of {len(layers)} channels, and the run was trained on 2D images: a "
            "run that was trained on volumes would work."
        )
    return replace(source, files=tuple(root / name for name in entry.files))


def propose(
    found: PredictedArrays,
    run: Path,
    labels: Labels,
    known: Sequence[AnnotationClass],
    last: Proposed | None = None,
    *,
    over: bool = False,
    spare: bool = False,
    ended: Ended = lambda: False,
) -> Proposed:
    """What a prediction of an image proposes: labels and candidates. Slow for volumes: for a worker.

    Args:
        found: the prediction, of the whole image or of some of its planes; the others stay as they are.
        run: the run directory.
        labels: uint8 (*S) of the whole image, as they are now.
        known: the folder's classes.
        last: what was proposed for the image before, if anything.
        over, spare: as :func:`proposed`.
        ended: says whether to stop.

    Raises:
        InputError: classes that have nothing to do with each other, another size, or an unreadable file.
        DroppedError: nobody waits any more.
    """
    values = values_of(found.classes, known)
    if labels.size > MOST_PIXELS:
        raise InputError(
            f"{found.source.name!r} has {labels.size:,} pixels, too many to be proposed for at once: up to "
            f"{MOST_PIXELS:,} would work."
        )
    if found.source.shape != labels.shape:
        raise InputError(
            f"the prediction of {found.source.name!r} has shape {found.source.shape}, and its labels have "
            f"{labels.shape}: a prediction of the same image would work."
        )
    cut = cut_of(found.first, run)
    missing = [each.name for each in known if each.value not in values.values()]
    painted = painted_only(labels, last)
    made, pure, places = painted.copy(), np.full_like(painted, UNLABELLED), list[Candidate]()
    for index, plane in found.planes.items():
        p = np.asarray(plane.levels[0][:])
        if ended():
            raise DroppedError
        settings = {"over": over, "spare": spare, "whole": not missing}
        made[index] = proposed(p, cut, values, painted[index], **settings)
        pure[index] = proposed(p, cut, values, pure[index], **settings)
        places += [each.shifted(index) for each in candidates(p, cut, values, painted[index], ended)]
    if len(found.planes) > 1:
        places = _merged(places)
    notes = [cut.note] if cut.note else []
    if missing:
        notes.append(
            f"the run does not know {', '.join(missing)}: what it takes for background stays unlabelled."
        )
    whence = Whence(identity(run), found.checkpoint, str(found.epoch), cut.text)
    return Proposed(
        labels=made,
        painted=painted,
        candidates=tuple(places),
        cut=cut,
        whence=whence,
        notes=tuple(notes),
        changed=int(np.count_nonzero(made != labels)),
        mixed=bool((made != pure).any()),
    )


def _merged(places: Sequence[Candidate]) -> list[Candidate]:
    """Candidates of several planes, plane by plane within what is painted and what is not."""
    kinds: tuple[Kind, ...] = ("missed", "doubtful")
    return [
        each
        for kind in kinds
        for each in sorted(
            (place for place in places if place.kind == kind), key=lambda place: not place.painted
        )[:MOST]
    ]


# The layers

ROLES: Mapping[Kind, tuple[str, str]] = {
    "missed": ("likely missed", colours.MISSED),
    "doubtful": ("doubtful", colours.FALSE_ALARM),
}
"""What the layer of a kind of candidates is called, and its colour."""
CONTOUR = 2
"""Pixels of the line around a candidate: what it is about stays in view."""


def candidate_layer(made: Proposed, kind: Kind, found: PredictedArrays) -> LayerArguments:
    """A kind of candidates as a Labels layer that lies on the image, outlined; arguments of add_labels."""
    from napari.utils.colormaps import DirectLabelColormap

    name, colour = ROLES[kind]
    way = found.source.transform
    parts = ("scale", "translate", "rotate", "shear", "affine")
    arguments = {
        "name": f"{name} · {found.source.name}",
        "metadata": {MARK: {"role": name, "kind": "candidates", "target": found.source.name}},
        "colormap": DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", 1: colour}),
        "opacity": 1.0,
        "blending": "translucent_no_depth",
        **{part: np.asarray(getattr(way, part)) for part in parts},
        "units": way.units,
        "axis_labels": way.axis_labels,
    }
    return LayerArguments(made.layer(kind), arguments)
