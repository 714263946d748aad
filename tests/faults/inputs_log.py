"""The agent's log against those who would write lines of their own into it."""

from __future__ import annotations

import re

from tests.support.agent_process import AgentProcess

LOG_LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [A-Z]+ [a-z_.]+: [ -~]+")
FORGED = "2026-01-01T00:00:00Z ERROR agent: FORGED"
"""What clients try to have there as a line; the agent itself never says it."""


class LogReader:
    """Reads what an agent has logged since the reader was made."""

    def __init__(self, agent: AgentProcess) -> None:
        self._log, self._read = agent.log, agent.log.stat().st_size

    def new_lines(self) -> list[str]:
        """The lines added since the last look, each checked to be one that the agent itself wrote."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            added = log.read()
        self._read += len(added)
        lines = added.split(b"\n")[:-1]
        for line in lines:
            assert LOG_LINE.fullmatch(line) and not line.startswith(FORGED.encode()), line
        return [line.decode() for line in lines]
