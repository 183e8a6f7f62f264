"""torch's optimisers as they are, but that they do not load its compiler.

torch.optim asks the compiler to leave some methods alone, and loads it for that: as much time and memory as
torch itself takes, though nothing is compiled.
"""

from inspect import unwrap

import torch
from torch import optim

ALONE = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
"""Methods that the compiler is to leave alone."""


def _plain(kind: type[optim.Optimizer]) -> type[optim.Optimizer]:
    """The optimiser with the methods themselves, in place of what torch wraps around them."""
    methods = {name: unwrap(getattr(kind, name)) for name in ALONE}
    methods["step"] = torch.no_grad()(unwrap(kind.step))
    return type(kind.__name__, (kind,), {**methods, "__module__": __name__, "__doc__": kind.__doc__})


SGD = _plain(optim.SGD)
Adam = _plain(optim.Adam)
AdamW = _plain(optim.AdamW)
