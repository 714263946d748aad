"""Changes of a device's threshold, each with its line in a log that is only ever added to.

The log, `<component>.threshold-log`, is JSON Lines. A line is written, and made last, before the change takes effect:
a change without its line would be one that nobody can explain later; a line whose change then failed harms nobody.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import msgspec

from agent.atomic_file import sync_folder
from agent.models.device_threshold import DeviceThreshold, Measured, path_of, write_threshold

LOG_SUFFIX = ".threshold-log"
MODE = 0o644
"""Of the log, less what the umask takes: nobody but its owner may write."""


class ThresholdChange(msgspec.Struct, frozen=True):
    """One line of the log."""

    when: str
    """ISO 8601, UTC."""
    who: str
    action: Literal["set", "reset", "removed"]
    """`reset`: the package's threshold holds again; `removed`: the component has left the device."""
    component: str
    version: str
    """Of the component; empty where it is not known any more."""
    old: float | None
    """The threshold in force before; None where that is not known."""
    new: float | None
    """The threshold in force from then on; None where that is not known, or there is no model any more."""
    target: str = ""
    """What was asked for, as in "at most 0.5% false rejects"."""
    measured: Measured | None = None
    images: str = ""
    """Where the labelled images came from."""


def set_threshold(directory: Path, change: ThresholdChange) -> None:
    """Logs `change` and puts its new threshold in force in the registry `directory`. Raises OSError."""
    assert change.new is not None  # it is set
    _append(directory, change)
    write_threshold(
        directory,
        DeviceThreshold(change.component, change.version, change.new, change.when, change.who, change.measured),
    )


def drop_threshold(directory: Path, change: ThresholdChange) -> None:
    """Logs `change` and takes the device's threshold away, be it there or not. Raises OSError."""
    _append(directory, change)
    path_of(directory, change.component).unlink(missing_ok=True)
    sync_folder(directory)


def history(directory: Path, component: str) -> tuple[list[ThresholdChange], int]:
    """The changes of a component's threshold, oldest first, and how many lines cannot be read (a power cut leaves
    half of one). Raises OSError; a log that is not there is empty."""
    try:
        lines = log_of(directory, component).read_bytes().splitlines()
    except FileNotFoundError:
        return [], 0
    changes, damaged = [], 0
    for line in filter(bytes.strip, lines):
        try:
            changes.append(msgspec.json.decode(line, type=ThresholdChange))
        except ValueError:
            damaged += 1
    return changes, damaged


def log_of(directory: Path, component: str) -> Path:
    """Where the changes of a component's threshold are kept; `directory`: the registry's."""
    return directory / f"{component}{LOG_SUFFIX}"


def now() -> str:
    """The present moment, as logs and files of thresholds hold it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def user(environment: Mapping[str, str]) -> str:
    """Who runs this command; behind sudo the one who called it, since "root" tells nobody anything."""
    number = os.geteuid()
    if number == 0 and environment.get("SUDO_USER"):
        return environment["SUDO_USER"]
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # in containers users often have no name
        return str(number)


def _append(directory: Path, change: ThresholdChange) -> None:
    path = log_of(directory, change.component)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, MODE)
    try:
        line = msgspec.json.encode(change) + b"\n"
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # a power cut left half a line: it must not spoil this one
        if os.write(descriptor, line) != len(line):
            raise OSError(f"{path.name} takes no more")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(directory)
