"""Files that are there whole or not at all, and what of HDF5 is safe to read."""

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What HDF5 notes beside data, at most.
BESIDE = 1 << 16


def noted(attributes: Any, name: str) -> Any:
    """An attribute of an HDF5 object, but never one of variable length.

    HDF5 does not survive all damage to these.

    Raises
    ------
    KeyError
        There is none of this name.
    ValueError
        It is neither a number nor text of fixed length.
    """
    if attributes.get_id(name).dtype.kind not in "biufS":
        raise ValueError(f"the attribute {name!r} is neither a number nor text of fixed length")
    import numpy as np

    value = np.asarray(attributes[name]).tolist()
    return value.decode() if isinstance(value, bytes) else value


def check_folder(path: str | os.PathLike) -> None:
    """Before hours of work: a file can be written beside ``path``.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to write to")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise type(error)(f"the folder {folder} cannot be written to: {error.strerror}") from None


def check_room(path: str | os.PathLike, size: int) -> None:
    """Before HDF5 writes a file of so many bytes: it does not survive a disk that becomes full on the way.

    Raises
    ------
    OSError
        There is less room than that, and some for what HDF5 notes beside.
    """
    free = shutil.disk_usage(Path(path).parent).free
    if free < size + size // 64 + BESIDE:
        raise OSError(
            errno.ENOSPC, f"{size} bytes are to be written, and there is room for {free}", str(path)
        )


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A new file beside ``path`` that takes its place when the block ends without an exception.

    Parameters
    ----------
    path : str or os.PathLike
        The file to make or to replace. Until the block ends it stays as it was.

    Yields
    ------
    pathlib.Path
        A name in the same folder, not yet taken, to write to.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from learnsolve.files import replacing
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as part:
    ...     _ = part.write_text("whole")
    >>> [entry.name for entry in folder.iterdir()]
    ['a.txt']
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        with open(part, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
