"""The optional packages that an export needs."""

from importlib.util import find_spec

from engine.errors import InputError


def need(wanted: str, *packages: str) -> None:
    """See that packages are installed.

    Args:
        wanted: what they are needed for, such as "ONNX files".
        packages: their names, as they are imported.

    Raises:
        InputError: one of them is not there.
    """
    missing = [name for name in packages if not _there(name)]
    if missing:
        raise InputError(
            f"{wanted} need {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            'installed: pip install "napari-smm[export]" brings what is missing.'
        )


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it is a part of
        return False
