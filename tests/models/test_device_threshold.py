"""The file with a device's threshold, and what people are told of it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from agent.models.device_threshold import (
    DeviceThreshold,
    IgnoredThreshold,
    Measured,
    ThresholdFile,
    path_of,
    read_threshold,
    remark,
    threshold_for,
    write_threshold,
)

SET = DeviceThreshold("plate", "1.0.0", 0.62, "2026-01-01T12:00:00Z", "anna", Measured(40, 12, 0, 1))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_threshold(tmp_path, SET)
    assert read_threshold("plate", (tmp_path / "plate.threshold").read_bytes()) == SET
    assert [path.name for path in tmp_path.iterdir()] == ["plate.threshold"]


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_the_agents_user_may_read_it_and_no_other_may_write_it_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_threshold(tmp_path, SET)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path_of(tmp_path, "plate").stat().st_mode) == 0o644


GOOD = {"component": "plate", "version": "1.0.0", "threshold": 0.62, "set_at": "", "set_by": ""}
BAD = {
    "empty": b"",
    "half": b'{"component": "plate", "thresh',
    "not UTF-8": b'{"component": "\xff"}',
    "deep": b"[" * 60_000,
    "a number": b"0.62",
    "NaN": json.dumps(GOOD | {"threshold": float("nan")}).encode(),
    "infinity": json.dumps(GOOD).replace("0.62", "1e999").encode(),
    "below 0": GOOD | {"threshold": -0.01},
    "above 1": GOOD | {"threshold": 1.01},
    "a text": GOOD | {"threshold": "0.62"},
    "a truth": GOOD | {"threshold": True},
    "no threshold": {key: value for key, value in GOOD.items() if key != "threshold"},
    "an unknown key": GOOD | {"until": "tomorrow"},
    "an unknown key that would forge a line": GOOD | {"x\nERROR forged": 1},
    "another component": GOOD | {"component": "bolt"},
    "another component that would forge a line": GOOD | {"component": "bolt\nERROR forged"},
    "another component of an endless name": GOOD | {"component": "bolt" * 5000},
    "counts below 0": GOOD | {"measured": {"good": -1, "anomalous": 0, "false_rejects": 0, "misses": 0}},
}


@pytest.mark.parametrize("content", BAD.values(), ids=list(BAD))
def test_what_is_no_threshold_is_ignored_with_a_reason_in_one_line(content: bytes | dict[str, object]) -> None:
    read = read_threshold("plate", content if isinstance(content, bytes) else json.dumps(content).encode())
    assert isinstance(read, IgnoredThreshold)
    assert read.reason and read.reason.isprintable() and len(read.reason) <= 200


@pytest.mark.parametrize("threshold", [0, 0.0, 1, 1.0, 0.62])
def test_the_whole_range_is_allowed(threshold: float) -> None:
    read = read_threshold("plate", json.dumps(GOOD | {"threshold": threshold}).encode())
    assert threshold_for("1.0.0", read) == threshold


@pytest.mark.parametrize(
    ("on_device", "version", "threshold", "words"),
    [
        (None, "1.0.0", None, ""),
        (SET, "1.0.0", 0.62, "threshold 0.6200 set on this device, the package says 0.5000"),
        (
            SET,
            "2.0.0",
            None,
            "threshold 0.5000 as the package says: the threshold 0.6200 set on this device for version 1.0.0 is not "
            "applied to version 2.0.0; tune it again",
        ),
        (
            IgnoredThreshold("it is odd"),
            "1.0.0",
            None,
            "threshold 0.5000 as the package says: the threshold set on this device is ignored (it is odd); "
            "set it again",
        ),
    ],
    ids=["none", "set", "for another version", "unusable"],
)
def test_it_holds_for_its_version_only_and_people_are_told(
    on_device: ThresholdFile | None, version: str, threshold: float | None, words: str
) -> None:
    assert threshold_for(version, on_device) == threshold
    assert remark(version, 0.5, on_device) == words
