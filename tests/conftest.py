"""Fixtures for tests of more than one room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.checkout import ROOT


@pytest.fixture
def wire_python() -> str:
    """The interpreter with the pinned generators; `make test` names it."""
    python = os.environ.get("WIRE_PYTHON", str(ROOT / ".venv-wire/bin/python"))
    if not Path(python).exists():
        pytest.skip("the environment with the pinned generators is not there; `make test` sets it up")
    return python
