"""Every row in its short form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.all_rows import ROWS, SOAK
from tests.faults.row import Row, Run, SharedAgent

SECONDS = 20.0
"""A short form is over long before; on a very slow machine it counts less instead of failing."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedAgent]:
    agent = SharedAgent(tmp_path_factory.mktemp("packages"))
    yield agent
    agent.close()


@pytest.mark.parametrize("row", [*ROWS.values(), *SOAK.values()], ids=lambda row: row.name)
def test_row(row: Row, shared: SharedAgent, tmp_path: Path) -> None:
    run = Run(tmp_path, shared, seed=7, count=row.short, seconds=SECONDS)
    row.go(run)
    assert run.reached > 0
