"""The registry: a directory with one record per model component, which deployments and people write.

A record is a small JSON file `<component>.json`, always replaced whole. It is live only while the package it points to
exists: a deployment that removes a component deletes its artifacts, and the model disappears without a step of its own.

Whoever may write a record decides what the line calls good: a running agent follows no directory that everybody may
write to. Its owner and its group are trusted; who that is, is the administrator's choice.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from agent.atomic_file import replace_file, sync_folder
from agent.errors import BadComponentName
from agent.models.device_threshold import (
    THRESHOLD_SUFFIX,
    ThresholdFile,
    read_threshold,
    unreadable_threshold,
)
from agent.models.small_files import SmallFiles

log = logging.getLogger(__name__)

COMPONENT_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)
SUFFIX = ".json"
CLOSED = 0o775
"""Mode of a new registry, before the umask: never for everybody to write."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which package a component serves."""

    component: str
    version: Annotated[str, msgspec.Meta(max_length=100)]
    """Of the component; shown to people."""
    path: str
    """Absolute path of the package's folder."""


def check_component_name(name: str) -> None:
    """Raises BadComponentName: not 1 to 128 letters, digits, '-', '_' and '.', or starting with a dot."""
    if COMPONENT_NAME.fullmatch(name) is None:
        raise BadComponentName(name)


def write_record(directory: Path, record: Record) -> None:
    """Puts `record` into the registry, in place of the component's earlier one.

    Raises:
        BadComponentName: the component's name cannot name a record.
        OSError: the directory cannot be written.
    """
    check_component_name(record.component)
    directory.mkdir(CLOSED, parents=True, exist_ok=True)
    content = msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
    replace_file(directory / f"{record.component}{SUFFIX}", content)


def remove_record(directory: Path, component: str) -> None:
    """Takes the component's record out of the registry.

    Raises:
        BadComponentName: it is no component's name.
        FileNotFoundError: there is no such record.
    """
    check_component_name(component)
    (directory / f"{component}{SUFFIX}").unlink()
    sync_folder(directory)


class OpenToAll(OSError):
    """Users who are neither the registry's owner nor in its group may write records."""

    def __init__(self, directory: Path) -> None:
        super().__init__(errno.EPERM, f"every user may write to {directory} (to mend it: chmod o-w {directory})")


class Registry:
    """The records of a directory, and the thresholds set on this device beside them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._records = SmallFiles[Record | None](directory, SUFFIX, self._parsed, self._unreadable)
        self._told_unreadable: set[str] = set()
        """Components whose record cannot be read, as the log has it: looking again is no news."""
        self._thresholds = SmallFiles(directory, THRESHOLD_SUFFIX, read_threshold, unreadable_threshold)

    def records(self) -> dict[str, Record]:
        """Component to record, in the order of names, live ones only. A directory that is not there is empty.

        Raises:
            OSError: the directory cannot be looked at now, so nobody knows (which is not the same as empty).
        """
        found = self._records.look().values()
        return {record.component: record for record in found if record is not None and _is_there(record.path)}

    def check_writers(self) -> None:
        """Raises OpenToAll; and OSError where the directory cannot be looked at."""
        try:
            mode = self._directory.stat().st_mode
        except FileNotFoundError:
            return
        if mode & stat.S_IWOTH:
            raise OpenToAll(self._directory)

    def thresholds(self) -> dict[str, ThresholdFile]:
        """Component to what its threshold file says, whether or not there is a record of that component.

        Raises:
            OSError: as for `records`.
        """
        return self._thresholds.look()

    def _parsed(self, component: str, content: bytes) -> Record | None:
        self._told_unreadable.discard(component)
        try:
            record = msgspec.json.decode(content, type=Record)
            check_component_name(record.component)
            if record.component != component or not Path(record.path).is_absolute():
                raise ValueError(f"it must be about {component!r} and hold an absolute path")
        except (ValueError, BadComponentName) as error:  # msgspec's errors are ValueErrors
            log.warning("registry record %r is ignored: %s", f"{component}{SUFFIX}", error)
            return None
        return record

    def _unreadable(self, component: str, error: OSError) -> None:
        if component not in self._told_unreadable:
            self._told_unreadable.add(component)
            log.warning("registry record %r cannot be read: %s", f"{component}{SUFFIX}", error.strerror)


def _is_there(path: str) -> bool:
    """Whether a package's folder is there; only a file system that says no means no."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 (pathlib raises ValueError for some paths)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        return error.errno not in (errno.ENAMETOOLONG, errno.ELOOP)


OnRegistryChange = Callable[[Mapping[str, Record], Mapping[str, ThresholdFile]], None]
"""Told all records, and all thresholds set on this device, by component."""


class RegistryWatch:
    """Calls back with all there is when any of it changes. Looks every `interval` seconds: inotify misses network
    mounts."""

    def __init__(
        self,
        registry: Registry,
        on_change: OnRegistryChange,
        interval: float,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_look` is called before each look."""
        self._registry, self._on_change, self._interval = registry, on_change, interval
        self._on_look = on_look
        self._last: tuple[Mapping[str, Record], Mapping[str, ThresholdFile]] | None = None
        self._complaint = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="registry-watch", daemon=True)

    def start(self) -> None:
        """Reports the records once, in this thread, then watches in its own."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._look()

    def _look(self) -> None:
        try:
            self._on_look()
            self._registry.check_writers()
            found = (self._registry.records(), self._registry.thresholds())
            if found != self._last:
                self._on_change(*found)
                self._last = found
            self._complaint = ""
        except OSError as error:  # the last records stay in force; said once, not at every look
            if self._complaint != str(error):
                self._complaint = str(error)
                log.error("the registry cannot be looked at: %s; what was registered stays so", error.strerror)
        except Exception as error:  # a watch that dies would freeze the fleet for good
            if self._complaint != repr(error):
                self._complaint = repr(error)
                log.exception("looking at the registry failed; trying again")
