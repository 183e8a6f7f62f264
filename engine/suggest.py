"""Suggest which images of a folder to annotate next, by what a trained run predicts of them.

Ranks the images that are not annotated yet and writes FOLDER/annotation/suggestions.json: for each image its
score, the reason in words, and the boxes in it worth painting. The workbench goes through them in this order.

Not annotated yet are, in a folder that was annotated in the workbench, the images that are untouched or
started; in any other folder those without a mask; and where all have one, those that the run has neither
trained nor validated on.

Of several --order NAME the first one is written; the table shows the others' ranks beside it.
"""

from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine import decision, fingerprint, suggestions_file, tables, thresholds_file
from engine.command import Parser, existing, run
from engine.data import annotated
from engine.data.decode import stem
from engine.data.layouts import list_images
from engine.data.read import read_spaced
from engine.data.rows import rows_of
from engine.decision import Decision
from engine.errors import InputError
from engine.inputs import Input, Wanted, check
from engine.suggestion import Candidate, Seen, Suggestion, appearance, candidate, ranked
from engine.suggestion.specs import Order
from engine.suggestions_file import ImageEntry, PlaceEntry, Suggestions, named_order
from engine.trained import Trained

SHOWN = 20
"""Rows of the printed table."""
WIDEST = 60
"""Letters of an image's name in it."""


