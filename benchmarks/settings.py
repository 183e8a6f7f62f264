"""Seconds of a training step under each of the settings that promise speed, over the plain one.

U-Net of base width 32, batch 4 of 256², forward, backward and Adam. Each setting is a process of its own,
since some hold for a whole process; they take turns. Where a setting is said to be a default "by
measurement", this is the measurement. On a CPU that does nothing else it takes about 4 minutes.

    python benchmarks/settings.py [--device cpu] [--rounds 4] [--norm instance] [--only NAME …] [--keep]
"""

import argparse
import json
import os
import resource
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from statistics import median
from subprocess import PIPE, Popen
from time import process_time

import torch
from measured import Table, Target, in_turns, options, ratio, report, wait
from torch import nn

from engine.device import DTYPES, find_device, kept_memory
from engine.losses.objective import build
from engine.losses.specs import DiceCrossEntropy
from engine.models.quick import quicken
from engine.models.unet import UNet

PLAIN, LAST, OURS = "plain", "channels last", "channels last, quick layers, kept memory"


@dataclass(frozen=True)
class Setting:
    """What is set. `quick` and `kept` are what the engine does on a CPU; `where` says on which devices a
    setting is measured."""

    channels_last: bool = True
    quick: bool = False
    kept: bool = False
    huge_pages: bool = False
    fused: bool = False
    onednn: bool = True
    fpmath: str | None = None
    threads: int | None = None
    dtype: str | None = None
    compiled: bool = False
    where: tuple[str, ...] = ("cpu", "cuda", "mps")


CPU = Setting(quick=True, kept=True, where=("cpu",))
SETTINGS = {
    PLAIN: Setting(channels_last=False),
    LAST: Setting(),
    "channels last, quick layers": Setting(quick=True, where=("cpu",)),
    OURS: CPU,
    "these with 1 thread": replace(CPU, threads=1),
    "these with huge pages": replace(CPU, huge_pages=True),
    "these with fused Adam": replace(CPU, fused=True),
    "these without oneDNN": replace(CPU, onednn=False),
    "these with oneDNN's bfloat16 within float32": replace(CPU, fpmath="BF16"),
    "these with bfloat16": replace(CPU, dtype="bfloat16"),
    "channels last, bfloat16": Setting(dtype="bfloat16", where=("cuda",)),
    "channels last, float16": Setting(dtype="float16", where=("cuda", "mps")),
    "channels last, compile": Setting(compiled=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    options(parser)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--norm", default="batch", choices=["batch", "instance", "none"])
    parser.add_argument("--only", nargs="*", choices=list(SETTINGS), help="names of the settings to measure")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        answer(Setting(**json.loads(flags.child)), flags)
        return
    device = find_device(flags.device)
    names = flags.only or [name for name, setting in SETTINGS.items() if suits(setting, device)]
    children = {name: start(SETTINGS[name]) for name in names}
    used: dict[str, list[tuple[float, float]]] = {name: [] for name in names}

    def asks(name: str) -> Callable[[], None]:
        def ask() -> None:
            child = children[name]
            print(file=child.stdin, flush=True)
            used[name].append(tuple(json.loads(child.stdout.readline())))

        return ask

    # Each child waits for its device itself.
    seconds = in_turns({name: asks(name) for name in names}, flags.rounds, torch.device("cpu"), warm=2)
    for child in children.values():
        child.communicate()
    rows = []
    for name in names:
        against = [ratio(seconds[base], seconds[name]) for base in (PLAIN, LAST) if base in names]
        cpu, memory = median(use[0] for use in used[name][2:]), used[name][-1][1]
        rows.append([name, median(seconds[name]), *against, cpu, memory])
    columns = ["setting", "s a step", *(f"× {base}" for base in (PLAIN, LAST) if base in names)]
    table = Table(
        "settings",
        f"U-Net, base {flags.width}, {flags.norm} norm, batch {flags.batch} of {flags.size}²",
        [*columns, "CPU s a step", "peak memory, MB"],
        rows,
        "A ratio is the median of the rounds' ratios. Peak memory is the process's, on a CPU.",
    )
    targets = []
    if OURS in names:
        wanted = ((PLAIN, 1.3), (LAST, 1.05))
        targets = [
            Target(
                f"a step as the engine does it, against {base}", ratio(seconds[base], seconds[OURS]), least
            )
            for base, least in wanted
            if base in names
        ]
    name = "settings" if flags.norm == "batch" else f"settings-{flags.norm}"
    report(name, device, [table], targets, keep=flags.keep, about=__doc__.partition("\n\n    ")[0])


def suits(setting: Setting, device: torch.device) -> bool:
    """Whether a setting is measured without being asked for: compiling takes minutes on a CPU."""
    if device.type == "cpu" and setting.dtype == "bfloat16":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type in setting.where and not (device.type == "cpu" and setting.compiled)


def start(setting: Setting) -> Popen[str]:
    """A process that takes a step under a setting for each line that it is given."""
    environment = dict(os.environ)
    if setting.huge_pages:
        environment["THP_MEM_ALLOC_ENABLE"] = "1"
    if setting.fpmath:
        environment["ONEDNN_DEFAULT_FPMATH_MODE"] = setting.fpmath
    command = [sys.executable, *sys.argv, "--child", json.dumps(asdict(setting))]
    return Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment)


def answer(setting: Setting, flags: argparse.Namespace) -> None:
    """Take a step for each line, and say its seconds of the processor and the process's peak memory, MB."""
    device = find_device(flags.device)
    torch.backends.mkldnn.set_flags(setting.onednn)
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    with kept_memory() if setting.kept else nullcontext():
        step = prepare(setting, flags, device)
        for _ in sys.stdin:
            started = process_time()
            step()
            wait(device)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            print(json.dumps([process_time() - started, peak]), flush=True)


def prepare(setting: Setting, flags: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    """One training step as a function."""
    torch.manual_seed(0)
    network: nn.Module = UNet(3, 2, base_width=flags.width, norm=flags.norm).to(device)
    image = torch.randn(flags.batch, 3, flags.size, flags.size, device=device)
    truth = torch.rand(flags.batch, 1, flags.size, flags.size, device=device) > 0.9
    if setting.channels_last:
        network = network.to(memory_format=torch.channels_last)
        image = image.contiguous(memory_format=torch.channels_last)
    if setting.quick:
        quicken(network)
    forward = torch.compile(network) if setting.compiled else network
    optimizer = torch.optim.Adam(network.parameters(), fused=setting.fused or None)
    objective = build(DiceCrossEntropy(), "softmax", 1)
    dtype = DTYPES[setting.dtype] if setting.dtype else None

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits = forward(image)
        objective(logits, truth).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
