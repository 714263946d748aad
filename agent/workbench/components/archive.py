"""ZIPs of components: the same content gives the same bytes, so that a rebuilt version is the version it was."""

from __future__ import annotations

import io
import shutil
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The first date a ZIP can hold; every entry has it."""
STORED = frozenset({".whl", ".zip"})
"""Files that are compressed already."""
SCRIPTS = frozenset({".py", ".sh"})
UNIX = 3
"""System of an entry whose attributes are a file mode."""
CHUNK = 1 << 20


def write_zip(archive: Path, files: Mapping[str, bytes | Path]) -> None:
    """Writes `files`, name in the ZIP to content or to the file that holds it, sorted; scripts are executable.

    Files are copied piece by piece: a model may be larger than the memory. Raises OSError.
    """
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in sorted(files.items()):
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            with (
                io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source,
                opened.open(_entry(name, size), "w") as packed,
            ):
                shutil.copyfileobj(source, packed, CHUNK)


def _entry(name: str, size: int) -> zipfile.ZipInfo:
    suffix = PurePosixPath(name).suffix
    entry = zipfile.ZipInfo(name, EARLIEST)
    entry.compress_type = zipfile.ZIP_STORED if suffix in STORED else zipfile.ZIP_DEFLATED
    entry.create_system = UNIX
    entry.external_attr = (stat.S_IFREG | (0o755 if suffix in SCRIPTS else 0o644)) << 16
    entry.file_size = size  # told beforehand, so that files beyond 2 GiB get the entry they need
    return entry
