"""Weights that a trunk starts from: a user's file in the form of the public ImageNet checkpoints."""

from collections.abc import Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from engine.errors import InputError
from engine.models.resnet import ResNet50

COUNTER = "num_batches_tracked"
"""Last part of the keys that checkpoints made before PyTorch 0.4.1 do not have."""
SHOWN = 3
"""So many keys are named where more do not fit."""


def load(trunk: ResNet50, file: str) -> None:
    """Start a trunk from the weights in a file; its classifier, ``fc``, is left out.

    The keys are those of the public ResNet-50 checkpoints, such as ``layer1.0.conv1.weight``; each may have
    the prefix ``module.``, and all may lie in an entry ``state_dict`` or ``model``. For images of one
    channel the first convolution's weights are summed over red, green and blue: what it then says of a
    gray image is what it would say of the same image in three equal channels.

    Args:
        trunk: on the CPU; its weights are overwritten.
        file: as ``torch.save`` writes it.

    Raises:
        InputError: no such file, one that is not a state dictionary or that would execute code,
            keys that are missing or too many, wrong shapes, or images of a channel count for which
            there is no conversion.
    """
    path = Path(file).expanduser()
    found = {
        key: value for key, value in state_dictionary(read(path), path).items() if not key.startswith("fc.")
    }
    needed = trunk.state_dict()
    check_keys(path, found.keys(), needed.keys())
    fit_channels(path, found, trunk.conv1.in_channels)
    for key, value in found.items():
        if value.shape != needed[key].shape:
            raise InputError(
                f"model.weights {path} does not fit: {key} is {shape(value)} there and must be "
                f"{shape(needed[key])}: the weights of a ResNet-50 of base_width 64 would work."
            )
    trunk.load_state_dict(found, strict=False)  # only counters can be missing


def read(path: Path) -> Any:
    """What is in a file, without executing any code that it may hold.

    Raises:
        InputError: no such file, one that cannot be read, or one that ``torch.load`` takes for unsafe.
    """
    if not path.is_file():
        raise InputError(f"model.weights: there is no file {path}; a ResNet-50 checkpoint (.pth) would work.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(
            f"model.weights {path} cannot be read ({error.strerror}): a ResNet-50 checkpoint would work."
        ) from None
    except UnpicklingError as error:
        if "nsupported global" in str(error) or "nsupported class" in str(error):
            raise InputError(
                f"model.weights {path} holds Python objects, which are not loaded as they could execute "
                "code: save the network's state_dict() alone with torch.save."
            ) from None
        raise InputError(_no_weights(path)) from None
    except Exception as error:  # a damaged file can fail anywhere in the reader
        reason = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0].rstrip(".: ")
        raise InputError(_no_weights(path, f" ({reason})")) from None


def _no_weights(path: Path, reason: str = "") -> str:
    return (
        f"model.weights {path} is no file of weights, or a damaged one{reason}: a ResNet-50 checkpoint "
        "(.pth) as torch.save writes it would work."
    )


def state_dictionary(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their keys, out of a wrapper and without ``module.``.

    Raises:
        InputError: the content is something else.
    """
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        what = "an empty dictionary" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise InputError(f"model.weights {path} holds {what}: a state dictionary of ResNet-50 would work.")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(
                f"model.weights {path} holds {key!r}, which is of type {type(value).__name__} and not a "
                "named tensor: a state dictionary of ResNet-50 would work."
            )
    return {key.removeprefix("module."): value for key, value in content.items()}


def check_keys(path: Path, found: Collection[str], needed: Collection[str]) -> None:
    """Refuse keys that are missing, other than counters, or too many."""
    missing = [key for key in needed if key not in found and not key.endswith(COUNTER)]
    surplus = [key for key in found if key not in needed]
    said = [f"{words} {some(keys)}" for words, keys in (("lacks", missing), ("has", surplus)) if keys]
    if said:
        raise InputError(
            f"model.weights {path} is not of a ResNet-50: it {' and '.join(said)}; the public ImageNet "
            "checkpoints' keys, with or without fc, would work."
        )


def some(keys: list[str]) -> str:
    """How many keys, and the first of them."""
    more = ", …" if len(keys) > SHOWN else ""
    return f"{len(keys)} keys ({', '.join(keys[:SHOWN])}{more})" if len(keys) > 1 else f"the key {keys[0]}"


def fit_channels(path: Path, found: dict[str, Tensor], channels: int) -> None:
    """Make the first convolution's weights, in place, those for images of so many channels."""
    weights = found["conv1.weight"]
    if weights.ndim != 4 or weights.shape[1] != 3 or channels == 3:
        return  # a shape that is wrong all the same is refused with the others
    if channels != 1:
        raise InputError(
            f"model.weights {path} is for images of 3 channels, and these have {channels}: images of 3 "
            "channels or of 1 would work, or no model.weights."
        )
    found["conv1.weight"] = weights.sum(1, keepdim=True)


def shape(value: Tensor) -> str:
    """A tensor's shape in words, such as 64×3×7×7."""
    return "×".join(map(str, value.shape)) or "a single number"
