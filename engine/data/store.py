"""The store: all decoded images of a split in one flat buffer, with their masks packed beside them.

Images of any sizes share one layout, so a batch of crops is one gather and no image is handled on
its own in a training step. S is the shape of an image, (H, W), or of a volume, (D, H, W). An image's
frame is the image, resized if asked, its rows padded to whole bytes. The padding is invalid, and so
is what a window shows beyond a frame.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import fingerprint
from engine.bits import BYTE, PackedMasks, Window, flat_index
from engine.data.normalize import CLIPPED, affine, normalised, white
from engine.data.specs import Data
from engine.errors import InputError

MOST_BYTES = 1 << 22
"""Packed pixels whose places are worked out at once; each takes tens of bytes."""
TOGETHER = 256
"""Images whose frames are put together at once, so that a hundred thousand are not as many small objects."""
IGNORED = 255
"""Label of pixels that count nowhere."""


@dataclass(frozen=True)
class Sample:
    """One decoded image.

    Attributes:
        name: the case's name.
        image: (*S, channels), any real dtype.
        labels: uint8 (*S), 0 background, 1…C classes, 255 ignored; or those of its frame, see
            :meth:`Store.labels`.
        valid: bool (*S) or None.
        spacing: mm along each spatial axis, or None where the file says nothing.
    """

    name: str
    image: NDArray[Any]
    labels: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None
    spacing: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Frames:
    """A batch in the images' own frames: before augmentation, after modulation's masks are read.

    Attributes:
        window: where it was read; on the CPU.
        visits: int64 (B,) on the CPU, which crop of its image in this epoch.
        image: float32 (B, channels, *size), normalised.
        truth: bool (B, C, *size).
        valid: bool (B, 1, *size), or None where every pixel is.
        zero: float32 (B, channels), the normalised value of raw intensity 0.
        tube: bool (B, C, *size), tubed skeletons of the truth, or None where no loss asked for them.
        distance: float32 (B, C, *size), signed distance to the truth's boundary, or None. In pixels of
            the finest axis where the spacing of a volume is known.
    """

    window: Window
    visits: Tensor
    image: Tensor
    truth: Tensor
    valid: Tensor | None
    zero: Tensor
    tube: Tensor | None = None
    distance: Tensor | None = None


@dataclass(frozen=True)
class Maps:
    """What some losses are told of each image's truth beside the truth itself: made once, when it is decoded.

    Attributes:
        tube: bool mask (*S) → bool (*S), or None where no loss wants it.
        distance: bool mask (*S) and relative spacing or None → float (*S), or None.
    """

    tube: Callable[[NDArray[np.bool_]], NDArray[np.bool_]] | None = None
    distance: Callable[[NDArray[np.bool_], Sequence[float] | None], NDArray[np.floating[Any]]] | None = None


@dataclass(frozen=True)
class Store:
    """Decoded images. Tensors are on one device: the training device, or the CPU where they don't fit.

    Attributes:
        names: of the N images.
        pixels: uint8 or float16 (all pixels, channels), frame after frame.
        scale, shift, zero: float32 (N, channels); ``pixels * scale + shift`` is normalised.
        clipped: whether normalised values are clipped to 0…1.
        shapes: int64 (N, D) on the CPU, the frames, of D spatial axes.
        extents: int64 (N, D) on the CPU, the image's part of its frame, from the frame's first pixel.
        truth: packed (N, C).
        offsets: int64 (N,) on the CPU, first pixel of each frame.
        valid: packed (N, 1), or None where every pixel of every frame is valid.
        mapped: whether the pixels are a file mapped into memory.
        tube: packed (N, C) tubed skeletons, or None where no loss asked for them.
        distance: float16 (all pixels, C), signed distances in px, or None.
        digests: fingerprints of the images as they were read.
    """

    names: tuple[str, ...]
    pixels: Tensor
    scale: Tensor
    shift: Tensor
    zero: Tensor
    clipped: bool
    shapes: Tensor
    extents: Tensor
    offsets: Tensor
    truth: PackedMasks
    valid: PackedMasks | None
    mapped: bool = False
    tube: PackedMasks | None = None
    distance: Tensor | None = None
    digests: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    @property
    def bytewise(self) -> bool:
        """Whether all images are uint8."""
        return self.pixels.dtype == torch.uint8

    def read(self, window: Window, visits: Tensor, device: torch.device) -> Frames:
        """A batch of windows on a device; it may have none."""
        here = window.to(self.device)
        truth = self.truth.read(here)
        valid = self.valid.read(here) if self.valid is not None else None
        if self.truth.takes_frames(window):

            def taken(flat: Tensor) -> Tensor:
                return flat.view(len(self), *window.size, flat.shape[1]).index_select(0, here.ids)
        else:
            where, inside = flat_index(
                window.ids, window.corner, window.size, self.shapes, self.offsets, self.device
            )
            if valid is None and not self.truth.contains(window):
                valid = inside.expand(where.shape)[:, None]

            def taken(flat: Tensor) -> Tensor:
                return flat[where]

        # Beyond its frame an image goes on with the pixels of its border.
        raw = taken(self.pixels)
        scale, shift, zero = (x[here.ids].to(device) for x in (self.scale, self.shift, self.zero))
        tube = self.tube.read(here).to(device) if self.tube is not None else None
        distance = None
        if self.distance is not None:
            distance = taken(self.distance).to(device).float().movedim(-1, 1)
        return Frames(
            window=window,
            visits=visits,
            image=intensities(raw.to(device), scale, shift, clipped=self.clipped),
            truth=truth.to(device),
            valid=None if valid is None else valid.to(device),
            zero=zero,
            tube=tube,
            distance=distance,
        )

    def holds(self, ids: Tensor, corners: Tensor, size: tuple[int, ...]) -> Tensor:
        """Whether each window has a pixel of any class, bool (windows,) on the CPU.

        Args:
            ids, corners, size: as of a :class:`Window`, for any number of windows.
        """
        step = max(1, MOST_BYTES // (math.prod(size) // BYTE))
        parts = [
            self.truth.any(Window(ids[start : start + step], corners[start : start + step], size)).cpu()
            for start in range(0, len(ids), step)
        ]
        return torch.cat(parts)

    may_hold = holds
    """Here at no more cost than a guess."""

    @property
    def empty(self) -> bool:
        """Whether no image has a pixel of any class."""
        return not self.truth.bits.any()

    def whole(self, ids: Sequence[int]) -> Window:
        """The window that takes whole frames; they must have one shape."""
        first = self.shapes[ids[0]].tolist()
        return Window(torch.tensor(ids), torch.zeros((len(ids), len(first)), dtype=torch.int64), tuple(first))

    def to(self, device: torch.device) -> "Store":
        """The same store on a device."""
        moved: dict[str, Any] = {
            name: None if (kept := getattr(self, name)) is None else kept.to(device)
            for name in (
                "pixels", "scale", "shift", "zero", "truth", "valid", "tube", "distance"
            )
        }  # fmt: skip
        return replace(self, mapped=False, **moved)

    def centre(self, number: int) -> list[int]:
        """The pixel in the middle of an image's truth, of all classes; in its own where it has none."""
        mask = self.truth.read(self.whole([number]))[0].any(dim=0)
        if not mask.any():
            return [length // 2 for length in self.extents[number].tolist()]
        return [round(float(along)) for along in mask.nonzero().double().mean(dim=0)]

    def labels(self, number: int) -> NDArray[np.uint8]:
        """The mask of an image as labels uint8 (*S) of its size in the store: 0 background, 1…C classes, 255
        where no pixel counts. A sample with these labels gives the same masks again."""
        box = tuple(slice(length) for length in self.extents[number].tolist())
        window = self.whole([number]).to(self.device)
        truth = self.truth.read(window)[0].cpu().numpy()[:, *box]
        labels = np.zeros(truth.shape[1:], np.uint8)
        for cls, mask in enumerate(truth, 1):
            labels[mask] = cls
        if self.valid is not None:
            labels[~self.valid.read(window)[0, 0].cpu().numpy()[box]] = IGNORED
        return labels

    def batches(self, size: int) -> Iterator[Window]:
        """Whole frames, up to `size` of one shape at a time: for passes in evaluation mode."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for number, shape in enumerate(self.shapes.tolist()):
            by_shape.setdefault(tuple(shape), []).append(number)
        for ids in by_shape.values():
            for start in range(0, len(ids), size):
                yield self.whole(ids[start : start + size])

    @property
    def nbytes(self) -> int:
        """Bytes of pixels and masks."""
        packed = [masks.bits.nbytes for masks in (self.truth, self.valid, self.tube) if masks is not None]
        return self.pixels.nbytes + sum(packed) + (0 if self.distance is None else self.distance.nbytes)


def intensities(raw: Tensor, scale: Tensor, shift: Tensor, *, clipped: bool) -> Tensor:
    """Normalised intensities float32 (B, channels, *size), of which the channels lie last in memory: that is
    what channels-last convolutions want.

    Args:
        raw: (B, *size, channels).
        scale, shift: float32 (B, channels).
        clipped: to 0…1.
    """
    scale, shift = (x.view(len(x), *[1] * (raw.ndim - 2), x.shape[1]) for x in (scale, shift))
    image = raw.float().mul_(scale).add_(shift)
    if clipped:
        image.clamp_(0, 1)
    return image.movedim(-1, 1)


def frame_of(shape: Sequence[int], spacing: Sequence[float] | None, data: Data) -> tuple[int, ...] | None:
    """The size at which a network sees an image.

    Args:
        shape: S, the image's own.
        spacing: of its pixels along each axis in mm, or None where its file says nothing.
        data: size and spacing.

    Returns:
        ``data.size``, or what gives pixels of ``data.spacing``; None where the image stays as it is.

    Raises:
        InputError: ``data.spacing`` is asked of an image whose own is not known.
    """
    data.require_dims(len(shape), ("size", "spacing"))
    if data.spacing is None:
        return data.size
    if spacing is None:
        raise InputError(
            f"data.spacing is {', '.join(f'{x:g}' for x in data.spacing)} mm, but a file gives no spacing: "
            "NIfTI, NRRD, MHA and OME-Zarr do; data.size would work for any."
        )
    return tuple(
        max(1, round(length * own / wanted))
        for length, own, wanted in zip(shape, spacing, data.spacing, strict=True)
    )


def resized(array: NDArray[Any], size: tuple[int, ...] | None, *, labels: bool) -> NDArray[Any]:
    """Resize labels (*S) or an image (*S, channels): images linearly with antialiasing, labels to the nearest
    pixel. None, or the size that it has, changes nothing."""
    if size is None or array.shape[: len(size)] == size:
        return array
    from skimage.transform import resize  # here, as images of native size need none of it

    if labels:
        out = resize(array, size, order=0, preserve_range=True, anti_aliasing=False)  # type: ignore[no-untyped-call]
        return np.asarray(out.astype(array.dtype))
    real = array.astype(np.float32)
    out = resize(real, size, order=1, preserve_range=True, anti_aliasing=True)  # type: ignore[no-untyped-call]
    return np.asarray(out.round().astype(np.uint8) if array.dtype == np.uint8 else out.astype(np.float32))


def frame_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Frame of an image: the image, with whole bytes a row."""
    return *shape[:-1], -(-shape[-1] // BYTE) * BYTE


class _Pixels:
    """Frames put one behind the other, in memory, or in a file once they pass a budget."""

    def __init__(self, budget: float, file: Path | None) -> None:
        self._budget, self._path = budget, file
        # It grows in place, so that many small frames neither lie about in memory nor are held twice.
        self._held = bytearray()
        self._bytes = 0
        self._file: BinaryIO | None = None

    def append(self, frame: NDArray[Any]) -> None:
        """Add (*S, channels), uint8 or float16, of the same kind and channels as all others."""
        flat = np.ascontiguousarray(frame).reshape(-1).view(np.uint8)
        self._bytes += flat.nbytes
        if self._file is None and self._path is not None and self._bytes > self._budget:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
            self._file.write(self._held)
            self._held = bytearray()
        if self._file is not None:
            self._file.write(flat.data)
        else:
            self._held += flat.data

    @property
    def mapped(self) -> bool:
        """Whether the file was needed."""
        return self._file is not None

    def finish(self, channels: int, *, keep_bytes: bool) -> Tensor:
        """All pixels, (pixels, channels); there must be some."""
        dtype = torch.uint8 if keep_bytes else torch.float16
        count = self._bytes // dtype.itemsize
        if self._file is not None:
            self._file.flush()
            return torch.from_file(str(self._path), shared=True, size=count, dtype=dtype).view(-1, channels)
        return torch.frombuffer(self._held, dtype=dtype).view(-1, channels)

    def close(self) -> None:
        """Close the file, if there is one, and take its name away: it lasts as long as it is mapped.

        So no run leaves its images behind, however it ends. Windows keeps the name of a mapped file.
        """
        if self._file is not None:
            self._file.close()
            with suppress(OSError):
                Path(self._file.name).unlink()


class MixedKindsError(Exception):
    """An image that is not uint8 came after images that are."""


def fill(
    samples: Iterable[Sample], classes: int, data: Data, cache: Path | None, budget: float | None = None,
    maps: Maps | None = None, *, keep_bytes: bool = True,
) -> Store:  # fmt: skip
    """Decode once: put samples into a store in memory, or partly in the file `cache` where they don't fit.

    uint8 images stay uint8; if any image is of another kind, all are normalised and kept as float16.

    Args:
        samples: can be iterated again, if images turn out to be of mixed kinds.
        classes: C.
        data: size, patch, normalization and cache.
        cache: file for a memory-mapped store.
        budget: bytes of pixels that may stay in memory; half of what is free if None.
        maps: what is made of each truth for losses that ask for it, of its valid part alone.
        keep_bytes: whether uint8 images may stay so.
    """
    maps = maps if maps is not None else Maps()
    if budget is None:
        budget = psutil.virtual_memory().available / 2
    budgets = {"disk": 0.0, "memory": math.inf, "device": math.inf, "auto": budget}
    try:
        with closing(_Pixels(budgets[data.cache], cache)) as pixels:
            return _fill(samples, classes, data, pixels, maps, keep_bytes)
    except MixedKindsError:
        with closing(_Pixels(budgets[data.cache], cache)) as pixels:
            return _fill(samples, classes, data, pixels, maps, False)


def _fill(
    samples: Iterable[Sample], classes: int, data: Data, pixels: _Pixels, maps: Maps, keep_bytes: bool
) -> Store:
    parts: list[_Framed] = []
    made: list[Frame] = []
    for sample in samples:
        frame, image = in_frame(sample, classes, data, maps, keep_bytes)
        if keep_bytes and (parts or made) and image.dtype != np.uint8:
            raise MixedKindsError
        keep_bytes &= image.dtype == np.uint8
        pixels.append(image)
        made.append(frame)
        if len(made) == TOGETHER:
            parts.append(_Framed.of(made))
            made = []
    whole = _Framed.joined([*parts, *([_Framed.of(made)] if made else [])])
    areas = whole.shapes.prod(dim=1)
    masks = whole.masks
    return Store(
        names=whole.names,
        pixels=pixels.finish(whole.scale.shape[1], keep_bytes=keep_bytes),
        scale=whole.scale,
        shift=whole.shift,
        zero=whole.zero,
        clipped=data.normalization in CLIPPED,
        shapes=whole.shapes,
        extents=whole.extents,
        offsets=areas.cumsum(0) - areas,
        truth=PackedMasks(whole.shapes, classes, "cpu", masks.truth),
        valid=unless_everywhere(PackedMasks(whole.shapes, 1, "cpu", masks.valid)),
        mapped=pixels.mapped,
        tube=None if masks.tube is None else PackedMasks(whole.shapes, classes, "cpu", masks.tube),
        distance=masks.distance,
        digests=whole.digests,
    )


@dataclass(frozen=True)
class FrameMasks:
    """Masks and maps of one image in its frame, or of several one behind the other.

    Attributes:
        truth: uint8 (C, bytes), packed.
        valid: uint8 (1, bytes), packed.
        tube: uint8 (C, bytes), packed, or None.
        distance: float16 (pixels, C), or None.
    """

    truth: Tensor
    valid: Tensor
    tube: Tensor | None
    distance: Tensor | None

    @classmethod
    def of(cls, sample: Sample, extent: tuple[int, ...], classes: int, maps: Maps) -> "FrameMasks":
        """Those of a sample whose image is `extent` in its frame."""
        labels, valid = framed(sample, extent)
        shape, box = frame_shape(extent), tuple(slice(length) for length in extent)
        inside = np.zeros(shape, dtype=bool)
        inside[box] = valid
        truth = np.zeros((classes, *shape), dtype=bool)
        truth[:, *box] = (labels == np.arange(1, classes + 1).reshape(-1, *[1] * len(shape))) & valid
        # Of the image's part of the frame, so that padding does not open a mask that fills the image.
        own = truth[:, *box]
        tube = distance = None
        if maps.tube is not None:
            tube = np.zeros_like(truth)
            tube[:, *box] = [maps.tube(mask) for mask in own]
        if maps.distance is not None:
            # Float16 keeps one part in 2048, up to more pixels than a side can have.
            distance = np.zeros((*shape, classes), np.float16)
            relative = relative_spacing(sample, extent)
            distance[box] = np.stack([maps.distance(mask, relative) for mask in own], axis=-1)
        return cls(
            _packed(truth),
            _packed(inside[None]),
            None if tube is None else _packed(tube),
            None if distance is None else torch.from_numpy(distance.reshape(-1, classes)),
        )

    @classmethod
    def joined(cls, parts: Sequence["FrameMasks"]) -> "FrameMasks":
        """Those of several images."""
        tubes = [part.tube for part in parts if part.tube is not None]
        distances = [part.distance for part in parts if part.distance is not None]
        return cls(
            torch.cat([part.truth for part in parts], dim=1),
            torch.cat([part.valid for part in parts], dim=1),
            torch.cat(tubes, dim=1) if tubes else None,
            torch.cat(distances) if distances else None,
        )


@dataclass(frozen=True)
class Frame:
    """What a store keeps of one image beside its pixels; scale, shift and zero are float32 (channels,)."""

    name: str
    digest: str
    scale: Tensor
    shift: Tensor
    zero: Tensor
    shape: tuple[int, ...]
    extent: tuple[int, ...]
    masks: FrameMasks


@dataclass(frozen=True)
class _Framed:
    """What a store keeps of some images: their frames one behind the other, in a few tensors."""

    names: tuple[str, ...]
    digests: tuple[str, ...]
    scale: Tensor
    shift: Tensor
    zero: Tensor
    shapes: Tensor
    extents: Tensor
    masks: FrameMasks

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> "_Framed":
        """That of frames, which need not be kept any more."""
        return cls(
            names=tuple(frame.name for frame in frames),
            digests=tuple(frame.digest for frame in frames),
            scale=torch.stack([frame.scale for frame in frames]),
            shift=torch.stack([frame.shift for frame in frames]),
            zero=torch.stack([frame.zero for frame in frames]),
            shapes=torch.tensor([frame.shape for frame in frames], dtype=torch.int64),
            extents=torch.tensor([frame.extent for frame in frames], dtype=torch.int64),
            masks=FrameMasks.joined([frame.masks for frame in frames]),
        )

    @classmethod
    def joined(cls, parts: Sequence["_Framed"]) -> "_Framed":
        """That of all images of several parts."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            names=tuple(name for part in parts for name in part.names),
            digests=tuple(digest for part in parts for digest in part.digests),
            scale=torch.cat([part.scale for part in parts]),
            shift=torch.cat([part.shift for part in parts]),
            zero=torch.cat([part.zero for part in parts]),
            shapes=torch.cat([part.shapes for part in parts]),
            extents=torch.cat([part.extents for part in parts]),
            masks=FrameMasks.joined([part.masks for part in parts]),
        )


def in_frame(
    sample: Sample, classes: int, data: Data, maps: Maps, keep_bytes: bool
) -> tuple[Frame, NDArray[Any]]:
    """What is kept of a sample, and its pixels in their frame, (*S, channels): uint8 if it may stay so, else
    float16, normalised."""
    image, scale, shift = seen(sample.image, sample.spacing, data)
    zero = shift
    if image.dtype != np.uint8 or not keep_bytes:
        # Clipped, where it is, before float16, which ends at 65504.
        image = normalised(image, scale, shift, data.normalization).astype(np.float16)
        scale, shift = np.ones_like(scale), np.zeros_like(shift)
    extent = image.shape[:-1]
    shape = frame_shape(extent)
    frame = Frame(
        name=sample.name,
        digest=fingerprint.image(sample.image),
        scale=torch.from_numpy(scale),
        shift=torch.from_numpy(shift),
        zero=torch.from_numpy(zero),
        shape=shape,
        extent=extent,
        masks=FrameMasks.of(sample, extent, classes, maps),
    )
    return frame, _padded(image, shape)


def unless_everywhere(valid: PackedMasks) -> PackedMasks | None:
    """None where every pixel of every frame is valid."""
    return None if bool((valid.bits == 255).all()) else valid


def seen(
    image: NDArray[Any], spacing: Sequence[float] | None, data: Data
) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
    """An image as a network sees it, in training and in prediction alike.

    Args:
        image: (*S, channels) as read.
        spacing: of its pixels in mm, or None, see :func:`frame_of`.
        data: size, spacing and normalization.

    Returns:
        The image, resized if asked, and the float32 (channels,) scale and shift that normalise it.
    """
    frame = resized(image, frame_of(image.shape[:-1], spacing, data), labels=False)
    # Resizing turns all but uint8 into float32: what is white, the file's own kind says.
    return frame, *affine(frame, data.normalization, top=white(image.dtype))


def framed(sample: Sample, size: tuple[int, ...] | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A sample's labels and valid pixels bool, both (*S), resized if asked."""
    labels = resized(sample.labels, size, labels=True)
    valid = labels != IGNORED
    if sample.valid is not None:
        valid &= resized(sample.valid, size, labels=True)
    return labels, valid


def relative_spacing(sample: Sample, extent: Sequence[int]) -> tuple[float, ...] | None:
    """Spacing of a sample's frame along each axis, in units of the finest; None where it is not known.

    Args:
        sample: as read.
        extent: shape of what became of it.
    """
    if sample.spacing is None:
        return None
    zipped = zip(sample.spacing, sample.image.shape[:-1], extent, strict=True)
    here = [own * length / new for own, length, new in zipped]
    return tuple(step / min(here) for step in here)


def _padded(image: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The image in its frame; the padding repeats the edge, as networks pad, which predict without it."""
    if image.shape[:-1] == shape:
        return image
    beyond = [(0, whole - part) for whole, part in zip(shape, image.shape[:-1], strict=True)]
    return np.pad(image, [*beyond, (0, 0)], mode="edge")


def _packed(masks: NDArray[np.bool_]) -> Tensor:
    """bool (C, *S) → uint8 (C, bytes), the first pixel in the lowest bit."""
    return torch.from_numpy(np.packbits(masks.reshape(masks.shape[0], -1), axis=1, bitorder="little"))
