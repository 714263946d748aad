"""What has been reached so far, over all runs: a JSON file, and the table of docs/reliability.md made from it."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from tabulate import tabulate

from tests.faults.row import ROWS, SOAK, Row, Run

BEGIN, END = "<!-- counts: written by `make faults` and `make soak` -->", "<!-- end of counts -->"


HELD, SKIPPED = "held", "skipped: "


def is_good(result: str) -> bool:
    return result == HELD or result.startswith(SKIPPED)


def add(file: Path, row: Row, run: Run, seconds: float, result: str) -> None:
    """Adds the count of a run to those in `file`, and writes the table into the page of the same name."""
    known = json.loads(file.read_text()) if file.exists() else {}
    entry = known.setdefault(row.name, {"count": 0, "seconds": 0, "not_held": 0, "seen": ""})
    if result.startswith(SKIPPED):
        entry["seen"] = entry["seen"] or result
    else:
        entry["count"] += run.reached
        entry["seconds"] += round(seconds)
        entry["not_held"] += not is_good(result)
        entry["seen"] = told(run)
        entry["machine"] = f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    page = file.with_suffix(".md")
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{_table(known)}\n{END}{after}")


def told(run: Run) -> str:
    """What was measured and what was seen how often."""
    seen = [f"{name}: {value}" for name, value in run.figures.items()]
    return ", ".join(seen + [f"{count:,} {outcome}" for outcome, count in run.outcomes.most_common()])


def _table(known: dict[str, dict[str, object]]) -> str:
    rows = {**ROWS, **SOAK}
    lines = [
        (
            name,
            row.expectation,
            f"{entry['count']:,} {row.unit}",
            f"{row.full:,}",
            f"{entry['seconds']:,} s",
            entry["not_held"],
            str(entry["seen"]).replace("|", "\\|"),
        )
        for name, row in rows.items()
        if (entry := known.get(name)) is not None
    ]
    headers = (
        "row",
        "what is done, and what it must lead to",
        "reached",
        "of",
        "in",
        "not held",
        "seen in the last run",
    )
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)
