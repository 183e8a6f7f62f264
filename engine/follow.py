"""Taking masks up while training goes on: what becomes of images, misses and watched items then."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import fingerprint
from engine.config import RunConfig
from engine.data.dataset import Dataset, kept_sample
from engine.data.following import READ, Change, Live, Replay, key_of, with_cases
from engine.data.growing import appended, replaced
from engine.data.images import Images
from engine.data.journal import FOLDER, Entry, read_pages, took_up, write_page
from engine.data.layouts import Case
from engine.data.store import MixedKindsError, Sample, Store, fill, frame_of
from engine.errors import InputError
from engine.prepare import Prepared, maps_for, replay, window_in
from engine.record import WatchedItem
from engine.watch import watch_one


@dataclass(frozen=True)
class TakenUp:
    """What training took up at the beginning of an epoch.

    Attributes:
        epoch: 1…E.
        entries: images whose masks were taken up, those that changed before those that joined.
        labels: their masks, uint8 (*S), in the size of the store.
        items: watched images that have another truth or have joined, by their place among the watched.
        said: what the user should know, a sentence each.
    """

    epoch: int
    entries: tuple[Entry, ...] = ()
    labels: tuple[NDArray[np.uint8], ...] = ()
    items: tuple[tuple[int, WatchedItem], ...] = ()
    said: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What was taken up, in words."""
        return took_up([entry.case.name for entry in self.entries])


def take_up(ready: Prepared, config: RunConfig, epoch: int) -> tuple[Prepared, TakenUp | None]:
    """Take up the masks that were saved since the epoch before, of train and val.

    All but the images concerned stays as it is: no other is decoded, and what training has is the very same
    as if it had begun with these images and masks, in this order.

    Args:
        ready: what training has.
        config: the run.
        epoch: that begins.

    Returns:
        What training goes on with, and what was taken up; None where there is nothing to be said of it.

    Raises:
        InputError: a run is repeated, and one of its images is another one now.
    """
    assert ready.following is not None
    changes, said = ready.following.changes(ready.dataset, epoch)
    exact = not isinstance(ready.following, Live)
    return apply(ready, config, epoch, changes, said, exact=exact)


def apply(
    ready: Prepared, config: RunConfig, epoch: int, changes: Sequence[Change], said: Sequence[str] = (), *,
    exact: bool,
) -> tuple[Prepared, TakenUp | None]:  # fmt: skip
    """As :func:`take_up`, of changes that are known; where they must be `exact`, what cannot be is raised."""
    problems = list(said)
    stores: dict[str, Images | None] = {"train": ready.train, "val": ready.val}
    dataset, taken = ready.dataset, list[Taken]()
    for part in READ:
        mine, images = [change for change in changes if change.part == part], stores[part]
        if mine:
            assert isinstance(images, Store)
            mine = list(usable(mine, images, config, None if exact else problems))
            stores[part], found = changed(images, mine, config, dataset, None if exact else problems)
            taken += found
            dataset = with_cases(dataset, [(each.change.case, part) for each in found if each.change.new])
    if not taken:
        return ready, TakenUp(epoch, said=tuple(problems)) if problems else None
    for each in taken:
        if each.change.new and ready.following is not None:
            ready.following.joined(key_of(each.change.case, dataset.found.root))
    train = stores["train"]
    assert train is not None
    loader = replace(ready.loader, store=train, size=window_in(train.shapes, config.data), shapes=None)
    corrected = [each.number for each in taken if each.change.part == "train" and not each.change.new]
    ready.modulation.take_up(train.shapes.cpu(), corrected, loader.revisits)
    val = stores["val"]
    ready = replace(
        ready, train=train, val=val, loader=loader, dataset=dataset, validated=0 if val is None else len(val)
    )
    ready, items = watched_after(ready, config, epoch, taken)
    return ready, noted(epoch, taken, stores, items, problems)


@dataclass(frozen=True)
class Taken:
    """A change that was taken up, and the number of its image in its split."""

    change: Change
    number: int


def usable(
    changes: Sequence[Change], images: Store, config: RunConfig, problems: list[str] | None
) -> Iterator[Change]:
    """Changes that fit the images; the others are said among the problems, or raised if these are None."""
    digests = dict(zip(images.names, images.digests, strict=True))
    for change in changes:
        sample, case = change.sample, change.case
        try:
            frame_of(sample.image.shape[:-1], sample.spacing, config.data)
            if not change.new and fingerprint.image(sample.image) != digests[case.name]:
                raise InputError(
                    f"the image {case.images[0].path} is another one than training has, which goes on with "
                    "image and mask of before: a file of another name would join."
                )
            yield change
        except InputError as error:
            if problems is None:
                raise
            problems.append(f"the mask of {case.name} was not taken up: {error}")


