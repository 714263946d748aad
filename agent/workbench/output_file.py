"""Files that the workbench writes: there only when they are whole, and a sentence where they cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.workbench.errors import OutputNotWritable


@contextmanager
def renamed_to(path: Path, option: str = "--output") -> Iterator[Path]:
    """A file beside `path`, which becomes `path` when the block has filled it and is removed when it fails.

    `option` is the one that named `path`, for the sentence where it cannot be written.

    Raises:
        OutputNotWritable: the folder cannot be made, or the file not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.rename(path)
    except OSError as error:
        raise OutputNotWritable(path, error.strerror or str(error), option) from None
    finally:
        with suppress(OSError):  # it is not there any more, or never was
            temporary.unlink()


@contextmanager
def writing_into(folder: Path, option: str = "--output") -> Iterator[None]:
    """Makes the folder where it is not there. `option` is the one that named it.

    Raises:
        OutputNotWritable: it cannot be made, or the block could not write a file in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OutputNotWritable(folder, error.strerror or str(error), option) from None
