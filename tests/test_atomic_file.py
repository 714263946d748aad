"""Files that are replaced whole; what a power cut leaves of them is row F7."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.atomic_file import replace_file


def test_the_new_content_is_there_and_nothing_else(tmp_path: Path) -> None:
    for content in (b"first, and longer", b"second", b""):
        replace_file(tmp_path / "record", content)
        assert [path.name for path in tmp_path.iterdir()] == ["record"]
        assert (tmp_path / "record").read_bytes() == content


def test_parts_are_written_one_after_the_other(tmp_path: Path) -> None:
    replace_file(tmp_path / "record", [b"head", memoryview(b"-body"), b""])
    assert (tmp_path / "record").read_bytes() == b"head-body"


def test_who_may_read_it_is_up_to_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "record", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "record").stat().st_mode) == 0o640


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_who_may_read_it_is_up_to_the_writer_where_it_says_so(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        replace_file(tmp_path / "record", b"content", 0o640)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "record").stat().st_mode) == 0o640


def test_what_cannot_be_put_there_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        replace_file(tmp_path / "folder", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
