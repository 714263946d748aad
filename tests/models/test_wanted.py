"""What is to run survives the agent, and never gets in anybody's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.models.wanted import WantedModels


def test_what_was_started_and_not_stopped_is_wanted_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "registry" / "wanted"
    wanted = WantedModels(file)
    for component in ("a", "b", "c"):
        wanted.add(component)
    wanted.discard("b")
    again = WantedModels(file)
    assert [component in again for component in ("a", "b", "c")] == [True, False, True]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff"])
def test_a_damaged_file_means_that_nothing_is_wanted(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "wanted").write_bytes(content)
    wanted = WantedModels(tmp_path / "wanted")
    assert "a" not in wanted
    assert len(caplog.records) == 1
    wanted.add("a")
    assert "a" in WantedModels(tmp_path / "wanted")


def test_a_folder_that_cannot_be_written_fails_no_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    wanted = WantedModels(tmp_path / "file" / "wanted")
    wanted.add("a")
    assert "a" in wanted
    assert any("cannot be written" in line.getMessage() for line in caplog.records)
