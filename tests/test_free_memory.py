"""How much memory there is to be taken."""

from __future__ import annotations

from pathlib import Path

from agent.free_memory import available_memory


def test_what_is_available_is_some_of_what_there_is() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < available_memory() <= total
