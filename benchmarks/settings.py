"""Seconds of a training step under each of the settings that promise speed, over the plain one.

U-Net of base width 16, batch 4 of 256², in turns. Where a setting is said to be a default "by measurement",
this is the measurement.

    python benchmarks/settings.py [--device cpu] [--rounds 5]
"""

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch import nn

from engine.device import device_name, find_device
from engine.models.unet import UNet

BATCH = (4, 3, 256, 256)
VARIANTS: dict[str, tuple[bool, torch.dtype | None, bool]] = {
    "plain": (False, None, False),
    "channels_last": (True, None, False),
    "channels_last, compile": (True, None, True),
    "channels_last, bfloat16": (True, torch.bfloat16, False),
    "channels_last, float16": (True, torch.float16, False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), help="names of the settings to measure")
    options = parser.parse_args()
    device = find_device(options.device)
    steps = {name: prepare(*VARIANTS[name], device) for name in options.only}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds + 2):
        for name, step in steps.items():
            started = perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= 2:  # the first steps compile and allocate
                seconds[name].append(perf_counter() - started)
    print(f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    times = {name: median(values) for name, values in seconds.items()}
    for name, time in times.items():
        print(f"{name:<26}{time:8.3f} s   {next(iter(times.values())) / time:5.2f} × as fast")


def prepare(
    channels_last: bool, dtype: torch.dtype | None, compiled: bool, device: torch.device
) -> Callable[[], None]:
    """One training step as a function."""
    torch.manual_seed(0)
    network: nn.Module = UNet(3, 1, base_width=16).to(device)
    image = torch.randn(BATCH, device=device)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
        image = image.contiguous(memory_format=torch.channels_last)
    forward = torch.compile(network) if compiled else network
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits = forward(image)
        logits.float().square().mean().backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
