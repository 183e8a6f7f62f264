"""Random numbers that depend on what they are for, not on when they are drawn.

Every number is a hash of (seed, epoch, image, visit) and of its purpose, so the order of the images, the
composition of the batches, workers and a resumed run cannot change it. The hash is SplitMix64 (Steele, Lea
and Flood 2014) in wrapping int64 arithmetic: the same on every device, with no Python per sample.
"""

from enum import IntEnum

import torch
from torch import Tensor

from engine.bits import sent

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: SplitMix64's step


class Stream(IntEnum):
    """What random numbers are for; each purpose has its own, independent of all others."""

    ORDER = 0
    CROP = 1
    AUGMENT = 2
    ELASTIC = 3


def uniforms(seed: int, epoch: int, ids: Tensor, visits: Tensor, count: int, stream: Stream) -> Tensor:
    """Numbers in [0, 1) for each visit of each image.

    Args:
        seed: of the run.
        epoch: 1…E.
        ids: (B,) int64, numbers of the images.
        visits: (B,) int64, which crop of that image in the epoch, from 0.
        count: how many numbers for each.
        stream: what they are for.

    Returns:
        (B, count) float64 on the device of ``ids``, 53 random bits each.
    """
    return _logical_shift(bits(seed, epoch, ids, visits, count, stream), 11).double() * 2.0**-53


def bits(
    seed: int, epoch: int, ids: Tensor, visits: Tensor, count: int, stream: Stream,
    device: torch.device | str | None = None,
) -> Tensor:  # fmt: skip
    """64 random bits each, (B, count) int64; arguments as for :func:`uniforms`, and a device for the result,
    by default that of ``ids``. With these on the CPU, a key each is all that is sent there."""
    key = torch.zeros((), dtype=torch.int64)
    for word in (int(stream), seed, epoch):
        key = _absorb(key, torch.tensor(_signed(word)))
    key = _absorb(_absorb(key, ids), visits)
    key = sent(key, device) if device is not None else key
    counter = torch.arange(1, count + 1, device=key.device) * _signed(_GOLDEN)
    return _mix(key[:, None] + counter)


def _absorb(key: Tensor, word: Tensor) -> Tensor:
    return _mix(key ^ _mix(word + _signed(_GOLDEN)))


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser: each bit in changes about half of the bits out."""
    z = (z ^ _logical_shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _logical_shift(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _logical_shift(z, 31)


def _logical_shift(z: Tensor, places: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift repeats the sign."""
    return (z >> places) & ((1 << (64 - places)) - 1)


def _signed(word: int) -> int:
    """The int64 with the lowest 64 bits of ``word``."""
    return (word + 2**63) % 2**64 - 2**63
