"""Where this checkout lies."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python_path(first: Path) -> str:
    """A PYTHONPATH of `first`, this checkout, and what it holds already."""
    return os.pathsep.join([str(first), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
