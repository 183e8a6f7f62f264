"""Each loss, forward and backward, against what a user would run instead.

Every loss of the registry, as training calls it (from logits), and every function, from probabilities or
logits. Against MONAI's loss where it has one, else the formula as the authors' published code writes it. The
truth is bool or, of a label map, bytes for ours, as training hands it over, and float32 or a label map of
torch's type for the others, as MONAI's transforms make it; conversions count. Freed memory is kept for both,
as in training. Losses that define the same number are checked to give it.

Skeleton recall and boundary loss need a map of the truth. Their authors' loaders make it anew for each sample
of each step, on the CPU, one after the other; the engine makes it once, when an image is decoded, and then
only reads it. The first figure has the reference make it in each step, as its loader does; a second one has
it made beforehand in both.

    python benchmarks/losses.py [--device cpu] [--seconds 0.4] [--only cldice] [--keep]
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, get_args

import measured
import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import (
    AsymmetricUnifiedFocalLoss,
    DiceCELoss,
    DiceFocalLoss,
    DiceLoss,
    FocalLoss,
    SoftclDiceLoss,
    SoftDiceclDiceLoss,
    TverskyLoss,
)
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.morphology import dilation, skeletonize
from torch import Tensor

from engine.device import find_device, kept_memory
from engine.head import Head
from engine.losses import specs
from engine.losses.boundary import boundary, signed_distance
from engine.losses.compound import combo, unified_focal
from engine.losses.guides import Guides
from engine.losses.objective import build
from engine.losses.overlap import dice, dsc_plus_plus, focal_tversky, tversky
from engine.losses.pixelwise import binary_cross_entropy, cross_entropy, focal, label_map
from engine.losses.sensitivity import elevated_sensitivity
from engine.losses.topology import half_width, skeleton_recall, soft_cldice, tubed_skeleton

SHAPES = [(4, 1, 512, 512), (4, 3, 256, 256), (2, 2, 64, 64, 64)]
MAPS = ("skeleton_recall", "boundary")

Way = Callable[[Tensor], Tensor]
"""From logits or probabilities that ask for a gradient to a loss."""


@dataclass(frozen=True)
class Data:
    """A batch: masks of exclusive classes as blobs, and a prediction that is mostly right."""

    y: Tensor  # bool (B, C, *S)
    logits: Tensor  # (B, C, *S), each class on its own
    exclusive: Tensor  # (B, C + 1, *S), background first

    @property
    def numbers(self) -> Tensor:
        return self.y.float()

    @property
    def labels(self) -> Tensor:
        background = ~self.y.any(1, keepdim=True)
        return torch.cat([background, self.y], 1).float().argmax(1, keepdim=True)


@dataclass(frozen=True)
class Case:
    """A comparison.

    Attributes:
        loss: its name.
        form: "objective" or "function".
        reference: what it is compared with.
        x: what both are differentiated by.
        same: whether both define the same number.
        least: how many times as fast it is to be.
        rounds: at most.
    """

    loss: str
    form: str
    reference: str
    x: Tensor
    ours: Way
    theirs: Way
    same: bool = True
    least: float = 1.0
    rounds: int = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measured.options(parser)
    parser.add_argument("--seconds", type=float, default=0.4, help="spent on each comparison, about")
    parser.add_argument("--only", default="", help="losses whose name has this in it")
    options = parser.parse_args()
    device = find_device(options.device)
    tables, worst = [], {}
    for shape in SHAPES:
        rows = []
        for case in cases(batch(shape, device)):
            if options.only not in case.loss:
                continue
            check(case)
            with kept_memory():
                ours, theirs, times = compare(case, device, options.seconds)
            rows.append((case.loss, case.form, case.reference, 1e3 * ours, 1e3 * theirs, times))
            key = (case.loss, case.form, case.reference if case.loss in MAPS else "", case.least)
            worst[key] = min(worst.get(key, times), times)
        name = " × ".join(map(str, shape))
        columns = ["loss", "as", "reference", "ms", "ms reference", "times as fast"]
        note = "Milliseconds are medians; the ratio is that of rounds taken in turns."
        tables.append(
            measured.Table("x".join(map(str, shape)), f"Forward and backward, {name}", columns, rows, note)
        )
    targets = [
        measured.Target(
            f"{loss}, {form}{f', {reference}' if reference else ''}", times, least=least
        )
        for (loss, form, reference, least), times in worst.items()
    ]  # fmt: skip
    measured.report(
        "losses", device, tables, targets, keep=options.keep,
        about="Each loss, forward and backward, against MONAI's or the formula as its authors' code writes "
        "it. Each target is the slowest of the shapes. A map of the truth that a reference makes in each "
        "step, as its loader does on the CPU, is made once and kept by the engine; how the loss alone "
        "compares is given too. Freed memory is kept for both, as in training.",
    )  # fmt: skip


def compare(case: Case, device: torch.device, seconds: float) -> tuple[float, float, float]:
    """Median seconds of ours and of theirs, and how many times as fast ours is."""
    ways = {"ours": partial(step, case.ours, case.x), "theirs": partial(step, case.theirs, case.x)}
    once = measured.in_turns(ways, 1, device, warm=0)
    rounds = int(seconds / (once["ours"][0] + once["theirs"][0]))
    rounds = min(case.rounds, max(3, rounds))
    taken = measured.in_turns(ways, rounds, device, warm=0)
    times = measured.ratio(taken["theirs"], taken["ours"])
    return median(taken["ours"]), median(taken["theirs"]), times


def step(way: Way, x: Tensor) -> None:
    way(x.detach().requires_grad_()).backward()


def check(case: Case) -> None:
    """That both are the same loss, where they are meant to be."""
    if case.same:
        with torch.no_grad():
            torch.testing.assert_close(case.ours(case.x), case.theirs(case.x), rtol=1e-3, atol=1e-4)


def batch(shape: tuple[int, ...], device: torch.device) -> Data:
    draw = np.random.default_rng(0)
    fields = np.stack([
        np.stack([gaussian_filter(draw.standard_normal(shape[2:]), 4) for _ in range(shape[1])])
        for _ in range(shape[0])
    ])  # fmt: skip
    fields = fields / fields.std() - 0.9
    y = (fields > 0) & (fields == fields.max(1, keepdims=True))
    logits = 4 * fields + 0.5 * draw.standard_normal(shape)
    exclusive = np.concatenate([np.zeros_like(logits[:, :1]), logits], 1)
    return Data(
        torch.from_numpy(y).to(device),
        torch.from_numpy(logits).float().to(device),
        torch.from_numpy(exclusive).float().to(device),
    )


# The references


def overlap(p: Tensor, y: Tensor, index: Callable[..., Tensor], gamma: float = 1.0) -> Tensor:
    """What an index of TP, FP and FN is off 1, as the public code of the DSC++ and Unified Focal papers."""
    axes = list(range(2, p.ndim))
    tp = (y * p).sum(axes)
    fn = ((y * (1 - p)) ** gamma).sum(axes)
    fp = (((1 - y) * p) ** gamma).sum(axes)
    return 1 - index(tp, fp, fn)


def dice_index(tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
    return (2 * tp + 1e-5) / (2 * tp + fp + fn + 1e-5)


def tversky_index(tp: Tensor, fp: Tensor, fn: Tensor, alpha: float = 0.3) -> Tensor:
    return (tp + 1e-5) / (tp + alpha * fp + (1 - alpha) * fn + 1e-5)


def combo_formula(p: Tensor, y: Tensor, gamma: float = 1.0) -> Tensor:
    clipped = p.clamp(1e-7, 1 - 1e-7)
    nats = -(0.5 * y * clipped.log() + 0.5 * (1 - y) * (1 - clipped).log())
    return 0.5 * nats.mean() - 0.5 * (1 - overlap(p, y, dice_index, gamma)).mean()


def unified_formula(
    p: Tensor, y: Tensor, gamma: float = 0.1, delta: float = 0.6, errors: float = 2.0
) -> Tensor:
    clipped = p.clamp(1e-7, 1 - 1e-7)
    fore = -delta * y * clipped.log()
    back = -(1 - delta) * clipped**gamma * (1 - y) * (1 - clipped).log()
    own = overlap(p, y, partial(tversky_index, alpha=1 - delta), errors)
    rest = overlap(1 - p, 1 - y, partial(tversky_index, alpha=1 - delta), errors)
    return 0.5 * (fore + back).mean() + 0.25 * (rest + own ** (1 - gamma)).mean()


def sensitivity_formula(p: Tensor, y: Tensor) -> Tensor:
    axes = list(range(2, p.ndim))
    return (-(y * p).sum(axes) / (y[0, 0].numel() + (y * (1 - p)).sum(axes))).mean()


def skeleton_maps(y: Tensor) -> Tensor:
    """Of one sample after the other, as the transform of Kirchhoff et al.: all classes are thinned as one."""
    maps = []
    for masks in y.cpu().numpy().astype(bool):
        skeleton = skeletonize(masks.any(0)).astype(np.int16)
        maps.append(dilation(dilation(skeleton)) * masks)
    return torch.from_numpy(np.stack(maps)).to(y.device)


def recall_formula(p: Tensor, maps: Tensor) -> Tensor:
    axes = list(range(2, p.ndim))
    with torch.no_grad():
        number = maps.sum(axes)
    return -(((p * maps).sum(axes) + 1.0) / (number + 1.0).clip(min=1e-8)).mean()


def distance_maps(y: Tensor) -> Tensor:
    """Of one sample after the other, as the transform of Kervadec et al."""
    masks = y.cpu().numpy().astype(bool)
    maps = np.zeros(masks.shape, np.float32)
    for at in np.ndindex(*masks.shape[:2]):
        inside = masks[at]
        if inside.any():
            maps[at] = (
                distance_transform_edt(~inside) * ~inside - (distance_transform_edt(inside) - 1) * inside
            )
    return torch.from_numpy(maps).to(y.device)


def boundary_formula(p: Tensor, maps: Tensor) -> Tensor:
    return torch.einsum("bc...,bc...->bc...", p, maps).mean()


def own_maps(make: Callable[[np.ndarray], np.ndarray], y: Tensor) -> Tensor:
    masks = y.cpu().numpy()
    maps = np.stack([[make(mask) for mask in image] for image in masks])
    return torch.from_numpy(maps if maps.dtype == bool else maps.astype(np.float32)).to(y.device)


# The comparisons


def cases(data: Data) -> Iterator[Case]:
    """All, for a batch."""
    guides = Guides(own_maps(tubed_skeleton, data.y), own_maps(signed_distance, data.y))
    skeletons, distances = skeleton_maps(data.y), distance_maps(data.y)
    yield from objectives(data, guides, skeletons, distances)
    yield from functions(data, guides, skeletons, distances)


def objectives(data: Data, guides: Guides, skeletons: Tensor, distances: Tensor) -> Iterator[Case]:
    """Every loss of the registry, from logits."""
    y, classes = data.numbers, data.y.shape[1]
    many = classes > 1
    target = data.labels if many else y
    region = {name: chain(torch.sigmoid, formula) for name, formula in regions(y).items()}
    dice_ce = (
        DiceCELoss(softmax=True, to_onehot_y=True, include_background=False)
        if many
        else DiceCELoss(sigmoid=True)
    )
    single = DiceLoss(sigmoid=True)
    index = TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7)
    foreground = (lambda z: z.softmax(1)[:, 1:]) if many else torch.sigmoid

    def entropy(z: Tensor) -> Tensor:
        return F.cross_entropy(z, target.squeeze(1)) if many else F.binary_cross_entropy_with_logits(z, y)

    def both(make: Callable[[Tensor], Tensor], formula: Callable[..., Tensor], z: Tensor) -> Tensor:
        return dice_ce(z, target) + formula(foreground(z), make(data.y))

    own: Mapping[str, tuple[str, Way, bool]] = {
        "dice": ("MONAI DiceLoss", partial(call, single, y), True),
        "tversky": ("MONAI TverskyLoss", partial(call, index, y), True),
        "focal": ("MONAI FocalLoss", partial(call, FocalLoss(gamma=2.0), y), True),
        "cross_entropy": ("torch", entropy, True),
        "binary_cross_entropy": ("torch", partial(call, torch.nn.BCEWithLogitsLoss(), y), True),
        "dice_ce": ("MONAI DiceCELoss", partial(call, dice_ce, target), True),
        "dice_bce": (
            "MONAI DiceLoss + torch", lambda z: single(z, y) + F.binary_cross_entropy_with_logits(z, y), True,
        ),
        "dice_focal": ("MONAI DiceFocalLoss", partial(call, DiceFocalLoss(sigmoid=True), y), True),
        "cldice": ("MONAI SoftDiceclDiceLoss", partial(call, SoftDiceclDiceLoss(3, sigmoid=True), y), False),
    }  # fmt: skip
    for part in get_args(get_args(specs.Loss)[0]):
        name = part().name
        softmax = many and name in ("cross_entropy", "dice_ce", *MAPS)
        head: Head = "softmax" if softmax else "sigmoid"
        x = data.exclusive if softmax else data.logits
        loss = part(iterations=3) if part is specs.CLDice else part()
        objective = build(loss, head, classes)
        ours = partial(_objective, objective, data.y, guides)
        case = partial(Case, name, "objective", x=x, ours=ours)
        if name in MAPS:
            made, make, formula, said = {
                "skeleton_recall": (skeletons, skeleton_maps, recall_formula, "Kirchhoff et al."),
                "boundary": (distances, distance_maps, boundary_formula, "Kervadec et al."),
            }[name]
            said = f"MONAI DiceCELoss + {said}"
            yield case(f"{said}, map in each step", theirs=partial(both, make, formula), same=False, least=3)
            yield case(
                f"{said}, map made before", theirs=partial(both, partial(given, made), formula), same=False
            )
        elif name in own:
            said, theirs, same = own[name]
            yield case(said, theirs=theirs, same=same, least=3 if name == "cldice" else 1)
        else:
            said, theirs = REFERENCES.get(name, "published formula"), region[name]
            yield case(said, theirs=theirs, same=name not in REFERENCES)
    if many:
        yield Case(
            "focal, exclusive", "objective", "MONAI FocalLoss, softmax", data.exclusive,
            partial(_objective, build(specs.Focal(), "softmax", classes), data.y, guides),
            lambda z: FocalLoss(use_softmax=True, to_onehot_y=True)(z, target) * (classes + 1),
        )  # fmt: skip


REFERENCES = {"unified_focal": "MONAI AsymmetricUnifiedFocalLoss"}


def regions(y: Tensor) -> dict[str, Way]:
    """The losses of probabilities that MONAI has not, or only for one class."""
    unified = AsymmetricUnifiedFocalLoss(weight=0.5, gamma=0.1, delta=0.6)
    square = y.flatten(0, 1).unsqueeze(1)
    return {
        "dsc_plus_plus": lambda p: overlap(p, y, dice_index, 2.0).mean(),
        "tversky_plus_plus": lambda p: overlap(p, y, tversky_index, 2.0).mean(),
        "focal_tversky": lambda p: (overlap(p, y, tversky_index) ** 0.75).mean(),
        "focal_tversky_plus_plus": lambda p: (overlap(p, y, tversky_index, 2.0) ** 0.75).mean(),
        "combo": lambda p: combo_formula(p, y),
        "combo_plus_plus": lambda p: combo_formula(p, y, 2.0),
        "unified_focal": lambda p: unified(p.flatten(0, 1).unsqueeze(1), square),
        "unified_focal_plus_plus": lambda p: unified_formula(p, y),
        "elevated_sensitivity": lambda p: sensitivity_formula(p, y),
    }


def functions(data: Data, guides: Guides, skeletons: Tensor, distances: Tensor) -> Iterator[Case]:
    """Every function: those of probabilities from probabilities, those of logits from logits."""
    y, many = data.numbers, data.y.shape[1] > 1
    labels = data.labels.squeeze(1)
    p = data.logits.sigmoid()
    assert guides.tube is not None
    assert guides.distance is not None
    own: dict[str, tuple[Callable[..., Tensor], str, Way]] = {
        "dice": (dice, "MONAI DiceLoss", partial(call, DiceLoss(), y)),
        "tversky": (tversky, "MONAI TverskyLoss", partial(call, TverskyLoss(alpha=0.3, beta=0.7), y)),
    }
    own |= {
        name: (function, REFERENCES.get(name, "published formula"), theirs)
        for (name, theirs), function in zip(
            regions(y).items(),
            [
                dsc_plus_plus, partial(tversky, gamma=2.0), focal_tversky, partial(focal_tversky, gamma=2.0),
                combo, partial(combo, gamma=2.0), unified_focal, partial(unified_focal, gamma_pp=2.0),
                elevated_sensitivity,
            ],
            strict=True,
        )
    }  # fmt: skip
    for name, (function, said, theirs) in own.items():
        ours = chain(partial(second, function, data.y), torch.mean)
        yield Case(name, "function", said, p, ours, theirs, same=name not in REFERENCES)
    entropy = F.cross_entropy if many else F.binary_cross_entropy_with_logits
    x, target = (data.exclusive, labels) if many else (data.logits, y)
    yield Case(
        "cross_entropy", "function", "torch", x, partial(second, cross_entropy, label_map(data.y)),
        partial(second, entropy, target),
    )  # fmt: skip
    yield Case(
        "binary_cross_entropy", "function", "torch", data.logits,
        partial(second, binary_cross_entropy, data.y),
        partial(second, F.binary_cross_entropy_with_logits, y),
    )  # fmt: skip
    yield Case(
        "focal", "function", "MONAI FocalLoss", data.logits, partial(second, focal, data.y),
        partial(call, FocalLoss(gamma=2.0), y),
    )  # fmt: skip
    term = partial(Case, form="function", x=p)
    recall = chain(partial(second, skeleton_recall, guides.tube), torch.mean)
    near = chain(partial(second, boundary, guides.distance), torch.mean)
    for name, ours, make, made, formula, said in (
        ("skeleton_recall", recall, skeleton_maps, skeletons, recall_formula, "Kirchhoff et al."),
        ("boundary", near, distance_maps, distances, boundary_formula, "Kervadec et al."),
    ):
        again = partial(_with_map, formula, make, data.y)
        yield term(
            name, reference=f"{said}, map in each step", ours=ours, theirs=again, same=False, least=3
        )  # fmt: skip
        before = partial(_with_map, formula, partial(given, made), data.y)
        yield term(name, reference=f"{said}, map made before", ours=ours, theirs=before, same=False)
    thin = chain(partial(second, partial(soft_cldice, iterations=3), data.y), torch.mean)
    theirs = partial(call, SoftclDiceLoss(3), y)
    yield term("cldice", reference="MONAI SoftclDiceLoss", ours=thin, theirs=theirs, same=False, least=3)
    needed = int(torch.maximum(half_width(data.y), half_width(p >= 0.5)).max())
    yield term(
        "cldice, iterations found", reference=f"MONAI SoftclDiceLoss, {needed} iterations",
        ours=chain(partial(second, soft_cldice, data.y), torch.mean),
        theirs=partial(call, SoftclDiceLoss(needed), y), same=False, least=3, rounds=2,
    )  # fmt: skip


def call(loss: torch.nn.Module, y: Tensor, x: Tensor) -> Tensor:
    value: Tensor = loss(x, y)
    return value


def second(function: Callable[..., Tensor], y: Tensor, x: Tensor) -> Tensor:
    return function(x, y)


def chain(first: Callable[[Tensor], Tensor], then: Callable[[Tensor], Tensor]) -> Way:
    return lambda x: then(first(x))


def given(maps: Tensor, _: Tensor) -> Tensor:
    return maps


def _with_map(
    formula: Callable[..., Tensor], make: Callable[[Tensor], Tensor], y: Tensor, p: Tensor
) -> Tensor:
    return formula(p, make(y))


def _objective(objective: Any, y: Tensor, guides: Guides, z: Tensor) -> Tensor:
    value: Tensor = objective(z, y, None, guides)
    return value


if __name__ == "__main__":
    main()
