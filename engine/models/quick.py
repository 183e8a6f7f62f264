"""Layers that are quicker on a CPU than torch's, with channels last in memory, and give the same.

oneDNN convolves such images well, but its gradient of the weights stays far behind where a processor has AVX2
and no more: of a 3×3 convolution it is reckoned here, as products of matrices. And torch's instance norm
copies such images to channels first and leaves them so.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

LEAST_CHANNELS = 16
"""With fewer in or out the matrices are so narrow that oneDNN is as quick."""
LEAST_NUMBERS = 2**14
"""In an image with fewer numbers in all its channels, there is too little to do for so many calls."""
BLOCK = 2**19
"""So many numbers are unfolded at once: 2 MiB, which stay in a cache."""


def quicken(network: nn.Module) -> None:
    """Have a network's 3×3 convolutions and instance norms take the quicker way wherever there is one.

    Their class is swapped, in place; parameters, names and, but for rounding, results stay.
    """
    for layer in network.modules():
        if type(layer) is nn.Conv2d and _fits(layer):
            layer.__class__ = QuickConv2d
        elif type(layer) is nn.InstanceNorm2d and not layer.track_running_stats:
            layer.__class__ = QuickInstanceNorm2d
        elif type(layer) is nn.InstanceNorm3d and not layer.track_running_stats:
            layer.__class__ = QuickInstanceNorm3d


def _fits(layer: nn.Conv2d) -> bool:
    """Whether a convolution is 3×3, with zeros around it, and its result as large as its image."""
    return (
        layer.kernel_size == (3, 3)
        and layer.padding in ("same", (1, 1))
        and layer.stride == layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS
    )


class QuickConv2d(nn.Conv2d):
    """A 3×3 convolution, padded by 1."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, O, H, W) of an image (B, I, H, W)."""
        if self.pays(input):
            result: Tensor = _Convolution.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return result
        return super().forward(input)

    def pays(self, image: Tensor) -> bool:
        """Whether the gradient of the weights will be asked for, and :func:`weight_gradient` is the quicker.

        That was measured with AVX2. With later instructions oneDNN goes other ways, which are left to it.
        """
        return (
            not _is_traced()
            and image.device.type == "cpu"
            and torch.backends.cpu.get_cpu_capability() == "AVX2"
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and self.weight.is_contiguous(memory_format=torch.channels_last)
            and image.ndim == 4
            and image.shape[1:].numel() >= LEAST_NUMBERS
            and not torch.is_autocast_enabled("cpu")
        )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(image, weight)
        return F.conv2d(image, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        image, weight = ctx.saved_tensors
        to_image, to_weight, to_bias = ctx.needs_input_grad
        return (
            conv2d_input(image.shape, weight, gradient, padding=1) if to_image else None,  # type: ignore[no-untyped-call]
            weight_gradient(image, gradient) if to_weight else None,
            gradient.sum((0, 2, 3)) if to_bias else None,
        )


def weight_gradient(image: Tensor, gradient: Tensor) -> Tensor:
    """Gradient (O, I, 3, 3) of the weights of a 3×3 convolution.

    Some rows of an image are unfolded, (rows, W, 3, I): each pixel beside its left and its right neighbour.
    The gradient of a row of the kernel is then the product of two matrices, rows of the result's gradient
    and as many of these, which begin one higher, at the same, or one lower.

    Args:
        image: what was convolved, (B, I, H, W).
        gradient: of the result, (B, O, H, W).
    """
    count, channels, height, width = image.shape
    outputs = gradient.shape[1]
    if outputs < channels:  # so less is unfolded; a point reflection of the kernel swaps the two
        return weight_gradient(gradient, image).flip(2, 3).transpose(0, 1)
    image, gradient = image.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    rows = max(1, min(height, BLOCK // (3 * channels * width)))
    block = image.new_zeros(rows + 2, width, 3, channels)
    result = image.new_zeros(outputs, 3, 3 * channels)
    for number in range(count):
        for top in range(0, height, rows):
            end = min(top + rows, height)
            first, last = max(top - 1, 0), min(end + 1, height)
            unfolded = block[: end - top + 2]
            unfolded[0] = unfolded[-1] = 0  # what lies above and below the image
            inside = unfolded[first - top + 1 : last - top + 1]
            inside[:, 1:, 0] = image[number, first:last, :-1]
            inside[:, :, 1] = image[number, first:last]
            inside[:, :-1, 2] = image[number, first:last, 1:]
            slope = gradient[number, top:end].reshape(-1, outputs).t()
            for row in range(3):
                result[:, row].addmm_(slope, unfolded[row : row + end - top].view(-1, 3 * channels))
    return result.view(outputs, 3, 3, channels).permute(0, 3, 1, 2)


class QuickInstanceNorm2d(nn.InstanceNorm2d):
    """Instance norm of images."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) of an image (B, C, H, W)."""
        return _each(self, input) if _each_pays(input, torch.channels_last) else super().forward(input)


class QuickInstanceNorm3d(nn.InstanceNorm3d):
    """Instance norm of volumes."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, D, H, W) of a volume (B, C, D, H, W)."""
        return _each(self, input) if _each_pays(input, torch.channels_last_3d) else super().forward(input)


def _each_pays(images: Tensor, form: torch.memory_format) -> bool:
    """Whether :func:`_each` is the quicker, or torch's gradient wrong.

    That is wrong for one image (PyTorch 2.13) where the slope comes with channels last in memory.
    """
    if _is_traced():
        return False
    return len(images) == 1 or (images.device.type == "cpu" and images.is_contiguous(memory_format=form))


def _each(layer: nn.InstanceNorm2d | nn.InstanceNorm3d, images: Tensor) -> Tensor:
    """Instance norm as batch norm of one image at a time, which leaves channels last."""
    normed = [
        F.batch_norm(image, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)
        for image in torch.split(images, 1)
    ]
    return normed[0] if len(normed) == 1 else torch.cat(normed)


def _is_traced() -> bool:
    """Whether a graph is being made, for a compiler or a file, into which plain layers belong."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
