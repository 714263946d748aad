"""The settings in force while the Greengrass configuration is followed.

A deployment reaches devices where nobody logs in: a wrong value there is a line in the log, never the end of the agent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, replace
from typing import Any

from agent.greengrass.agent_recipe import INSTALL_SETTINGS
from agent.settings import BadSetting, Settings, checked_value, is_live, key_of

log = logging.getLogger(__name__)

NO_SETTINGS = {"accessControl", *INSTALL_SETTINGS}
"""Keys of a component's configuration that others read: the nucleus its authorization policies, the install step its
own."""
SHOWN = 10
"""Unknown keys that are named in one line."""

SettingsChanged = Callable[[Settings], None]
"""Told all settings as they are in force now; returns quickly."""


class FollowedSettings:
    """What was given at the start, and for the rest what the Greengrass configuration says, else the default.

    Until `settle` everything may change, from then on what is live. All methods may be called from several threads.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        """`given`: values of flag, environment and file, by field name; they come before those of Greengrass."""
        self._given = given
        self._good: dict[str, Any] = {}
        """The last good values of the Greengrass configuration."""
        self._left_out: set[str] = set()
        self._in_force = Settings(**given)
        self._is_settled = False
        self._on_change: SettingsChanged | None = None
        self._told: set[str] = set()
        """What the log has about the configuration as it is now: reading it again is no news."""
        # Changes are told while it is held, so that what is told last is what holds.
        self._lock = threading.RLock()

    @property
    def in_force(self) -> Settings:
        return self._in_force

    def settle(self) -> Settings:
        """The settings to start with; what is not live stays so from now on."""
        with self._lock:
            self._is_settled = True
            return self._in_force

    def on_change(self, tell: SettingsChanged) -> None:
        """Tells the settings in force now, and from then on whenever they change."""
        with self._lock:
            self._on_change = tell
            tell(self._in_force)

    def leave_out(self, *names: str) -> bool:
        """Goes on without the Greengrass configuration's values of these; False where it has none that count.

        For what is a right value and still cannot be used on this device, such as a socket in a folder that is missing.
        """
        with self._lock:
            has_any = bool(set(names) & self._good.keys() - self._given.keys() - self._left_out)
            self._left_out.update(names)
            without = Settings(**self._given)
            self._in_force = replace(self._in_force, **{name: getattr(without, name) for name in names})
            return has_any

    def follow(self, configuration: Mapping[str, object]) -> None:
        """Puts in force what the Greengrass configuration says now; what of it cannot be is a line in the log, once."""
        with self._lock:
            notes = [*self._read(configuration), *self._unknown(configuration)]
            before, wanted = self._in_force, self._wanted()
            if self._is_settled:
                for setting in fields(Settings):
                    notes += _waits_for_restart(setting, wanted, before)
                    if not is_live(setting):
                        wanted[setting.name] = getattr(before, setting.name)
            self._in_force = Settings(**wanted)
            for level, note in notes:
                if note not in self._told:
                    log.log(level, "Greengrass configuration: %s", note)
            self._told = {note for _, note in notes}
            if self._in_force != before:
                self._tell(before)

    def _wanted(self) -> dict[str, Any]:
        """Values of all settings, were they all live."""
        followed = {name: value for name, value in self._good.items() if name not in self._left_out}
        settings = Settings(**{**followed, **self._given})
        return {setting.name: getattr(settings, setting.name) for setting in fields(Settings)}

    def _read(self, configuration: Mapping[str, object]) -> list[tuple[int, str]]:
        notes: list[tuple[int, str]] = []
        for setting in fields(Settings):
            name, key = setting.name, key_of(setting.name)
            if key not in configuration:
                self._good.pop(name, None)
                continue
            try:
                self._good[name] = checked_value(setting, key, configuration[key])
            except BadSetting as refusal:
                in_force = self._good.get(name, _default(setting))
                stays = "" if name in self._given else f" {_shown(name, in_force)} stays in force."
                notes.append((logging.ERROR, f"{refusal}{stays}"))
            else:
                if name in self._given:
                    notes.append((logging.INFO, f"{key} has no effect: a flag, the environment or the file sets it"))
        return notes

    def _unknown(self, configuration: Mapping[str, object]) -> list[tuple[int, str]]:
        known = {key_of(setting.name) for setting in fields(Settings)} | NO_SETTINGS
        unknown = sorted(key for key in configuration if key not in known)
        if not unknown:
            return []
        named = ", ".join(repr(key)[:80] for key in unknown[:SHOWN])
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        return [(logging.WARNING, f"there are no such settings, they have no effect: {named}{more}")]

    def _tell(self, before: Settings) -> None:
        for setting in fields(Settings):
            old, new = getattr(before, setting.name), getattr(self._in_force, setting.name)
            if old != new:
                log.info("%s, was %s", _shown(setting.name, new), _text(setting.name, old))
        if self._on_change is not None:
            self._on_change(self._in_force)


def _waits_for_restart(setting: Field[Any], wanted: Mapping[str, Any], now: Settings) -> list[tuple[int, str]]:
    new = wanted[setting.name]
    if is_live(setting) or new == getattr(now, setting.name):
        return []
    return [(logging.WARNING, f"{_shown(setting.name, new)} takes effect when the component restarts")]


def _default(setting: Field[Any]) -> Any:
    return getattr(Settings(), setting.name)


def _shown(name: str, value: object) -> str:
    return f"{key_of(name)} {_text(name, value)}"


def _text(name: str, value: object) -> str:
    """As it would be written in the configuration."""
    if name == "socket_mode":
        return f"{value:04o}"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
