"""A store whose masks change, or to which images are added: the very same as one that is filled anew."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from engine.bits import PackedMasks
from engine.data.specs import Data
from engine.data.store import FrameMasks, Maps, MixedKindsError, Sample, Store, in_frame, unless_everywhere


def replaced(store: Store, samples: Mapping[int, Sample], maps: Maps | None = None) -> Store:
    """A store with other masks for some of its images: the very same as one filled anew with them.

    Args:
        store: decoded images.
        samples: number of an image → its new masks, and its image as it was read.
        maps: as it was filled with.
    """
    if not samples:
        return store
    classes = len(store.truth.bits)
    made = {
        number: FrameMasks.of(sample, tuple(store.extents[number].tolist()), classes, maps or Maps())
        for number, sample in samples.items()
    }
    tubes = {number: masks.tube for number, masks in made.items() if masks.tube is not None}
    distance = store.distance
    if distance is not None:
        distance = distance.clone()
        for number, masks in made.items():
            assert masks.distance is not None
            first = int(store.offsets[number])
            distance[first : first + len(masks.distance)] = masks.distance.to(distance.device)
    return replace(
        store,
        truth=store.truth.put({number: masks.truth for number, masks in made.items()}),
        valid=unless_everywhere(_valid(store).put({number: masks.valid for number, masks in made.items()})),
        tube=None if store.tube is None else store.tube.put(tubes),
        distance=distance,
    )


def appended(store: Store, samples: Sequence[Sample], data: Data, maps: Maps | None = None) -> Store:
    """A store with more images behind those that it has: the very same as one filled anew with all.

    The pixels are copied, so for a moment they take their memory twice; none is decoded again.

    Args:
        store: decoded images, not mapped from a file.
        samples: the new ones.
        data, maps: as it was filled with.

    Raises:
        MixedKindsError: the store has images of uint8, and another kind is to join them.
        InputError: an image that ``data`` does not allow.
    """
    if not samples:
        return store
    assert not store.mapped
    classes, keep_bytes = len(store.truth.bits), store.pixels.dtype == torch.uint8
    pairs = [in_frame(sample, classes, data, maps or Maps(), keep_bytes) for sample in samples]
    made = [frame for frame, _ in pairs]
    if keep_bytes and any(image.dtype != np.uint8 for _, image in pairs):
        raise MixedKindsError
    masks = FrameMasks.joined([frame.masks for frame in made])
    more = torch.tensor([frame.shape for frame in made], dtype=torch.int64)
    shapes = torch.cat([store.shapes, more.to(store.device)])
    areas = shapes.prod(dim=1)

    def behind(kept: Tensor, new: Sequence[Tensor]) -> Tensor:
        return torch.cat([kept, *(part.to(kept.device) for part in new)])

    distance = store.distance
    return replace(
        store,
        names=(*store.names, *(frame.name for frame in made)),
        pixels=behind(
            store.pixels, [torch.from_numpy(image.reshape(-1, image.shape[-1])) for _, image in pairs]
        ),
        scale=behind(store.scale, [frame.scale[None] for frame in made]),
        shift=behind(store.shift, [frame.shift[None] for frame in made]),
        zero=behind(store.zero, [frame.zero[None] for frame in made]),
        shapes=shapes,
        extents=torch.cat([store.extents, torch.tensor([frame.extent for frame in made])]),
        offsets=areas.cumsum(0) - areas,
        truth=store.truth.more(more, masks.truth),
        valid=unless_everywhere(_valid(store).more(more, masks.valid)),
        tube=None if store.tube is None else store.tube.more(more, masks.tube),
        distance=None if distance is None or masks.distance is None else behind(distance, [masks.distance]),
        digests=(*store.digests, *(frame.digest for frame in made)),
    )


def _valid(store: Store) -> PackedMasks:
    """Valid pixels of a store, also where all are."""
    if store.valid is not None:
        return store.valid
    every = PackedMasks(store.shapes, 1, store.device)
    every.bits.fill_(255)
    return every
