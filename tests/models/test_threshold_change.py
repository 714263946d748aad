"""The log of a device's thresholds: a line before each change, and never one less."""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.models import threshold_change
from agent.models.device_threshold import Measured, path_of
from agent.models.threshold_change import ThresholdChange, drop_threshold, history, log_of, now, set_threshold, user

MEASURED = Measured(good=40, anomalous=12, false_rejects=0, misses=1)


def change(new: float | None, old: float | None = 0.5) -> ThresholdChange:
    action = "reset" if new is None else "set"
    return ThresholdChange(
        now(), "anna", action, "plate", "1.0.0", old, new, "at most 0.5% false rejects", MEASURED, "/photos"
    )


def test_each_change_is_one_line_of_json_and_lines_stay(tmp_path: Path) -> None:
    changes = [change(0.62), change(0.7, 0.62), change(None, 0.7)]
    set_threshold(tmp_path, changes[0])
    first = log_of(tmp_path, "plate").read_bytes()
    set_threshold(tmp_path, changes[1])
    drop_threshold(tmp_path, changes[2])
    content = log_of(tmp_path, "plate").read_bytes()
    assert content.startswith(first)
    assert [json.loads(line)["new"] for line in content.splitlines()] == [0.62, 0.7, None]
    assert history(tmp_path, "plate") == (changes, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["plate.threshold-log"]


def test_a_line_tells_when_who_what_and_why(tmp_path: Path) -> None:
    set_threshold(tmp_path, change(0.62))
    line = json.loads(log_of(tmp_path, "plate").read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line.pop("when"))
    assert line == {
        "who": "anna",
        "action": "set",
        "component": "plate",
        "version": "1.0.0",
        "old": 0.5,
        "new": 0.62,
        "target": "at most 0.5% false rejects",
        "measured": {"good": 40, "anomalous": 12, "false_rejects": 0, "misses": 1},
        "images": "/photos",
    }


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_but_its_owner_may_write_the_log_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        set_threshold(tmp_path, change(0.62))
    finally:
        os.umask(before)
    assert not stat.S_IMODE(log_of(tmp_path, "plate").stat().st_mode) & 0o022


def test_without_its_line_there_is_no_change(tmp_path: Path) -> None:
    set_threshold(tmp_path, change(0.62))
    kept = path_of(tmp_path, "plate").read_bytes()
    log_of(tmp_path, "plate").unlink()
    log_of(tmp_path, "plate").mkdir()  # nothing can be appended to it
    with pytest.raises(OSError):
        set_threshold(tmp_path, change(0.7))
    with pytest.raises(OSError):
        drop_threshold(tmp_path, change(None))
    assert path_of(tmp_path, "plate").read_bytes() == kept


@dataclass
class Cut(BaseException):
    """The power goes."""

    at: str


@pytest.mark.parametrize("apply", [set_threshold, drop_threshold])
def test_the_line_is_on_the_disk_before_the_change_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apply: object
) -> None:
    set_threshold(tmp_path, change(0.62))
    kept, synced = path_of(tmp_path, "plate").read_bytes(), list[str]()
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        if synced[-1] == tmp_path.name:  # the folder: the line is as lasting as can be
            raise Cut(synced[-1])

    monkeypatch.setattr(threshold_change.os, "fsync", recorded)
    with pytest.raises(Cut):
        apply(tmp_path, change(0.7))  # type: ignore[operator]
    assert synced == ["plate.threshold-log", tmp_path.name]
    assert path_of(tmp_path, "plate").read_bytes() == kept
    assert len(history(tmp_path, "plate")[0]) == 2


def test_half_a_line_spoils_neither_what_follows_nor_the_history(tmp_path: Path) -> None:
    set_threshold(tmp_path, change(0.62))
    with log_of(tmp_path, "plate").open("ab") as log:
        log.write(b'{"when": "2026-01-')
    set_threshold(tmp_path, change(0.7))
    changes, damaged = history(tmp_path, "plate")
    assert ([each.new for each in changes], damaged) == ([0.62, 0.7], 1)


def test_a_line_that_is_not_taken_whole_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_threshold(tmp_path, change(0.62))
    kept, write = path_of(tmp_path, "plate").read_bytes(), os.write
    with monkeypatch.context() as full:
        full.setattr(threshold_change.os, "write", lambda descriptor, line: write(descriptor, line[:20]))
        with pytest.raises(OSError, match="takes no more"):
            set_threshold(tmp_path, change(0.7))
    assert path_of(tmp_path, "plate").read_bytes() == kept


def test_the_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    log_of(tmp_path, "plate").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        set_threshold(tmp_path, change(0.7))
    assert not (tmp_path / "elsewhere").exists()


def test_a_component_that_was_never_changed_has_no_history(tmp_path: Path) -> None:
    assert history(tmp_path, "plate") == ([], 0)


def test_behind_sudo_stands_the_one_who_called_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert user({"SUDO_USER": "anna"}) == "anna"
    assert user({}) == pwd.getpwuid(0).pw_name


def test_who_is_no_root_cannot_claim_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 987_654)  # as in a container: a user without a name
    assert user({"SUDO_USER": "anna"}) == "987654"
