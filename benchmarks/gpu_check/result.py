"""What a check comes to, and how all are run so that none takes another's result away."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tabulate import tabulate

LONGEST = 300
"""Characters of an error in the table; all of it goes to stderr."""


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    check: str
    outcome: Literal["passed", "FAILED", "measured"]
    figures: str


@dataclass(frozen=True)
class Check:
    """Something to be shown."""

    name: str
    """Of the line where it ends before it has a result."""
    run: Callable[[], Iterable[Result]]


def passed(check: str, holds: bool, figures: str) -> Result:
    return Result(check, "passed" if holds else "FAILED", figures)


def results_of(checks: Iterable[Check]) -> Iterator[Result]:
    """The results of all; a check that ends otherwise has FAILED, and the next one is run."""
    for check in checks:
        try:
            yield from check.run()
        except (Exception, SystemExit) as error:  # the helpers of benchmarks end the program with a sentence
            traceback.print_exception(error, file=sys.stderr)
            said = " ".join(str(error).split())
            yield Result(check.name, "FAILED", f"{type(error).__name__}: {said}"[:LONGEST])


def table(results: Sequence[Result]) -> str:
    """As Markdown."""
    rows = [(result.check, result.outcome, result.figures.replace("|", "/")) for result in results]
    return tabulate(rows, headers=["check", "", "figures"], tablefmt="github")
