"""Random changes of a training batch, drawn on the host and applied on the device, no Python per sample.

An image is first brightened and stretched in contrast, then turned (exactly), then warped: rotation, zoom and
elastic deformation are one sampling grid, through which image, truth, valid and modulated mask go together.
Only the images that resample in this batch pass through the grid; the others keep their pixels exactly.
Volumes (D, h, w) are changed in the plane of their slices, all slices of one alike, and may be mirrored
along their depth: so slices that lie further apart than their pixels are not mixed.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.bits import sent
from engine.data.chance import Stream, bits, uniforms
from engine.data.specs import Augment
from engine.data.turns import DEEP, turn, unturn


@dataclass(frozen=True)
class Draw:
    """What happens to each of the B images of a batch, h × w px (a slice) each. All tensors on the device,
    but the codes."""

    codes: Tensor
    """(B,) int64 on the CPU: mirror and quarter turn, see :mod:`engine.data.turns`."""
    rows: Tensor
    """(K,) int64: the images that resample, ascending."""
    source: Tensor
    """(K, h, w, 2) float32: x, y in the turned image, in px from the centre of its first pixel, of what
    these images show at each pixel."""
    factors: Tensor | None
    """(B, 2) float32: brightness and contrast; None if all are 1."""

    @property
    def resampled(self) -> bool:
        """Whether pixels fall between pixels anywhere in the batch, so that it cannot be undone."""
        return len(self.rows) > 0

    @cached_property
    def outside(self) -> Tensor:
        """(K, 1, h, w) bool: what comes from outside the frame, which ends at the outer edge of the outermost
        pixels."""
        height, width = self.source.shape[1:3]
        x, y = self.source.unbind(-1)
        return ((x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5))[:, None]


def draw(
    settings: Augment,
    seed: int,
    epoch: int,
    ids: Tensor,
    visits: Tensor,
    size: tuple[int, ...],
    device: torch.device | str = "cpu",
) -> Draw:
    """Draw the changes of a batch.

    Angles, factors, alpha and sigma are uniform between their ends, as in batchgenerators; each change
    happens on its own with ``settings.probability``.

    Args:
        settings: what may happen, and how often.
        seed: of the run.
        epoch: 1…E.
        ids: (B,) int64, numbers of the images; on the CPU, so that nothing waits for the device.
        visits: (B,) int64 on the CPU, which crop of that image in the epoch, from 0.
        size: (h, w) or (D, h, w) of the batch in px.
        device: of the batch.
    """
    u = uniforms(seed, epoch, ids, visits, 18, Stream.AUGMENT).view(-1, 9, 2).unbind(1)
    flips, quarters, for_angle, for_zoom, for_alpha, for_brightness, for_contrast, for_sigma, for_depth = u
    mirrored = (for_depth[:, 0] < settings.flip) & (len(size) == 3)
    plane = (size[-2], size[-1])
    p = settings.probability
    angle = _chosen(for_angle, p, (-settings.rotation, settings.rotation), 0.0)
    zoom = _chosen(for_zoom, p, settings.scale, 1.0)
    alpha = _chosen(for_alpha, p, settings.elastic_alpha, 0.0)
    sigma = _between(for_sigma[:, 0], settings.elastic_sigma)
    brightness = _chosen(for_brightness, p, settings.brightness, 1.0)
    contrast = _chosen(for_contrast, p, settings.contrast, 1.0)

    rows = ((angle != 0) | (zoom != 1) | (alpha != 0)).nonzero()[:, 0]
    source = _affine(angle[rows], zoom[rows], plane, device)
    bent = (alpha[rows] != 0).nonzero()[:, 0]
    if len(bent):
        which = rows[bent]
        noise = _noise(seed, epoch, ids[which], visits[which], plane, device)
        shift = elastic(noise, alpha[which], sigma[which]).permute(0, 2, 3, 1)
        source = source + shift if len(bent) == len(rows) else source.index_add(0, sent(bent, device), shift)

    factors = torch.stack([brightness, contrast], dim=1)
    return Draw(
        codes=_codes(settings, flips, quarters, square=plane[0] == plane[1]) + DEEP * mirrored,
        rows=sent(rows, device),
        source=source,
        factors=sent(factors.float(), device) if bool((factors != 1).any()) else None,
    )


def apply(draw: Draw, image: Tensor, masks: Tensor, zero: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Change a batch as drawn.

    Args:
        draw: from :func:`draw`, for the size of this batch, S.
        image: (B, ch, *S) float32, normalised.
        masks: (B, M, *S) bool, everything that goes with the image, stacked.
        zero: (B, ch) float32, the normalised value of raw intensity 0: brightness is a factor on raw values.

    Returns:
        image, masks as given, and inside: (B, 1, *S) bool, False where a pixel came from outside the frame;
        image is 0 and masks are False there.
    """
    if draw.factors is not None:
        ones = [1] * (image.ndim - 2)
        brightness, contrast = draw.factors.view(-1, 2, 1, *ones).unbind(1)
        image = _intensity(image, brightness, contrast, zero.view(*zero.shape, *ones))
    inside = torch.ones_like(masks[:, :1])
    if draw.resampled:
        within = ~draw.outside
        if inside.ndim == 5:
            within = within[:, :, None].expand(-1, -1, inside.shape[2], -1, -1)
        inside.index_copy_(0, draw.rows, within)
    return move(draw, image), move(draw, masks), inside


def move(draw: Draw, x: Tensor) -> Tensor:
    """The geometric part of :func:`apply`, for masks and for maps in float32: (B, C, *S), as given."""
    x = turn(x, draw.codes)
    return x.index_copy_(0, draw.rows, _sample(draw, x.index_select(0, draw.rows))) if draw.resampled else x


