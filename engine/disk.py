"""Writing files so that a crash or a full disk, at any moment, leaves whole what was there before."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO


@contextmanager
def replacing(path: Path, *, durable: bool = True, apart: bool = False) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends well.

    Readers see the old content or the new, never half of it. One process at a time may write a
    path: what a killed one leaves is the hidden `.NAME.new`, which the next writing replaces and
    :func:`sweep` removes. Several may write it `apart`, each into a hidden `.NAME.….new` of its own; the
    last to end well stays. What need not survive a power cut need not be `durable`, and so not wait for
    the disk.
    """
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.new" if apart else f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def replace_text(path: Path, text: str, *, durable: bool = True, apart: bool = False) -> None:
    """Write or replace a text file, UTF-8 with LF on every system; `durable`, `apart` as above."""
    with replacing(path, durable=durable, apart=apart) as file:
        file.write(text.encode("utf-8"))


def sweep(folder: Path) -> None:
    """Remove what killed processes were writing in a folder."""
    for unfinished in folder.glob(".*.new"):
        unfinished.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append a line and flush it to the disk; where that fails, none of it stays.

    Half a line on a full disk would otherwise spoil the next one.
    """
    left = memoryview(line.encode("utf-8") + b"\n")
    # Unbuffered, for a buffer would hold on to what the disk refused and write it later.
    with path.open("ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                file.truncate(start)
            raise


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut, where the system lets folders be synced."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync a folder; the rename is done all the same.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(handle)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error came from a full disk or an exhausted quota."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
