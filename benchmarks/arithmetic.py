"""Share of a device's attainable arithmetic that training uses, and what stands between.

A training step of a U-Net (forward, Dice + cross-entropy, backward, Adam), as the engine does it: its memory
format, dtype, switches and layers. The floating-point operations that it needs (of convolutions, counted by
torch) a second, over those of a large matrix product in the same dtype, in the same run. Then the time of
each group of operations, by torch's profiler, and how near to that ceiling convolutions come.

    python benchmarks/arithmetic.py [--side 512] [--base-width 64] [--rounds 5] [--fast] [--compile] [--keep]
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from statistics import median
from typing import Any

import torch
from measured import Table, Target, in_turns, options, report, wait
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from engine.device import arithmetic, find_device, find_precision
from engine.losses.objective import build
from engine.losses.specs import DiceCrossEntropy
from engine.models.quick import quicken, weight_gradient
from engine.models.unet import UNet
from engine.optim import Adam

FORWARD, INPUTS, WEIGHTS = (
    "convolutions, forward", "convolutions, gradient of inputs", "convolutions, gradient of weights"
)  # fmt: skip
BACKWARD = "convolutions, gradients"
OURS = "_ConvolutionBackward"
"""The engine's gradients of a convolution (:mod:`engine.models.quick`)."""
GROUPS = {
    BACKWARD: ("convolution_backward", "ConvolutionBackward"),
    FORWARD: ("conv",),
    "normalisation": ("batch_norm", "BatchNorm", "instance_norm", "InstanceNorm"),
    "activation": ("relu", "Relu", "threshold_backward", "clamp_min"),
    "pooling": ("max_pool", "MaxPool"),
    "concatenation": ("aten::cat", "CatBackward"),
    "optimiser": ("_foreach_", "_fused_adam", "Optimizer", "lerp", "addcdiv", "addcmul", "sqrt"),
    "copies and casts": ("copy_", "_to_copy", "clone", "contiguous"),
}
"""Parts of the names of operations; the first group that fits counts."""
OTHERS = "others: loss, gradients added up, …"
STEPS = 3  # profiled


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, help="512, on a CPU 256")
    parser.add_argument("--base-width", type=int, help="64, on a CPU 32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument("--fast", action="store_true", help="without training.deterministic")
    parser.add_argument("--compile", action="store_true", help="with training.compile")
    options(parser)
    asked = parser.parse_args()
    device = find_device(asked.device)
    cpu = device.type == "cpu"
    side, width = asked.side or (256 if cpu else 512), asked.base_width or (32 if cpu else 64)
    dtype = find_precision(asked.precision, device)
    with arithmetic(None, deterministic=not asked.fast):
        setting = (side, width, asked.batch, device, dtype)
        step = training(*setting, compiled=asked.compile)
        plain = training(*setting) if asked.compile else step
        with FlopCounterMode(display=False) as counter:
            training(*setting, quick=False)()
        with Convolutions() as convolutions:
            plain()
        product, operations = matrix_product(device, dtype or torch.float32)
        seconds = in_turns({"step": step, "product": product}, asked.rounds, device, warm=2)
        groups = profiled(plain, device)
        alone = convolutions.alone(device)
    needed, took = float(counter.get_total_flops()), median(seconds["step"])
    attainable = operations / median(seconds["product"])
    share = 100 * median(
        needed * b / (operations * a) for a, b in zip(seconds["step"], seconds["product"], strict=True)
    )
    kind = str(dtype or torch.float32).removeprefix("torch.")
    what = f"U-Net of base width {width}, batch {asked.batch} of {side}², {kind}"
    overall = Table(
        "arithmetic",
        f"A training step: {what}",
        ["ms", "TFLOP", "TFLOP/s", "of a matrix product, TFLOP/s", "share, %"],
        [[1e3 * took, needed / 1e12, needed / took / 1e12, attainable / 1e12, share]],
        "Not deterministic." if asked.fast else "",
    )
    report(
        "arithmetic", device, [overall, between(groups, alone, took, attainable)],
        [] if cpu else [Target(f"of attainable arithmetic, {what}", share, least=40.0, unit="%")],
        keep=asked.keep, about=(__doc__ or "").split("    py")[0],
    )  # fmt: skip


def training(
    side: int, width: int, batch: int, device: torch.device, dtype: torch.dtype | None,
    quick: bool = True, compiled: bool = False,
) -> Callable[[], None]:  # fmt: skip
    """What does a step.

    Args:
        side: of the images.
        width: base width of the U-Net.
        batch: images.
        device: where the step is done.
        dtype: of autocast, if any.
        quick: with the engine's layers where they are quicker, else torch's, whose operations are counted.
        compiled: with torch.compile.
    """
    torch.manual_seed(0)
    network = UNet(3, 1, base_width=width).to(device, memory_format=torch.channels_last)
    if quick:
        quicken(network)
    forward = torch.compile(network) if compiled else network
    optimizer = Adam().bind()(network.parameters())
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    objective = build(DiceCrossEntropy(), "sigmoid", 1)
    image = torch.randn(batch, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    truth = torch.rand(batch, 1, side, side, device=device) < 0.1

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype) if dtype else nullcontext():
            logits = forward(image)
        scaler.scale(objective(logits, truth)).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def matrix_product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], Tensor], float]:
    """What multiplies two large matrices, and its floating-point operations."""
    side = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = 1 if device.type == "cpu" else 8

    def multiply() -> Tensor:
        for _ in range(times):
            product = a @ b
        return product

    return multiply, times * 2.0 * side**3