@dataclass(frozen=True)
class Folder:
    """The images of a folder.

    Attributes:
        root: of the folder.
        open: those that may be suggested, named by their paths below the folder as in
            :class:`engine.data.annotated.Entry`.
        known: those that are annotated.
        masks: open image → path of the mask that was begun.
        trained_on: whether the run must be asked which of the open ones it has seen.
    """

    root: Path
    open: tuple[str, ...]
    known: tuple[str, ...]
    masks: Mapping[str, Path] = field(default_factory=dict)
    trained_on: bool = False

    def input(self, image: str) -> Input:
        """An image's files."""
        files = image.split(annotated.SEPARATOR)
        return Input(stem(files[0]), tuple(self.root / file for file in files))

    def unpainted(self, image: str, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
        """Where nothing is labelled yet, bool (*S); None if nobody has begun.

        Raises:
            InputError: the mask cannot be read, or has not the image's shape S.
        """
        path = self.masks.get(image)
        if path is None:
            return None
        mask = annotated.read_mask(path)
        if mask.shape != shape:
            raise InputError(
                f"the mask {path} has {tables.extent(mask.shape)} and its image {tables.extent(shape)}: "
                "equal sizes are needed."
            )
        return np.asarray(mask == annotated.UNLABELLED)


@dataclass(frozen=True)
class Opened:
    """An image that the run can take.

    Attributes:
        pixels: (*S, channels), as read.
        spacing: mm along each axis of S, or None.
        unpainted: bool (*S), where nothing is labelled yet; None if nobody has begun.
    """

    pixels: NDArray[Any]
    spacing: tuple[float, ...] | None
    unpainted: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Viewed:
    """What is kept of a folder's images when their pixels are let go.

    Attributes:
        names: of the images that were predicted.
        candidates: of each order, for each image.
        looks: of the images, (features,) each; empty where no order asks.
        known: of the annotated ones.
        left_out: image → why it could not be read.
    """

    names: list[str] = field(default_factory=list)
    candidates: list[list[Candidate]] = field(default_factory=list)
    looks: list[NDArray[np.float64]] = field(default_factory=list)
    known: list[NDArray[np.float64]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``python -m engine.suggest``."""
    parser = Parser("suggest", __doc__ or "")
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("folder", metavar="FOLDER", help="folder of images")
    orders = ", ".join(suggestions_file.ORDERS)
    parser.add_argument(
        "--order", nargs="+", default=[suggestions_file.DEFAULT], metavar="NAME",
        help=f"{orders} (default: {suggestions_file.DEFAULT})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="of the order random (default: 0)")
    parser.add_argument("--limit", type=int, metavar="N", help="suggest no more than the first N")
    parser.add_argument("--out", type=Path, metavar="FILE", help="in place of FOLDER/annotation/…")
    parser.add_argument(
        "--threshold", metavar="T|RULE",
        help="T in p ≥ T, or the rule that chose it (default: the run's last calibration, else 0.5)",
    )  # fmt: skip
    parser.add_argument("--checkpoint", help="best, last or a file (default: best if there is a val split)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    options = parser.parse_args(arguments)
    options.threshold = decision.given(options.threshold)
    wanted = orders_of(options)
    root = folder_of(options.folder)
    trained = Trained.open(options.run, options.checkpoint, options.device)
    decided = decide(trained, options.threshold)
    viewed = view(trained, survey(root, trained), wanted, decided)
    found = [rank(viewed, number, order) for number, order in enumerate(wanted)]
    shown = found[0][: options.limit]
    path = options.out or suggestions_file.path_of(root)
    suggestions_file.write(path, content(trained, wanted[0], shown))
    print(f"{wanted[0].title}; decision {decided.words}\n")
    print(table(shown, wanted, found))
    if len(shown) > SHOWN:
        print(f"… and {len(shown) - SHOWN} more")
    print(f"\n{len(shown)} of {images(len(found[0]))} suggested in {path}")
    for image, reason in viewed.left_out.items():
        print(f"left out: {image}: {reason}")
    return 0


def orders_of(options: Namespace) -> list[Order]:
    """The orders that are asked for, each once.

    Raises:
        InputError: an unknown one, a seed that none of them takes, or a limit below 1.
    """
    names = list(dict.fromkeys(options.order))
    orders: list[Order] = [named_order(name, options.seed) for name in names]
    if options.seed is not None and not any("seed" in type(order).model_fields for order in orders):
        raise InputError(f"--seed goes with --order random, and {' and '.join(names)} draw nothing.")
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit} leaves nothing: 1 or more would work.")
    return orders


def folder_of(given: str) -> Path:
    """A folder that the user named.

    Raises:
        InputError: there is none.
    """
    root = existing(given)
    if not root.is_dir():
        raise InputError(f"{given} is a file: the folder that holds the images is needed.")
    return root


def survey(root: Path, trained: Trained) -> Folder:
    """The images of a folder, those that are annotated apart.

    Raises:
        InputError: no image there, or none that is not annotated yet.
    """
    listing = list_images(root)
    names = tuple(annotated.SEPARATOR.join(files) for files in listing.images)
    begun: dict[str, Path] = {}
    if annotated.is_annotated(root):
        entries = annotated.read_set(root).entries
        done = {name for name in names if name in entries and entries[name].status in ("done", "reviewed")}
        if len(done) == len(names):
            raise InputError(
                f"all {images(len(names))} of {root} are done or reviewed: more images in it, or the status "
                "started for those that shall be looked at again, would work."
            )
        begun = {name: root / entries[name].mask for name in names if name in entries and entries[name].mask}
    else:
        done = {name for name in names if name.split(annotated.SEPARATOR)[0] in listing.masks}
        if len(done) == len(names):
            return Folder(root, names, (), trained_on=True)
    left = tuple(name for name in names if name not in done)
    return Folder(root, left, tuple(name for name in names if name in done), begun)


def decide(trained: Trained, threshold: float | str | None) -> Decision:
    """The decision that is asked for; else that of the rule which was calibrated last and still fits."""
    if threshold is None:
        predicted = trained.predicted()
        fitting = [
            entry for entry in thresholds_file.read(trained.root).values()
            if tuple(entry.classes) == trained.classes and not entry.predicted.differs(predicted)
        ]  # fmt: skip
        if fitting:
            threshold = max(fitting, key=lambda entry: entry.made).rule.name
    return decision.decide(trained, threshold)


def view(trained: Trained, folder: Folder, orders: Sequence[Order], decided: Decision) -> Viewed:
    """Predict the open images one by one, and keep of each what the orders need.

    Raises:
        InputError: none could be read, none is left that the run has not seen, or the network gives NaN.
    """
    viewed = Viewed(candidates=[[] for _ in orders])
    looks = any(order.looks for order in orders)
    noun = "image" if trained.dims == 2 else "volume"
    seen: list[str] = []
    bar = tqdm(folder.open, unit=noun, desc="suggest")
    for name, image in opened(trained, folder, bar, viewed.left_out):
        if folder.trained_on and trained_on(trained, image.pixels):
            seen.append(name)
            if looks:
                viewed.known.append(look(trained, image))
            continue
        made = predicted(trained, name, image, decided)
        viewed.names.append(name)
        for order, kept in zip(orders, viewed.candidates, strict=True):
            kept.append(candidate(order, made, unpainted=image.unpainted))
        if looks:
            viewed.looks.append(look(trained, image))
    if not viewed.names:
        raise nothing(folder, seen, viewed.left_out, trained)
    if looks:
        viewed.known.extend(look(trained, image) for _, image in opened(trained, folder, folder.known, {}))
    return viewed


def opened(
    trained: Trained, folder: Folder, names: Iterable[str], left_out: dict[str, str]
) -> Iterator[tuple[str, Opened]]:
    """Images that the run can take, one by one; why others cannot be used is put into `left_out`."""
    data = trained.config.data
    for name in names:
        given = folder.input(name)
        try:
            check(given, Wanted(trained.root, trained.channels, trained.dims, data.axes))
            case = given.case(data.axes)
            pixels, spacing = read_spaced(case, trained.channels)
            trained.frame(rows_of(pixels, spacing=spacing))  # refuses what has no spacing where one is needed
            image = Opened(pixels, spacing, folder.unpainted(name, pixels.shape[:-1]))
        except (InputError, OSError) as error:
            left_out[name] = str(error)
        else:
            yield name, image


def trained_on(trained: Trained, pixels: NDArray[Any]) -> bool:
    """Whether the run was trained or validated on an image (*S, channels) of the same pixels."""
    known = fingerprint.known_as([pixels], pixels.shape, pixels.dtype)
    return any(trained.seen_in(digest) is not None for digest in known)


def predicted(trained: Trained, name: str, image: Opened, decided: Decision) -> Seen:
    """An image as the run sees it, at its own size.

    Raises:
        InputError: the network gives NaN.
    """
    p = trained.probability(image.pixels, spacing=image.spacing)
    if np.isnan(p).any():
        raise InputError(
            f"the network of {trained.root} ({trained.file}, epoch {trained.epoch}) gives NaN for {name}, so "
            "its training had diverged: an earlier --checkpoint would work."
        )
    given = decided.threshold
    each = tuple(given) if isinstance(given, Sequence) else (0.5 if given is None else given,) * len(p)
    return Seen(name, p, trained.masks(p, given), each, trained.classes)


def look(trained: Trained, image: Opened) -> NDArray[np.float64]:
    """How an image looks to the network."""
    return appearance(trained.as_seen(image.pixels, image.spacing)[0].movedim(0, -1).numpy())


def nothing(folder: Folder, seen: Sequence[str], left_out: dict[str, str], trained: Trained) -> InputError:
    """Why there is nothing to suggest."""
    if left_out:
        reason = next(iter(left_out.values()))
        return InputError(f"none of {images(len(left_out))} of {folder.root} can be used: {reason}")
    return InputError(
        f"all {images(len(seen))} of {folder.root} have masks, and the run {trained.root} was trained or "
        "validated on them: a folder with others would work."
    )


def rank(viewed: Viewed, number: int, order: Order) -> list[Suggestion]:
    """The suggestions of one of the orders."""
    looks = np.stack(viewed.looks) if viewed.looks else None
    known = np.stack(viewed.known) if viewed.known else None
    return ranked(order, viewed.candidates[number], looks, known)


def content(trained: Trained, order: Order, found: Sequence[Suggestion]) -> Suggestions:
    """What is written."""
    return Suggestions(
        run=str(trained.root.resolve()),
        checkpoint=trained.file,
        epoch=trained.epoch,
        order=order.model_dump()["name"],
        seed=order.settings().get("seed"),
        time=datetime.now(UTC),
        images=tuple(
            ImageEntry(
                image=each.image,
                rank=each.rank,
                score=each.score,
                reason=each.reason,
                places=tuple(
                    PlaceEntry(
                        box=tuple((side.start, side.stop) for side in place.box),
                        score=place.score,
                        reason=place.reason,
                    )
                    for place in each.places
                ),
            )
            for each in found
        ),
    )


def table(shown: Sequence[Suggestion], orders: Sequence[Order], found: Sequence[Sequence[Suggestion]]) -> str:
    """The first suggestions, with their ranks in the other orders."""
    others = [{each.image: each.rank for each in ranks} for ranks in found[1:]]
    names = [str(order.model_dump()["name"]) for order in orders[1:]]
    rows = [
        [
            _shorten(each.image),
            str(each.rank),
            f"{each.score:.3g}",
            *(str(ranks[each.image]) for ranks in others),
            each.reason,
        ]
        for each in shown[:SHOWN]
    ]
    return tables.text(["image", "rank", "score", *names, "reason"], rows)


def _shorten(name: str) -> str:
    return name if len(name) <= WIDEST else f"…{name[1 - WIDEST :]}"


def images(count: int) -> str:
    """So many images, in words."""
    return f"{count} image{'s' * (count != 1)}"


if __name__ == "__main__":
    run(main)
