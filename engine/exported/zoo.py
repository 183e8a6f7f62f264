"""bioimageio's own libraries, quiet and in working order."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any


@contextmanager
def zoo() -> Iterator[None]:
    """Within it bioimageio.spec and bioimageio.core can be used.

    What they log, and what their dependencies warn of, is kept from the user, who gets their verdict.
    """
    from loguru import logger

    logger.disable("bioimageio")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _mended():
                yield
    finally:
        logger.enable("bioimageio")


@contextmanager
def _mended() -> Iterator[None]:
    """Let bioimageio.spec serialise with any pydantic.

    Up to 0.5.12, three of its serialisers hand pydantic their info as if it were a key, as an example of
    pydantic's own documentation did. pydantic 2.14 raises where it took no notice before (its issue 11862),
    and no description could be written or read. Here the key is left out.
    """
    from bioimageio.spec._internal import io_packaging
    from bioimageio.spec._internal.validated_string_with_inner_node import ValidatedStringWithInnerNode
    from bioimageio.spec.model import v0_4

    with ExitStack() as stack:
        for owner, name in (
            (io_packaging, "package_file_descr_serializer"),
            (v0_4, "package_weights"),
            (ValidatedStringWithInnerNode, "_serialize"),
        ):
            function = getattr(owner, name, None)
            # Another version may have none of these, or other ones.
            if isinstance(function, FunctionType) and function.__code__.co_argcount == 3:
                _leave_out_key(function, stack)
        yield


def _leave_out_key(function: FunctionType, stack: ExitStack) -> None:
    """Change a serialiser for as long as the stack lasts: in its code, for pydantic's schemas hold itself."""
    if function.__code__.co_freevars:
        return
    original = FunctionType(function.__code__, function.__globals__)
    function.__globals__["_original"] = original
    stack.callback(function.__globals__.pop, "_original")
    stack.callback(setattr, function, "__code__", function.__code__)
    function.__code__ = _without_key.__code__


def _without_key(value: Any, handler: Any, info: Any) -> Any:
    """Code of a serialiser that goes on as the original one of its module."""
    return _original(value, lambda inner, *key: handler(inner), info)  # type: ignore[name-defined] # noqa: F821
