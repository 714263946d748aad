"""What runtimes say, as it may be shown to people."""

from __future__ import annotations

import re
from pathlib import Path

from agent.errors import ModelNotLoaded, NoMemoryToLoad

_NO_MEMORY = re.compile(r"std::bad_alloc|Failed to allocate memory|Unable to allocate")
"""What C++, ONNX Runtime's arena and numpy say where memory is short."""
NOT_UTF8 = "a name in the graph is not UTF-8"


def without_path(text: str, model: Path) -> str:
    """A runtime's message with the model's file name in place of where it lies on this device."""
    folder = model.parent
    text = text.replace(str(model), model.name).replace(str(folder), "").replace(str(folder.resolve()), "")
    # External data: runtimes name where a link or `..` leads to.
    return re.sub(r"(?<![^\s\"'(:])/(?:[^\s\"'/:]+/)+", "", text)


def not_loaded(runtime: str, reason: str) -> ModelNotLoaded | NoMemoryToLoad:
    """The refusal of a model that `runtime` did not load, for a reason in its words."""
    return NoMemoryToLoad(runtime) if _NO_MEMORY.search(reason) else ModelNotLoaded(runtime, reason)