def profiled(step: Callable[[], None], device: torch.device) -> dict[str, float]:
    """Seconds of a step in each group of operations: on a GPU, in which its kernels ran."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        for _ in range(STEPS):
            step()
        wait(device)
    found: dict[str, float] = defaultdict(float)
    for event in recorded.events():
        if event.device_type != DeviceType.CPU:
            continue  # a kernel, which is counted with the operation that asked for it
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        found[group_of(event)] += own / 1e6 / STEPS
    return found


def group_of(event: Any) -> str:
    """The group of an operation: the engine's gradients of a convolution are made of many."""
    names = [event.name]
    while event.cpu_parent is not None:
        event = event.cpu_parent
        names.append(event.name)
    if OURS in names:
        return BACKWARD
    name = names[0]
    return next((group for group, parts in GROUPS.items() if any(part in name for part in parts)), OTHERS)


@dataclass(frozen=True)
class Convolution:
    """A convolution of a network, and what its gradients are made of, without their numbers.

    Attributes:
        gradient: of the result.
        image, weight: what was convolved.
        settings: as torch takes them: stride, padding, dilation, whether transposed, …
        image_too: whether the gradient of the image was asked for.
        quick: whether that of the weights was the engine's.
    """

    gradient: Tensor
    image: Tensor
    weight: Tensor
    settings: tuple[Any, ...]
    image_too: bool
    quick: bool

    @property
    def operations(self) -> float:
        """Floating-point operations, forward; those of each gradient are as many."""
        transposed = self.settings[3]
        places = (self.image if transposed else self.gradient).shape
        return 2.0 * places[0] * prod(places[2:]) * self.weight.numel()

    def ways(self, device: torch.device) -> Mapping[str, Callable[[], object]]:
        """What runs it forward, and for each gradient alone, on numbers of chance."""
        gradient, image, weight = (
            torch.empty_like(x, device=device).normal_() for x in (self.gradient, self.image, self.weight)
        )
        back = torch.ops.aten.convolution_backward

        def of_weights() -> Tensor:
            if self.quick:
                return weight_gradient(image, gradient)
            found: Tensor = back(gradient, image, weight, None, *self.settings, [False, True, False])[1]
            return found

        ways: dict[str, Callable[[], object]] = {
            FORWARD: lambda: torch.ops.aten.convolution(image, weight, None, *self.settings),
            WEIGHTS: of_weights,
        }
        if self.image_too:
            ways[INPUTS] = lambda: back(gradient, image, weight, None, *self.settings, [True, False, False])
        return ways


class Convolutions(TorchDispatchMode):
    """Notes the convolutions of a step while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Convolution] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            gradient, image, weight = (torch.empty_like(x, device="meta") for x in args[:3])
            to_image, to_weight, _ = args[10]
            self.found.append(
                Convolution(gradient, image, weight, tuple(args[4:10]), to_image, quick=not to_weight)
            )
        return func(*args, **(kwargs or {}))

    def alone(self, device: torch.device) -> dict[str, tuple[float, float]]:
        """Seconds and floating-point operations of all, forward and for each gradient, each alone."""
        seconds: dict[str, float] = defaultdict(float)
        operations: dict[str, float] = defaultdict(float)
        for one in self.found:
            for name, values in in_turns(one.ways(device), 3, device).items():
                seconds[name] += median(values)
                operations[name] += one.operations
        return {name: (seconds[name], operations[name]) for name in seconds}


def between(
    groups: Mapping[str, float], alone: Mapping[str, tuple[float, float]], step: float, attainable: float
) -> Table:
    """What the time of a step goes to, the most first.

    Args:
        groups: seconds of each group of operations.
        alone: those of convolutions, timed alone, and their floating-point operations.
        step: seconds, not profiled.
        attainable: operations a second.
    """
    parts = dict(groups)
    backward = parts.pop(BACKWARD)
    for name in (INPUTS, WEIGHTS):
        parts[name] = backward * alone[name][0] / (alone[INPUTS][0] + alone[WEIGHTS][0])
    rows: list[list[str | float]] = []
    for name, value in sorted(parts.items(), key=lambda part: -part[1]):
        share = 100 * alone[name][1] / value / attainable if name in alone else ""
        rows.append([name, 1e3 * value, 100 * value / step, share])
    idle = step - sum(parts.values())
    rows.append(["idle, or more than was profiled", 1e3 * idle, 100 * idle / step, ""])
    return Table(
        "arithmetic-groups",
        "What the time of a step goes to",
        ["", "ms", "% of the step", "% of attainable arithmetic"],
        rows,
        "By torch's profiler, which slows a step on a CPU; on a GPU the time in which kernels ran. That of "
        "the gradients of convolutions is shared out by what each of the two takes alone.",
    )


if __name__ == "__main__":
    main()
