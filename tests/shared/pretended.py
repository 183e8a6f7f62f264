"""A device that there is not: what would be done on it is done on the CPU, and counted.

So a machine without a GPU can tell what would be asked of one, and where the host would wait for it.
"""

from collections import Counter
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")  # which needs no driver


class There(torch.Tensor):
    """A tensor on the device; its values are on the CPU."""

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "There":
        return torch.Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), storage_offset=values.storage_offset(),
            dtype=values.dtype, device=DEVICE,
        )  # fmt: skip

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of the block that pretends the device")


class Pretended(TorchDispatchMode):
    """While it is entered, there is the device.

    Attributes:
        asked: how often it was asked for each operation.
        waits: how often the host waited for it, by the reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._tensor = patch("torch.tensor", _tensor)  # else its device is not asked here

    def __enter__(self) -> "Pretended":
        self._tensor.start()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._tensor.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = str(func).removeprefix("aten.").partition(".")[0]
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        there = any(isinstance(x, There) for x in given)
        here = any(not isinstance(x, There) and x.ndim for x in given)
        goes = there
        if kwargs.get("device") is not None:
            goes = torch.device(kwargs["device"]) == DEVICE
            kwargs["device"] = torch.device("cpu")
        self._note(name, args, kwargs, there, here, goes)
        if there or goes:
            views = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
            if not views:
                self.asked[name] += 1
        result = func(*tree_map(_values, args), **tree_map(_values, kwargs))
        if args and isinstance(args[0], There) and result is args[0].values:
            return args[0]  # changed in place
        return tree_map(lambda x: There(x) if isinstance(x, torch.Tensor) else x, result) if goes else result

    def _note(self, name: str, args: Any, kwargs: Any, there: bool, here: bool, goes: bool) -> None:
        """Count what makes the host wait, and refuse what no device does."""
        if name == "_to_copy":
            if there and not goes:
                self.waits["brought back"] += 1
            elif goes and not there and not kwargs.get("non_blocking"):
                self.waits["sent"] += 1
        elif name == "copy_" and there and here:
            if not (args[2:] and args[2]):
                self.waits["copied"] += 1
        elif there and here:
            raise RuntimeError(f"{name} of tensors on the device and on the CPU")
        elif there and name in ("nonzero", "_local_scalar_dense", "masked_select", "equal"):
            self.waits[name] += 1
        elif there and name in ("index", "index_put_") and any(map(_is_mask, args[1])):
            self.waits["indexed by a mask"] += 1


def _is_mask(index: torch.Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _values(x: Any) -> Any:
    return x.values if isinstance(x, There) else x


_made = torch.tensor


def _tensor(data: Any, *, device: Any = None, **settings: Any) -> torch.Tensor:
    made = _made(data, **settings)
    return made if device is None else made.to(device)
