"""Reading what the system tells of itself in files."""

from __future__ import annotations

from pathlib import Path


def text_of(file: Path) -> str:
    """Its text; empty where it is not there or cannot be read."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
