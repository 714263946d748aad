"""What runtimes say, as it may be shown to people."""

from __future__ import annotations

import re
from pathlib import Path


def without_path(text: str, model: Path) -> str:
    """A runtime's message with the model's file name in place of where it lies on this device."""
    folder = model.parent
    text = text.replace(str(model), model.name).replace(str(folder), "").replace(str(folder.resolve()), "")
    # External data: runtimes name where a link or `..` leads to.
    return re.sub(r"(?<![^\s\"'(:])/(?:[^\s\"'/:]+/)+", "", text)
