"""A connection to the nucleus, as its keeper sees it: what can be asked over it, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class NucleusGone(Exception):
    """There is no connection, or no answer over it."""


class NucleusRefuses(Exception):
    """The nucleus answered with an error, whose name and sentence these are."""


class Connection(Protocol):
    """What `agent.greengrass.ipc` does over one connection. Methods raise NucleusGone and NucleusRefuses."""

    has_ended: bool
    is_outdated: bool

    def subscribe(self) -> None: ...
    def configuration(self) -> Mapping[str, object]: ...
    def report_running(self) -> None: ...
    def close(self) -> None: ...
