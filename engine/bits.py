"""Masks of many images kept as one bit per pixel, read and written by windows.

Truth, field of view and the misses of mask modulation all live here. Every image has its
own size; a window is a box of equal size in each image of a batch. Rows are padded to whole
bytes, and windows start and end on whole bytes of the last axis, so reading and writing move
bytes and never shift bits.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, reduce
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

BYTE = 8
AHEAD = {"cuda"}
"""Devices that take a copy of what they are sent at once, whatever they have still to do."""
_GATHER = 0x0102040810204080
"""Times eight bytes of 0 and 1, the lowest first, this has the eight in its highest byte, a bit each."""


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on a device, for which the host does not wait where it need not."""
    return x.to(device, non_blocking=torch.device(device).type in AHEAD)


def pack(masks: Tensor) -> Tensor:
    """bool (…, 8 n) → uint8 (…, n), the first pixel in the lowest bit; eight bytes apart in memory."""
    words = masks.flatten().view(torch.int64) * _GATHER
    return words.view(torch.uint8)[BYTE - 1 :: BYTE].view(*masks.shape[:-1], masks.shape[-1] // BYTE)


def unpack(packed: Tensor) -> Tensor:
    """uint8 (…, n) → bool (…, 8 n): undoes :func:`pack`."""
    words = _table(packed.device).index_select(0, packed.int().flatten())
    return words.view(*packed.shape).view(torch.bool)


@lru_cache(maxsize=8)
def _table(device: torch.device) -> Tensor:
    """int64 (256,): the eight bits of each byte as a byte each, in one word."""
    byte = torch.arange(256)[:, None] >> torch.arange(BYTE)
    return (byte & 1).to(torch.uint8).view(torch.int64)[:, 0].to(device)


@dataclass(frozen=True)
class Window:
    """A box in each of B images: where a batch was read from.

    Attributes:
        ids: int64 (B,), indices of the images.
        corner: int64 (B, D), first pixel along each of the D axes; the last is a multiple of 8.
        size: extent along each axis; the last is a multiple of 8.
        origin: the window on the CPU of which this one was sent to a device.
    """

    ids: Tensor
    corner: Tensor
    size: tuple[int, ...]
    origin: "Window | None" = None

    def __post_init__(self) -> None:
        if self.size[-1] % BYTE:
            raise ValueError(f"a window's last extent must be a multiple of {BYTE}, not {self.size[-1]}")

    def to(self, device: torch.device) -> "Window":
        """The same window with its tensors on a device."""
        return Window(sent(self.ids, device), sent(self.corner, device), self.size, self.host)

    @property
    def host(self) -> "Window":
        """The same window on the CPU: the one that was sent, so that nothing waits for a device."""
        if self.ids.device.type == "cpu":
            return self
        return self.origin or Window(self.ids.cpu(), self.corner.cpu(), self.size)


def flat_index(
    ids: Tensor, corner: Tensor, size: Sequence[int], shapes: Tensor, offsets: Tensor,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Positions of a box's elements in a flat buffer of arrays of different shapes.

    Args:
        ids: int64 (B,).
        corner: int64 (B, D), may be negative or reach beyond the array.
        size: D extents.
        shapes: int64 (N, D), the arrays' shapes.
        offsets: int64 (N,), where each array starts in the buffer.
        device: where the positions are wanted; where all of these are if None. From the CPU little is sent,
            and nothing waited for.

    Returns:
        int64 (B, *size) positions, clamped into the array, and bool (B, *size) or a shape that
        broadcasts to it, True where the element lies inside its array.
    """
    axes = len(size)
    device = device if device is not None else ids.device
    stride = torch.ones_like(ids)
    along, within = [], []
    for axis in reversed(range(axes)):
        length = shapes[ids, axis]
        place = corner[:, axis, None] + torch.arange(size[axis], device=ids.device)
        clamped = place.clamp(min=0).minimum(length[:, None] - 1)
        within.append((place >= 0) & (place < length[:, None]))
        along.append(clamped * stride[:, None])
        stride = stride * length
    along[0] = along[0] + offsets[ids][:, None]
    position = _crossed(along[::-1], size, device, torch.add)
    if ids.device.type == "cpu" and all(bool(part.all()) for part in within):
        return position, torch.ones([len(ids)] + [1] * axes, dtype=torch.bool, device=device)
    return position, _crossed(within[::-1], size, device, torch.logical_and)


def _crossed(
    parts: Sequence[Tensor], size: Sequence[int], device: torch.device, join: Callable[..., Tensor]
) -> Tensor:
    """Values along each axis, (B, size[axis]), joined to (B, *size) on a device."""
    views = []
    for axis, part in enumerate(torch.split(sent(torch.cat(list(parts), dim=1), device), list(size), dim=1)):
        views.append(part.view(len(part), *[1] * axis, size[axis], *[1] * (len(size) - 1 - axis)))
    return reduce(join, views)


class PackedMasks:
    """C boolean masks for each of N images, one bit per pixel, class and image.

    Args:
        shapes: int64 (N, D) frame shapes, kept on the CPU; the last axis a multiple of 8.
        channels: C.
        device: where the bits are kept.
        bits: uint8 (C, bytes) to take over, such as a memory-mapped tensor; zeros if None.
        folder: where the bits are kept in a file, mapped into memory, if there are no bits to take over.
    """

    def __init__(
        self, shapes: Tensor, channels: int, device: torch.device | str = "cpu", bits: Tensor | None = None,
        folder: Path | None = None,
    ) -> None:  # fmt: skip
        if bool((shapes[:, -1] % BYTE).any()):
            raise ValueError(f"the last axis of every frame must be a multiple of {BYTE}")
        self.shapes = shapes.cpu()
        in_bytes = self.shapes.clone()
        in_bytes[:, -1] //= BYTE
        ends = in_bytes.prod(dim=1).cumsum(0)
        self._in_bytes = in_bytes
        self._offsets = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])
        self._alike = len(in_bytes) > 0 and bool((in_bytes == in_bytes[0]).all())
        total = int(ends[-1]) if len(ends) else 0
        self.folder = folder if bits is None else None
        if self.folder is not None:
            bits = _mapped(self.folder, channels * total).view(channels, total)
        if bits is None:
            bits = torch.zeros((channels, total), dtype=torch.uint8, device=device)
        if bits.shape != (channels, total) or bits.dtype != torch.uint8:
            raise ValueError(f"bits must be uint8 {(channels, total)}, not {bits.dtype} {tuple(bits.shape)}")
        self.bits = bits

    def take(self, bits: Tensor) -> None:
        """Take over other bits, such as a checkpoint's, in the place or the file of those that were."""
        if bits.shape != self.bits.shape or bits.dtype != torch.uint8:
            raise ValueError(
                f"bits must be uint8 {tuple(self.bits.shape)}, not {bits.dtype} {tuple(bits.shape)}"
            )
        if self.folder is not None:
            self.bits.copy_(bits)
        else:
            self.bits = bits.to(self.bits.device)

    @property
    def disk_bytes(self) -> int:
        """Bytes of the file that the bits are kept in, at its largest; 0 in memory."""
        return self.bits.nbytes if self.folder is not None else 0

    @staticmethod
    def count_bytes(shapes: Tensor, channels: int) -> int:
        """Bytes that masks of these frames take."""
        return channels * int(shapes.prod(dim=1).sum()) // BYTE

    def empty_like(self) -> "PackedMasks":
        """Masks of the same frames, all False, in memory or in a file of their own."""
        return PackedMasks(self.shapes, self.bits.shape[0], self.bits.device, folder=self.folder)

    def put(self, parts: Mapping[int, Tensor]) -> "PackedMasks":
        """The same with all bits of some images replaced; in memory, whatever these are.

        Args:
            parts: index of an image → its bits, uint8 (C, bytes of its frame).
        """
        bits = self.bits.clone()
        for number, part in parts.items():
            start = int(self._offsets[number])
            bits[:, start : start + part.shape[1]] = part.to(bits.device)
        return PackedMasks(self.shapes, len(bits), bits.device, bits)

    def more(self, shapes: Tensor, bits: Tensor | None = None) -> "PackedMasks":
        """The same with more images behind them; in memory, whatever these are.

        Args:
            shapes: int64 (more, D), their frames.
            bits: uint8 (C, bytes of these frames), or None for masks that are False everywhere.
        """
        if bits is None:
            bits = PackedMasks(shapes, len(self.bits)).bits
        whole = torch.cat([self.bits, bits.to(self.bits.device)], dim=1)
        return PackedMasks(torch.cat([self.shapes, shapes.cpu()]), len(whole), whole.device, whole)

    def copy(self) -> "PackedMasks":
        """The same masks in memory of their own."""
        return PackedMasks(self.shapes, len(self.bits), self.bits.device, self.bits.clone())

    def bits_of(self, number: int) -> Tensor:
        """All bits of one image, uint8 (C, bytes of its frame)."""
        start = int(self._offsets[number])
        return self.bits[:, start : start + int(self._in_bytes[number].prod())]

    def to(self, device: torch.device) -> "PackedMasks":
        """The same masks on a device."""
        return PackedMasks(self.shapes, self.bits.shape[0], device, self.bits.to(device))

    def read(self, window: Window, halo: int = 0) -> Tensor:
        """Masks in a window grown by `halo` pixels on every side; False outside the image.

        The window may lie on any device; the masks come back on the bits' own.

        Returns:
            bool (B, C, *(size + 2·halo)).
        """
        extra = -(-halo // BYTE)
        grow = [*[halo] * (len(window.size) - 1), extra]
        unpacked = unpack(self._packed(window, grow).movedim(0, 1))
        start = extra * BYTE - halo
        return unpacked[..., start : start + window.size[-1] + 2 * halo]

    def any(self, window: Window) -> Tensor:
        """Whether any mask of each image is True somewhere in its window: bool (B,), on the bits' device."""
        packed = self._packed(window, [0] * len(window.size))
        return packed.ne(0).movedim(0, 1).flatten(1).any(dim=1)

    def write(self, window: Window, masks: Tensor) -> None:
        """Store masks; what lies outside the image is lost.

        Args:
            window: where; windows of one batch must not overlap.
            masks: bool (B, C, *size).
        """
        if not len(window.ids):
            return
        packed = pack(masks.to(self.bits.device)).movedim(1, 0)
        if self.takes_frames(window):
            frames = self.bits.view(len(self.bits), -1, *packed.shape[2:])
            frames.index_copy_(1, sent(window.ids, self.bits.device), packed)
            return
        where, inside = self._where(window, [0] * len(window.size))
        if self.contains(window):
            self.bits[:, where] = packed
        else:
            keep = inside.expand(where.shape)
            self.bits[:, where[keep]] = packed[:, keep]

    def contains(self, window: Window) -> bool:
        """Whether the windows lie inside their images; asked on the CPU, so as not to wait for a device."""
        window = window.host
        ends = window.corner + torch.tensor(window.size)
        return bool(((window.corner >= 0) & (ends <= self.shapes[window.ids])).all())

    def _packed(self, window: Window, grow: Sequence[int]) -> Tensor:
        """uint8 (C, B, *size): the bytes of a window grown by `grow` of its elements on both sides of each
        axis; 0 outside the image."""
        if self.takes_frames(window):
            shape = self._in_bytes[0].tolist()
            frames = self.bits.view(len(self.bits), -1, *shape)
            packed = frames.index_select(1, sent(window.ids, self.bits.device))
            sides = [more for more in reversed(grow) for _ in range(2)]
            return F.pad(packed, sides) if any(grow) else packed
        where, inside = self._where(window, grow)
        return self.bits[:, where] * inside

    def takes_frames(self, window: Window) -> bool:
        """Whether all images have one shape, and the windows are whole images: whole rows of bytes then."""
        if not self._alike or window.size != tuple(self.shapes[0].tolist()):
            return False
        return not bool(window.host.corner.any())

    def _where(self, window: Window, grow: Sequence[int]) -> tuple[Tensor, Tensor]:
        corner = window.host.corner.clone()
        corner[:, -1] //= BYTE
        size = [*window.size[:-1], window.size[-1] // BYTE]
        size = [length + 2 * more for length, more in zip(size, grow, strict=True)]
        return flat_index(
            window.host.ids, corner - torch.tensor(grow), size, self._in_bytes, self._offsets,
            self.bits.device,
        )  # fmt: skip


def _mapped(folder: Path, count: int) -> Tensor:
    """uint8 (count,) zeros in a sparse file that lasts as long as it is mapped, however its process ends.

    Windows keeps the name of a mapped file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not count:
        return torch.zeros(0, dtype=torch.uint8)
    names = (folder / f"{number}.masks" for number in itertools.count())
    path = next(path for path in names if _gone(path))
    try:
        return torch.from_file(str(path), shared=True, size=count, dtype=torch.uint8)
    finally:
        _gone(path)


def _gone(path: Path) -> bool:
    """Remove a file; whether there is none then."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
    return not path.exists()
