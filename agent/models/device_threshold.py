"""The threshold that somebody set on this device for a component, in place of its package's.

It is a file of its own beside the component's record, `<component>.threshold`: packages are hashed and stay as they
are, and records belong to deployments. It holds for the version it was measured for and for no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.atomic_file import replace_file
from agent.packages.manifest import Fraction

THRESHOLD_SUFFIX = ".threshold"
"""Not .json: those are records."""
WORLD_READABLE = 0o644
"""Whatever the umask of the one who tunes: the agent is often another user, and must be able to read it."""
MAX_REASON = 200
"""Characters of a reason that people are told."""

Count = Annotated[int, Meta(ge=0)]
ShortText = Annotated[str, Meta(max_length=2000)]


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a threshold did on labelled images."""

    good: Count
    anomalous: Count
    false_rejects: Count
    """Good images that it calls anomalous."""
    misses: Count
    """Anomalous images that it calls normal."""


class DeviceThreshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in a threshold file."""

    component: str
    version: Annotated[str, Meta(max_length=100)]
    """Of the component: the one that it was measured for."""
    threshold: Fraction
    set_at: ShortText
    """ISO 8601, UTC."""
    set_by: ShortText
    measured: Measured | None = None
    """None where it was set by hand."""


@dataclass(frozen=True)
class IgnoredThreshold:
    """A threshold file that cannot be used, and why, in one line."""

    reason: str


ThresholdFile = DeviceThreshold | IgnoredThreshold


def path_of(directory: Path, component: str) -> Path:
    """Where the threshold of a component is kept; `directory`: the registry's."""
    return directory / f"{component}{THRESHOLD_SUFFIX}"


def write_threshold(directory: Path, threshold: DeviceThreshold) -> None:
    """Puts it in force; a running agent follows. Raises OSError."""
    content = msgspec.json.format(msgspec.json.encode(threshold), indent=2) + b"\n"
    replace_file(path_of(directory, threshold.component), content, WORLD_READABLE)


def read_threshold(component: str, content: bytes) -> ThresholdFile:
    """What the threshold file of `component` holds; never raises."""
    try:
        threshold = msgspec.json.decode(content, type=DeviceThreshold)
        if threshold.component != component:
            raise ValueError(f"it is about another component, {threshold.component!r}")
    except ValueError as error:  # msgspec's errors are ValueErrors
        # It may quote the file; on one line it forges none in the log.
        return IgnoredThreshold(str(error).encode("unicode_escape").decode("ascii")[:MAX_REASON])
    return threshold


def unreadable_threshold(component: str, error: OSError) -> ThresholdFile:
    return IgnoredThreshold(f"it cannot be read: {error.strerror}")


def threshold_for(version: str, on_device: ThresholdFile | None) -> float | None:
    """The threshold to judge by in place of the package's, where this version has one."""
    if isinstance(on_device, DeviceThreshold) and on_device.version == version:
        return on_device.threshold
    return None


def remark(version: str, of_package: float, on_device: ThresholdFile | None) -> str:
    """What people should know of the threshold of a model that runs; empty where it is the package's, as usual."""
    if on_device is None:
        return ""
    if isinstance(on_device, IgnoredThreshold):
        return (
            f"threshold {of_package:.4f} as the package says: the threshold set on this device is ignored "
            f"({on_device.reason}); set it again"
        )
    if on_device.version != version:
        return (
            f"threshold {of_package:.4f} as the package says: the threshold {on_device.threshold:.4f} set on this "
            f"device for version {on_device.version} is not applied to version {version}; tune it again"
        )
    return f"threshold {on_device.threshold:.4f} set on this device, the package says {of_package:.4f}"
