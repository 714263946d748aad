"""What can be configured: flags, or a Greengrass component's configuration, with the same names."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

LISTS = ("results", "overlays", "names")


class WrongSetting(Exception):
    """A setting is missing, unknown or out of range. Its text names it and says what is allowed."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it."""

    results: Annotated[tuple[str, ...], Meta(min_length=1)]
    """The files that camera clients write (their json_lines.path), one for each."""
    overlays: tuple[str, ...] = ()
    """The folders with their pictures (their overlays.folder)."""
    socket: str = "unix:///tmp/aws.iot.lookoutvision.EdgeAgent.sock"
    """Where the agent listens."""
    host: str = "127.0.0.1"
    """Address that the page is served at: this device only, unless it is said; 0.0.0.0 is all its networks."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8420
    """0: any that is free; the log says which."""
    names: tuple[str, ...] = ()
    """What browsers may call this device beside its addresses and its host name."""
    store: str = "live_view.sqlite"
    """Where results are kept for half a year."""

    @property
    def results_paths(self) -> tuple[Path, ...]:
        """Absolute: what has been read of a file is remembered for its path."""
        return tuple(Path(path).absolute() for path in self.results)

    @property
    def is_open_to_others(self) -> bool:
        """Whether other devices reach the page."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Checks everything, so that nobody has to later. Raises WrongSetting.

    One name may stand for a list of one. Not strict about types: Greengrass hands out numbers as text (nucleus lite)
    or as floating point (Java).
    """
    whole = {key: [value] if key in LISTS and isinstance(value, str) else value for key, value in values.items()}
    if not whole.get("results"):
        raise WrongSetting("results: name the file that the camera client writes (its json_lines.path)")
    try:
        return msgspec.convert(whole, Settings, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise WrongSetting(f"{where.removesuffix('`') or 'settings'}: {what}") from None
