"""Masks of many images kept as one bit per pixel, read and written by windows.

Truth, field of view and the misses of mask modulation all live here. Every image has its
own size; a window is a box of equal size in each image of a batch. Rows are padded to whole
bytes, and windows start and end on whole bytes of the last axis, so reading and writing move
bytes and never shift bits.
"""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

BYTE = 8
_SHIFTS = tuple(1 << bit for bit in range(BYTE))


@dataclass(frozen=True)
class Window:
    """A box in each of B images: where a batch was read from.

    Attributes:
        ids: int64 (B,), indices of the images.
        corner: int64 (B, D), first pixel along each of the D axes; the last is a multiple of 8.
        size: extent along each axis; the last is a multiple of 8.
    """

    ids: Tensor
    corner: Tensor
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.size[-1] % BYTE:
            raise ValueError(f"a window's last extent must be a multiple of {BYTE}, not {self.size[-1]}")

    def to(self, device: torch.device) -> "Window":
        """The same window with its tensors on a device."""
        return Window(self.ids.to(device), self.corner.to(device), self.size)


def flat_index(
    ids: Tensor, corner: Tensor, size: Sequence[int], shapes: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """Positions of a box's elements in a flat buffer of arrays of different shapes.

    Args:
        ids: int64 (B,).
        corner: int64 (B, D), may be negative or reach beyond the array.
        size: D extents.
        shapes: int64 (N, D), the arrays' shapes.
        offsets: int64 (N,), where each array starts in the buffer.

    Returns:
        int64 (B, *size) positions, clamped into the array, and bool (B, *size) or a shape that
        broadcasts to it, True where the element lies inside its array.
    """
    axes = len(size)
    batch = ids.shape[0]
    position = offsets[ids].view(batch, *[1] * axes)
    inside = torch.ones((batch, *[1] * axes), dtype=torch.bool, device=ids.device)
    stride = torch.ones(batch, dtype=torch.int64, device=ids.device)
    for axis in reversed(range(axes)):
        length = shapes[ids, axis]
        along = corner[:, axis, None] + torch.arange(size[axis], device=ids.device)
        view = [batch, *[1] * axes]
        view[1 + axis] = size[axis]
        inside = inside & ((along >= 0) & (along < length[:, None])).view(view)
        clamped = along.clamp(min=0).minimum(length[:, None] - 1)
        position = position + (clamped * stride[:, None]).view(view)
        stride = stride * length
    return position, inside


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
        self._in_bytes = in_bytes.to(device)
        self._offsets = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]]).to(device)
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
        where, inside = self._where(window, grow)
        packed = (self.bits[:, where] * inside).movedim(0, 1)
        shifts = torch.tensor(_SHIFTS, dtype=torch.uint8, device=packed.device)
        unpacked = (packed.unsqueeze(-1) & shifts).ne_(0).flatten(-2).view(torch.bool)
        start = extra * BYTE - halo
        return unpacked[..., start : start + window.size[-1] + 2 * halo]

    def any(self, window: Window) -> Tensor:
        """Whether any mask of each image is True somewhere in its window: bool (B,), on the bits' device."""
        where, inside = self._where(window, [0] * len(window.size))
        return (self.bits[:, where] * inside).ne(0).movedim(0, 1).flatten(1).any(dim=1)

    def write(self, window: Window, masks: Tensor) -> None:
        """Store masks; what lies outside the image is lost.

        Args:
            window: where; windows of one batch must not overlap.
            masks: bool (B, C, *size).
        """
        where, inside = self._where(window, [0] * len(window.size))
        grouped = masks.to(self.bits.device, torch.uint8).reshape(*masks.shape[:-1], -1, BYTE)
        shifts = torch.tensor(_SHIFTS, dtype=torch.uint8, device=self.bits.device)
        packed = (grouped * shifts).sum(-1, dtype=torch.uint8).movedim(1, 0)
        if self.contains(window):
            self.bits[:, where] = packed
        else:
            keep = inside.expand(where.shape)
            self.bits[:, where[keep]] = packed[:, keep]

    def contains(self, window: Window) -> bool:
        """Whether the windows lie inside their images; asked on the CPU, so as not to wait for a device."""
        ids, corner = window.ids.cpu(), window.corner.cpu()
        ends = corner + torch.tensor(window.size)
        return bool(((corner >= 0) & (ends <= self.shapes[ids])).all())

    def _where(self, window: Window, grow: Sequence[int]) -> tuple[Tensor, Tensor]:
        window = window.to(self.bits.device)
        scale = torch.ones_like(window.corner)
        scale[:, -1] = BYTE
        corner = window.corner // scale - torch.tensor(grow, device=self.bits.device)
        size = [*window.size[:-1], window.size[-1] // BYTE]
        size = [length + 2 * more for length, more in zip(size, grow, strict=True)]
        return flat_index(window.ids, corner, size, self._in_bytes, self._offsets)


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
