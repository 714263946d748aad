"""What a check comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tabulate import tabulate


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    check: str
    outcome: Literal["passed", "FAILED", "measured"]
    figures: str


def passed(check: str, holds: bool, figures: str) -> Result:
    return Result(check, "passed" if holds else "FAILED", figures)


def table(results: Sequence[Result]) -> str:
    """As Markdown."""
    rows = [(result.check, result.outcome, result.figures.replace("|", "/")) for result in results]
    return tabulate(rows, headers=["check", "", "figures"], tablefmt="github")
