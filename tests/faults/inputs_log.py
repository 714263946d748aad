"""The agent's log against those who would write lines of their own into it."""

from __future__ import annotations

import re

from tests.support.agent_process import AgentProcess, wait_for

LOG_LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [A-Z]+ [a-z_.]+: [ -~]+")
FORGED = "2026-01-01T00:00:00Z ERROR agent: FORGED"
"""What clients try to have there as a line; the agent itself never says it."""


class LogReader:
    """Reads what an agent has logged since the reader was made."""

    def __init__(self, agent: AgentProcess) -> None:
        self._log, self._read = agent.log, agent.log.stat().st_size

    def new_lines(self) -> list[str]:
        """The lines added since the last look, each checked to be one that the agent itself wrote.

        A line comes a moment after the answer it tells of: nobody waits for the log.
        """
        with self._log.open("rb") as log:
            log.seek(self._read)
            added = log.read()
        whole, end, _ = added.rpartition(b"\n")
        self._read += len(whole + end)
        lines = whole.split(b"\n") if whole else []
        for line in lines:
            assert LOG_LINE.fullmatch(line) and not line.startswith(FORGED.encode()), line
        return [line.decode() for line in lines]

    def next_line(self) -> str:
        """The one line that has been added, or is about to be."""
        lines: list[str] = []
        wait_for("a line of the log", lambda: bool(lines.extend(self.new_lines()) or lines))
        (line,) = lines
        return line
