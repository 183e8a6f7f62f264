"""Optimisers and learning-rate schedules: their settings, and the schedules as plain functions."""

from math import cos, pi
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from engine.spec import Part, setting

Decay = Annotated[float, setting(..., ge=0, lt=1)]


class SGD(Part):
    """Stochastic gradient descent."""

    target: ClassVar[str] = "engine.optimizers:SGD"
    name: Literal["sgd"] = "sgd"
    lr: float = setting(0.1, gt=0)
    """Learning rate at the start."""
    momentum: float = setting(0.9, ge=0, lt=1)
    """Share of the last step that is kept."""
    nesterov: bool = setting(False, advanced=True)
    """Look ahead before taking the gradient; needs a momentum."""
    weight_decay: float = setting(0.0, ge=0)
    """L2 penalty."""

    @model_validator(mode="after")
    def _looking_ahead(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class Adam(Part):
    """Adam."""

    target: ClassVar[str] = "engine.optimizers:Adam"
    name: Literal["adam"] = "adam"
    lr: float = setting(1e-3, gt=0)
    """Learning rate at the start."""
    betas: tuple[Decay, Decay] = setting((0.9, 0.999), advanced=True)
    """Decay of the running means of gradient and squared gradient."""
    weight_decay: float = setting(0.0, ge=0)
    """L2 penalty."""


class AdamW(Part):
    """Adam with decoupled weight decay."""

    target: ClassVar[str] = "engine.optimizers:AdamW"
    name: Literal["adamw"] = "adamw"
    lr: float = setting(1e-3, gt=0)
    """Learning rate at the start."""
    betas: tuple[Decay, Decay] = setting((0.9, 0.999), advanced=True)
    """Decay of the running means of gradient and squared gradient."""
    weight_decay: float = setting(1e-2, ge=0)
    """Decoupled weight decay."""


Optimizer = Annotated[SGD | Adam | AdamW, Field(discriminator="name")]
"""Registry of optimisers."""


class Constant(Part):
    """The learning rate never changes."""

    target: ClassVar[str] = "engine.optim:constant"
    name: Literal["constant"] = "constant"


class Linear(Part):
    """A straight line from the first learning rate to the last."""

    target: ClassVar[str] = "engine.optim:linear"
    name: Literal["linear"] = "linear"
    final_lr: float = setting(0.0, ge=0)
    """Learning rate that would be reached in the epoch after the last."""


class Polynomial(Part):
    """(1 - t/E) to a power, as nnU-Net has it."""

    target: ClassVar[str] = "engine.optim:polynomial"
    name: Literal["polynomial"] = "polynomial"
    power: float = setting(0.9, gt=0)
    """Exponent."""
    final_lr: float = setting(0.0, ge=0)
    """Learning rate that would be reached in the epoch after the last."""


class Cosine(Part):
    """Half a cosine wave from the first learning rate to the last."""

    target: ClassVar[str] = "engine.optim:cosine"
    name: Literal["cosine"] = "cosine"
    final_lr: float = setting(0.0, ge=0)
    """Learning rate that would be reached in the epoch after the last."""


class Plateau(Part):
    """Multiply the learning rate by a factor whenever the validation loss (the training loss
    where there is no val split) has not improved for some epochs."""

    target: ClassVar[str] = "engine.optim:plateau"
    name: Literal["plateau"] = "plateau"
    factor: float = setting(0.1, gt=0, lt=1)
    """Factor on the learning rate."""
    patience: int = setting(25, ge=1, unit="epochs")
    """Epochs without improvement before the rate falls."""


Schedule = Annotated[Constant | Linear | Polynomial | Cosine | Plateau, Field(discriminator="name")]
"""Registry of schedules."""


# Every schedule is called as (lr, epoch, epochs, stagnant): the first learning rate, the epoch
# (1…E), E, and for each finished epoch how many epochs it lay behind the best monitored loss.


def constant(lr: float, epoch: int, epochs: int, stagnant: list[int]) -> float:
    """Learning rate of an epoch that never changes."""
    return lr


def linear(lr: float, epoch: int, epochs: int, stagnant: list[int], *, final_lr: float = 0.0) -> float:
    """Learning rate of epoch 1…E on a straight line: `lr` in epoch 1, `final_lr` after E."""
    return polynomial(lr, epoch, epochs, stagnant, power=1.0, final_lr=final_lr)


def polynomial(
    lr: float, epoch: int, epochs: int, stagnant: list[int], *, power: float = 0.9, final_lr: float = 0.0
) -> float:
    """Learning rate ``final + (lr - final)·(1 - (epoch-1)/E)^power``."""
    return final_lr + (lr - final_lr) * float((1 - (epoch - 1) / epochs) ** power)


def cosine(lr: float, epoch: int, epochs: int, stagnant: list[int], *, final_lr: float = 0.0) -> float:
    """Learning rate on half a cosine wave from `lr` to `final_lr`."""
    return final_lr + (lr - final_lr) * (1 + cos(pi * (epoch - 1) / epochs)) / 2


def plateau(
    lr: float, epoch: int, epochs: int, stagnant: list[int], *, factor: float = 0.1, patience: int = 25
) -> float:
    """Learning rate that falls by `factor` after every `patience` epochs in a row without improvement."""
    falls = sum(1 for behind in stagnant if behind and behind % patience == 0)
    return lr * float(factor**falls)
