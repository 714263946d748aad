"""One thing found out about this device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]
"""`note`: worth knowing, nothing has to be done; `problem`: the agent does not do here what it is set to do."""


@dataclass(frozen=True)
class Finding:
    """What was found, and what to do about it."""

    topic: str
    """Which part of the device: `memory`."""
    what: str
    level: Level = "ok"
    todo: str = ""
    """What to do; empty where all is well."""
