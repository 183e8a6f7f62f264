"""All that training needs, decoded and checked, before the first step: here a user's mistakes are refused."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import psutil
import torch
from torch import Tensor, nn

from engine.config import RunConfig
from engine.data import lazy, store
from engine.data.dataset import Dataset
from engine.data.following import Following, Live, Replay
from engine.data.images import Images
from engine.data.journal import FOLDER, Page, read_pages
from engine.data.lazy import LazyStore
from engine.data.loader import Loader
from engine.data.specs import Data
from engine.device import find_device, find_precision
from engine.errors import InputError
from engine.head import Head, channels
from engine.infer import Predictor
from engine.initial import Origin, begin, open_dataset
from engine.losses import objective as objectives
from engine.losses.boundary import signed_distance
from engine.losses.specs import ElevatedSensitivity, Loss
from engine.losses.topology import tubed_skeleton
from engine.models.quick import quicken
from engine.modulation.strategies import NoModulation
from engine.ranks import ALONE, Ranks
from engine.watch import Watched, watch


@dataclass(frozen=True)
class Prepared:
    """All that training needs, decoded, checked and on its device: what :func:`prepare` makes.

    Attributes:
        train, val: images; no val store without a val split.
        network: with its starting weights.
        objective: the configured loss; ``elevated`` is SMM v1's.
        modulation: the strategy, which knows nothing yet.
        loader: of the training images.
        predictor: predicts with the network as it is at the moment.
        watched: images that are kept for every epoch.
        dtype: of autocast, or None.
        origin: what the network starts from, if from an earlier run.
        dataset: the images, those that have joined included.
        following: where masks come from that are taken up while training goes on, or None.
        ranks: the processes that train together; ``train``, ``val`` and ``watched`` are this one's part.
        validated: number of all validation images.
    """

    train: Images
    val: Images | None
    network: nn.Module
    objective: objectives.Objective
    elevated: objectives.Objective
    modulation: NoModulation
    loader: Loader
    predictor: Predictor
    watched: list[Watched]
    dtype: torch.dtype | None
    device: torch.device
    dataset: Dataset
    origin: Origin | None = None
    following: Following | None = None
    ranks: Ranks = ALONE
    validated: int = 0


def prepare(
    config: RunConfig, dataset: Dataset | None = None, cache: Path | None = None, *, pretrained: bool = True,
    ranks: Ranks = ALONE,
) -> Prepared:  # fmt: skip
    """Decode the images and build the network. Whatever the user got wrong is refused here.

    Args:
        config: the run.
        dataset: the images; found from ``config.data`` if None.
        cache: folder for what does not fit in memory: decoded images, or the masks that modulation keeps of
            images that are read from their files.
        pretrained: see :func:`build_network`; ``training.init`` is not needed without it either.
        ranks: the processes that train together, of which each comes here and decodes its part of the images.

    Raises:
        InputError: images, masks or settings that cannot be used.
    """
    settings = config.training
    if cache is not None and not ranks.alone:
        cache = cache / str(ranks.rank)
    with ranks.agreeing():
        device = find_device(settings.device, ranks)
        if device.type == "cuda" and not ranks.alone:
            torch.cuda.set_device(device)
        dtype = find_precision(settings.precision, device)
        dataset = dataset if dataset is not None else open_dataset(config)
        classes = len(dataset.classes.names)
        head = config.head(classes)
        objectives.check(config.loss, head, classes)
        misses_from(config)
        config.data.window(dataset.dims)
        require_shares(config, dataset, ranks)
        following = follow(config, dataset)  # before the images are read, so that no change is missed
        # What it starts from is read by one process, which gives it to the others.
        first = pretrained and ranks.first
        network = build_network(config, dataset.channels, classes, device, dataset.dims, pretrained=first)
        network = norms_together(network, config, device, ranks)
        origin = begin(network, config, dataset) if first else None
    ranks.alike(network)
    train, val = load(config, dataset, device, cache, ranks)
    with ranks.agreeing():
        if following is not None:
            require_memory(train, val)
        if dataset.page is not None:
            require_page(train, val, dataset.page)
    shapes = torch.tensor(ranks.of_all(train.shapes.tolist()), dtype=torch.int64)
    loader = Loader(
        train, window_in(shapes, config.data), settings.batch_size, config.data.patches_per_image,
        settings.seed, device, config.data.foreground, ranks, shapes,
    )  # fmt: skip
    with ranks.agreeing():
        return Prepared(
            train=train,
            val=val,
            network=network,
            objective=objectives.build(config.loss, head, classes),
            elevated=objectives.build(ElevatedSensitivity(), head, classes),
            modulation=config.modulation.bind()(
                epochs=settings.epochs, shapes=train.shapes.cpu(), classes=classes, device=train.device,
                revisits=loader.revisits, folder=cache if isinstance(train, LazyStore) else None, ranks=ranks,
            ),
            loader=loader,
            predictor=Predictor(
                network, head, device, dtype, config.prediction.tile_of(dataset.dims),
                config.prediction.overlap,
            ),
            watched=watch(config, train, val, dataset, ranks),
            dtype=dtype,
            device=device,
            dataset=dataset,
            origin=origin,
            following=following,
            ranks=ranks,
            validated=len(dataset.splits["val"]),
        )  # fmt: skip


def require_shares(config: RunConfig, dataset: Dataset, ranks: Ranks) -> None:
    """Refuse images or settings that several processes cannot share."""
    batch, images = config.training.batch_size, len(dataset.splits["train"])
    if ranks.alone:
        return
    if batch % ranks.size:
        fitting = [n for n in range(2, ranks.size) if batch % n == 0]
        fewer = f", or {' or '.join(map(str, fitting))} processes" if fitting else ", or one process"
        raise InputError(
            f"training.batch_size {batch} cannot be shared by {ranks.size} processes: "
            f"{ranks.size * max(1, round(batch / ranks.size))}{fewer}, would work."
        )
    if images < ranks.size:
        raise InputError(
            f"there are {ranks.size} processes, but only {images} training images to share: as many "
            "processes as images at the most would work."
        )
    if config.data.grows:
        name = "follow" if config.data.follow else "replay"
        raise InputError(f"data.{name} takes masks up in one process, and there are {ranks.size}.")


def norms_together(network: nn.Module, config: RunConfig, device: torch.device, ranks: Ranks) -> nn.Module:
    """The network with its batch norms over the batch of all processes, as they would be in one.

    Raises:
        InputError: it has batch norms, which only GPUs can take together.
    """
    batch_norms = nn.modules.batchnorm._BatchNorm
    if ranks.alone or not any(isinstance(layer, batch_norms) for layer in network.modules()):
        return network
    if device.type == "cuda":
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return synchronised
    model = config.model.model_dump()
    way = "model.norm = instance" if "norm" in model else "a network with another norm, such as unet"
    raise InputError(
        f"the network {model['name']} has batch norm, which {ranks.size} processes on CPUs cannot compute "
        f"together: {way}, or one process, would work."
    )


def window_in(shapes: Tensor, data: Data) -> tuple[int, ...]:
    """What a training step sees of an image: no more than the largest, so that small ones are not mostly
    padding.

    Args:
        shapes: int64 (N, D), frames of the training images.
        data: size and patch.
    """
    window = data.window(shapes.shape[1])
    return tuple(map(min, window, shapes.amax(dim=0).tolist()))


def follow(config: RunConfig, dataset: Dataset) -> Following | None:
    """Where masks come from that are taken up while training goes on: the folder, or another run's journal.

    Raises:
        InputError: a journal that cannot be read, or images that are not to be held in memory.
    """
    if config.data.grows and config.data.cache in ("none", "disk"):
        name = "follow" if config.data.follow else "replay"
        raise InputError(
            f"data.{name} needs the images in memory, and data.cache is {config.data.cache}: auto, memory or "
            "device would work."
        )
    if config.data.replay is not None:
        return replay(Path(config.data.replay), dataset)
    return Live.of(dataset) if config.data.follow else None


def replay(run: Path, dataset: Dataset) -> Replay:
    """What another run took up. Raises InputError if its journal cannot be read."""
    return Replay({page.epoch: page for page in read_pages(run / FOLDER, dataset.found.root, 1)})


def require_memory(train: Images, val: Images | None) -> None:
    """Refuse to take masks up where the images are not held in memory."""
    if any(images is not None and images.mapped for images in (train, val)):
        raise InputError(
            "data.follow needs the images in memory, and there is no room for all of them: smaller ones "
            "(data.size), fewer of them, or data.cache = memory, would work."
        )


def require_page(train: Images, val: Images | None, page: Page) -> None:
    """Refuse to repeat or resume a run whose images are others than they were when it began."""
    now: dict[str, str] = {}
    for images in (train, val):
        now |= dict(zip(images.names, images.digests, strict=True)) if images is not None else {}
    for entry in page.entries:
        if entry.read:
            page.require_same(entry, now[entry.case.name])


def misses_from(config: RunConfig) -> str:
    """ "train" or "pass": the predictions that misses and recall come from.

    Raises:
        InputError: "train" is asked for where augmentation cannot be undone.
    """
    source = getattr(config.modulation, "source", "train")
    if source == "train" and config.augment.resamples and config.modulation.name != "none":
        raise InputError(
            "modulation.source train needs augmentation that can be undone exactly (flips and quarter "
            "turns), but rotation, scale or elastic is on: use modulation.source pass or auto."
        )
    if source == "auto":
        return "pass" if config.augment.resamples else "train"
    return str(source)


def load(
    config: RunConfig, dataset: Dataset, device: torch.device, cache: Path | None, ranks: Ranks = ALONE
) -> tuple[Images, Images | None]:
    """Training and validation images: decoded, and on the device where they fit, or left in their files.

    Those of this process; no validation images where it has none.
    """
    budget = psutil.virtual_memory().available / 2
    reads = ranks.told(lambda: from_files(config, dataset, budget))
    own = Part(config, dataset, device, cache, ranks, budget / ranks.local_size)
    with ranks.agreeing():
        train, val = own.from_files() if reads else own.decoded()
    if not ranks.alone:
        # One image that is not uint8 makes floats of all, as it would in one process.
        mine = [images is None or images.bytewise for images in (train, val)]
        bytewise = [all(said) for said in zip(*ranks.everyone(mine), strict=True)]
        with ranks.agreeing():
            if mine != bytewise:
                train, val = own.from_files(*bytewise) if reads else own.decoded(*bytewise)
    empty = all(ranks.everyone(train.empty))
    note_all(dataset, ranks)
    with ranks.agreeing():
        if empty:
            raise InputError(
                f"every training mask is empty: none of the {len(dataset.splits['train'])} has a pixel of "
                f"{', '.join(dataset.classes.names)}."
            )
    return train, val


def from_files(config: RunConfig, dataset: Dataset, budget: float) -> bool:
    """Whether images are read from their files in each step, by ``data.cache``.

    Args:
        config: the run.
        dataset: the images.
        budget: bytes that decoded images may take, up to which ``auto`` decodes them.

    Raises:
        InputError: it was asked for, with a loss that needs maps of whole masks.
    """
    if config.data.cache not in ("none", "auto") or config.data.grows:
        return False
    head = config.head(len(dataset.classes.names))
    needed = sorted(config.loss.guides(head))
    if config.data.cache == "none" and needed:
        raise InputError(
            f"data.cache is none, but the loss {config.loss.model_dump()['name']} needs maps of whole masks: "
            f"every loss but {' and '.join(needing_maps(head))}, or data.cache = disk, would work."
        )
    cases = [*dataset.cases("train"), *dataset.cases("val")]
    return config.data.cache == "none" or (not needed and lazy.suits(cases, config.data, budget))


def needing_maps(head: Head) -> list[str]:
    """Names of the losses that need maps of whole masks."""
    losses = get_args(get_args(Loss)[0])
    return [loss.model_fields["name"].default for loss in losses if loss().guides(head)]


def note_all(dataset: Dataset, ranks: Ranks) -> None:
    """Let the first process know what was done to the images of all."""
    if ranks.alone:
        return
    said = ranks.everyone(dataset.notes)
    for note in dict.fromkeys(note for notes in said for note in notes):
        names = {name for notes in said for name in notes.get(note, ())}
        dataset.notes[note] = {case.name: None for case in dataset.found.cases if case.name in names}


@dataclass(frozen=True)
class Part:
    """The images that this process has of train and val.

    Attributes:
        config: the run.
        dataset: all images.
        device: of training.
        cache: folder for pixels that do not fit in memory.
        ranks: the processes among which images are shared.
        budget: bytes of pixels that may stay in memory.
    """

    config: RunConfig
    dataset: Dataset
    device: torch.device
    cache: Path | None
    ranks: Ranks
    budget: float

    def from_files(self, *bytewise: bool) -> tuple[Images, Images | None]:
        """Training and validation images that stay in their files; ``bytewise`` as of :meth:`decoded`."""
        dataset, data = self.dataset, self.config.data
        tile = (self.config.prediction.tile_of(dataset.dims),) * dataset.dims
        opened: list[Images | None] = []
        for part, may_be_bytes in zip(("train", "val"), bytewise or (True, True), strict=True):
            cases = self.ranks.own(dataset.cases(part))
            opened.append(None)
            if cases:
                store = lazy.open_images(cases, dataset.classes, dataset.channels, data, tile)
                opened[-1] = replace(store, bytewise=store.bytewise and may_be_bytes)
                dataset.note_boxes(part)
        train, val = opened
        assert train is not None
        return train, val

    def decoded(self, *bytewise: bool) -> tuple[Images, Images | None]:
        """Training and validation images, decoded, and on the device where they fit.

        Args:
            bytewise: for train and for val, whether uint8 images may stay so; if nothing is said, they may.
        """
        config, classes = self.config, len(self.dataset.classes.names)
        maps = maps_for(config, classes)
        filled: list[store.Store | None] = []
        for part, may_be_bytes in zip(("train", "val"), bytewise or (True, True), strict=True):
            indices = self.ranks.own(self.dataset.splits[part])
            file = None if self.cache is None else self.cache / f"{part}.pixels"
            filled.append(None)
            if indices:
                filled[-1] = store.fill(
                    self.dataset.some(indices), classes, config.data, file, self.budget, maps,
                    keep_bytes=may_be_bytes,
                )  # fmt: skip
        train, val = filled
        assert train is not None
        if self.device.type == "cpu" or config.data.cache in ("memory", "disk"):
            return train, val
        room = math.inf
        if self.device.type == "cuda" and config.data.cache == "auto":
            room = torch.cuda.mem_get_info(self.device)[0] / 2
        if train.mapped or train.nbytes + (val.nbytes if val is not None else 0) > room:
            return train, val
        return train.to(self.device), val.to(self.device) if val is not None else None


def maps_for(config: RunConfig, classes: int) -> store.Maps:
    """What is made of each truth for the configured loss."""
    wanted = config.loss.guides(config.head(classes))
    return store.Maps(
        tube=tubed_skeleton if "tube" in wanted else None,
        distance=signed_distance if "distance" in wanted else None,
    )


def build_network(
    config: RunConfig,
    image_channels: int,
    classes: int,
    device: torch.device,
    dims: int = 2,
    *,
    pretrained: bool = True,
) -> nn.Module:
    """The network on the device with its starting weights: the seed's, and those of ``model.weights``.

    Args:
        config: the run.
        image_channels: channels of the images.
        classes: number of foreground classes.
        device: where it goes.
        dims: spatial axes of the images, 2 or 3.
        pretrained: False where a checkpoint is loaded next, so that ``model.weights`` is not needed again.

    Raises:
        InputError: a network for images of other dimensions, or weights that do not fit.
    """
    model = (config.model if pretrained else config.model.from_scratch()).of_dims(dims)
    torch.manual_seed(config.training.seed)
    outputs = channels(config.head(classes), classes)
    network: nn.Module = model.bind()(image_channels, outputs)
    if config.training.channels_last:
        network = network.to(memory_format=last_channels(dims))  # type: ignore[call-overload]
    quicken(network)
    return network.to(device)


def last_channels(dims: int) -> torch.memory_format:
    """The format in which channels lie last in memory, for images (2) or volumes (3)."""
    return torch.channels_last if dims == 2 else torch.channels_last_3d