def changed(
    images: Store, changes: Sequence[Change], config: RunConfig, dataset: Dataset, problems: list[str] | None
) -> tuple[Store, list[Taken]]:
    """The images of a split with corrected masks and new images, and which changes made a difference."""
    maps = maps_for(config, len(images.truth.bits))
    numbers = {name: number for number, name in enumerate(images.names)}
    old = [Taken(change, numbers[change.case.name]) for change in changes if not change.new]
    after = replaced(images, {each.number: each.change.sample for each in old}, maps)
    old = [each for each in old if not np.array_equal(after.labels(each.number), images.labels(each.number))]
    new = [change for change in changes if change.new]
    samples = [change.sample for change in new]
    try:
        after = appended(after, samples, config.data, maps)
    except MixedKindsError:
        try:
            every = Again(after, dataset.cases(changes[0].part), dataset.channels, samples)
            after = fill(every, len(images.truth.bits), config.data, None, math.inf, maps).to(images.device)
        except InputError as error:
            if problems is None:
                raise
            problems.append(str(error))
            new = []
    return after, [*old, *(Taken(change, number) for number, change in enumerate(new, len(images)))]


@dataclass(frozen=True)
class Again:
    """The images of a store, decoded once more, with the masks that it has, and those that join them."""

    images: Store
    cases: Sequence[Case]
    channels: int
    more: Sequence[Sample]

    def __iter__(self) -> Iterator[Sample]:
        for number, case in enumerate(self.cases):
            sample = kept_sample(case, self.channels, self.images.labels(number))
            if fingerprint.image(sample.image) != self.images.digests[number]:
                names = ", ".join(sample.name for sample in self.more)
                raise InputError(
                    f"{names} cannot join: the pixels are of another type than those so far, for which all "
                    f"images are read once more, and {case.images[0].path} has changed meanwhile."
                )
            yield sample
        yield from self.more


def watched_after(
    ready: Prepared, config: RunConfig, epoch: int, taken: Sequence[Taken]
) -> tuple[Prepared, list[tuple[int, WatchedItem]]]:
    """The watched images with the truths that they have now, and behind them those that joined.

    Returns:
        What training goes on with; place and content of those that are new or changed.
    """
    stores = {"train": ready.train, "val": ready.val}
    watched, places = list(ready.watched), []
    for place, item in enumerate(watched):
        images = stores[item.split]
        if any((each.change.part, each.number) == (item.split, item.number) for each in taken):
            assert images is not None
            watched[place] = item.again(images)
            places.append(place)
    room = config.watch.followed - sum(item.joined > 0 for item in watched)
    for each in [each for each in taken if each.change.new][: max(0, room)]:
        images = stores[each.change.part]
        assert images is not None
        places.append(len(watched))
        watched.append(watch_one(config, images, ready.dataset, each.change.part, each.number, epoch))
    return replace(ready, watched=watched), [(place, watched[place].record()) for place in places]


def noted(
    epoch: int, taken: Sequence[Taken], stores: Mapping[str, Images | None],
    items: Sequence[tuple[int, WatchedItem]], said: Sequence[str],
) -> TakenUp:  # fmt: skip
    """What is kept of a take-up."""
    entries, labels = [], []
    for change, number in ((each.change, each.number) for each in taken):
        images = stores[change.part]
        assert isinstance(images, Store)
        labels.append(images.labels(number))
        mask = fingerprint.image(labels[-1][..., None])
        entries.append(
            Entry(change.case, change.part, change.new, images.digests[number], mask, change.stamp)
        )
    return TakenUp(epoch, tuple(entries), tuple(labels), tuple(items), tuple(said))


def restored(ready: Prepared, config: RunConfig, run: Path, done: int) -> Prepared:
    """What training had after an epoch of a run that is resumed, with all that it took up until then.

    Args:
        ready: prepared with the first page of the run's journal.
        config: the run.
        run: its directory.
        done: the last whole epoch, 0 before the first.

    Raises:
        InputError: a damaged journal, or an image that is gone or another one now.
    """
    root = ready.dataset.found.root
    first, *pages = read_pages(run / FOLDER, root, 0, done)
    stamps = {key_of(entry.case, root): entry.stamp for page in (first, *pages) for entry in page.entries}
    ready = replace(ready, following=Replay({page.epoch: page for page in pages}))
    for page in pages:
        ready, _ = take_up(ready, config, page.epoch)
    if config.data.replay is not None:
        return replace(ready, following=replay(Path(config.data.replay), ready.dataset))
    return replace(ready, following=Live.of(ready.dataset, stamps))


def write_beginning(ready: Prepared, folder: Path) -> None:
    """Write the first page of a run's journal, before its first epoch.

    Raises:
        OSError: the disk is full or not writable.
    """
    stamps = ready.following.dealt if isinstance(ready.following, Live) else {}
    root, dataset, entries = ready.dataset.found.root, ready.dataset, list[Entry]()
    stores = {"train": ready.train, "val": ready.val}
    for part in dataset.splits:
        images = stores.get(part)
        for number, case in enumerate(dataset.cases(part)):
            digest = "" if images is None else images.digests[number]
            entries.append(Entry(case, part, True, digest, "", stamps.get(key_of(case, root), ())))
    labels = (
        images.labels(number)
        for images in (ready.train, ready.val)
        if isinstance(images, Store)
        for number in range(len(images))
    )
    write_page(folder, root, 0, entries, labels, **dataset.about())


def event(entries: Sequence[Entry]) -> dict[str, Any]:
    """What the event log says of a take-up."""
    return {
        "images": [
            {"name": entry.case.name, "split": entry.part, "new": entry.new, "digest": entry.mask}
            for entry in entries
        ]
    }