def undo(draw: Draw, x: Tensor) -> Tensor:
    """Bring masks or predictions (B, C, *S) of a changed batch back into the images' own frame, exactly.

    Raises:
        ValueError: the draw resampled, which cannot be undone.
    """
    if draw.resampled:
        raise ValueError("a batch that was rotated, zoomed or deformed cannot be undone exactly")
    return unturn(x, draw.codes)


def elastic(noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Displacement of an elastic deformation (Simard, Steinkraus and Platt 2003): smoothed noise × alpha.

    The Gaussian is applied in Fourier space, where one pass does any sigma; the field therefore wraps around,
    and is as strong at the edges as in the middle.

    Args:
        noise: (B, 2, h, w) float32, uniform in [−1, 1].
        alpha: (B,) strength in px.
        sigma: (B,) standard deviation of the Gaussian in px.

    Returns:
        (B, 2, h, w) float32, in px. Its standard deviation is about alpha / (6.1 sigma).
    """
    height, width = noise.shape[-2:]
    alpha, sigma = (x.cpu().double()[:, None] for x in (alpha, sigma))
    down, across = (
        torch.exp(-2 * (math.pi * sigma * frequencies) ** 2)
        for frequencies in (torch.fft.fftfreq(height), torch.fft.rfftfreq(width))
    )
    # A Gaussian is one of each axis: few numbers to work out on the CPU, and few to send.
    both = sent(torch.cat([alpha * down, across], dim=1).to(noise.dtype), noise.device)
    transfer = both[:, None, :height, None] * both[:, None, None, height:]
    shift: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) * transfer, s=(height, width))
    return shift


def _sample(draw: Draw, x: Tensor) -> Tensor:
    """Read (K, C, *S) at the draw's source: bilinear for float32, else nearest; 0 or False outside."""
    if x.ndim == 5:
        return _sample(draw, x.flatten(1, 2)).view(x.shape)
    height, width = x.shape[-2:]
    if x.is_floating_point():
        grid = (2 * draw.source + 1) / _extent(height, width, x.device) - 1
        found = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    else:
        column, row = draw.source.round().long().unbind(-1)
        index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        index = index.flatten(1)[:, None].expand(-1, x.shape[1], -1)
        found = x.flatten(2).gather(2, index).view(x.shape)
    return found.masked_fill_(draw.outside, 0)


@lru_cache(maxsize=64)
def _extent(height: int, width: int, device: torch.device) -> Tensor:
    """(2,) int64: width, height, which are sent to a device once."""
    return torch.tensor([width, height], device=device)


def _noise(
    seed: int, epoch: int, ids: Tensor, visits: Tensor, size: tuple[int, int], device: torch.device | str
) -> Tensor:
    """(B, 2, h, w) float32 on the device, uniform in [−1, 1)."""
    words = bits(seed, epoch, ids, visits, 2 * size[0] * size[1], Stream.ELASTIC, device)
    noise: Tensor = (words >> 40).float() * 2.0**-23  # 24 signed bits: exact in float32
    return noise.view(-1, 2, *size)


def _between(u: Tensor, interval: tuple[float, float]) -> Tensor:
    low, high = interval
    return low + u * (high - low)


def _chosen(u: Tensor, probability: float, interval: tuple[float, float], neutral: float) -> Tensor:
    """(B, 2) uniforms → (B,): a value of the interval where the first is below ``probability``."""
    return torch.where(u[:, 0] < probability, _between(u[:, 1], interval), neutral)


def _codes(settings: Augment, flips: Tensor, quarters: Tensor, square: bool) -> Tensor:
    """(B,) int64: both mirrors, then the quarter turns, as one symmetry."""
    upside, mirrored = (flips < settings.flip).unbind(1)
    turns = 1 + (3 * quarters[:, 1]).long() if square else torch.tensor(2)
    turns = torch.where(quarters[:, 0] < settings.quarter_turn, turns, 0)
    # Upside down is left to right, then half a turn.
    codes: Tensor = (turns + 2 * upside) % 4 + 4 * (upside ^ mirrored)
    return codes


def _affine(angle: Tensor, zoom: Tensor, size: tuple[int, int], device: torch.device | str) -> Tensor:
    """(K, h, w, 2) float32, see :attr:`Draw.source`: counter-clockwise by ``angle`` (degrees), larger by
    ``zoom``, about the centre. In px, so that angles stay angles where h ≠ w."""
    height, width = size
    if not len(angle):
        return torch.empty((0, height, width, 2), device=device)
    cos, sin = ((f(torch.deg2rad(angle)) / zoom).float()[:, None] for f in (torch.cos, torch.sin))
    y, x = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    parts = sent(torch.cat([x * cos, x * sin, y * sin, y * cos], dim=1), device)
    x_cos, x_sin, y_sin, y_cos = torch.split(parts, [width, width, height, height], dim=1)
    across = x_cos[:, None] - y_sin[:, :, None] + (width - 1) / 2
    down = x_sin[:, None] + y_cos[:, :, None] + (height - 1) / 2
    return torch.stack([across, down], dim=-1)


def _intensity(image: Tensor, brightness: Tensor, contrast: Tensor, zero: Tensor) -> Tensor:
    """Brightness about ``zero``, then contrast about the mean of each image and channel, in one pass."""
    lift = zero * (1 - brightness)
    mean = image.mean(dim=tuple(range(2, image.ndim)), keepdim=True) * brightness + lift
    return image * (brightness * contrast) + (lift * contrast + mean * (1 - contrast))
