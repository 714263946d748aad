"""ZIPs of components: the same content gives the same bytes, so that a rebuilt version is the version it was."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The first date a ZIP can hold; every entry has it."""
STORED = frozenset({".whl", ".zip"})
"""Files that are compressed already."""


def write_zip(archive: Path, files: Mapping[str, bytes | Path]) -> None:
    """Writes `files`, name in the ZIP to content or to the file that holds it, sorted; scripts stay executable."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, EARLIEST)
            is_script = Path(name).suffix in (".py", ".sh")
            entry.external_attr = (stat.S_IFREG | (0o755 if is_script else 0o644)) << 16
            entry.compress_type = zipfile.ZIP_STORED if Path(name).suffix in STORED else zipfile.ZIP_DEFLATED
            opened.writestr(entry, content if isinstance(content, bytes) else content.read_bytes())
