"""`make faults MINUTES=60`, `make soak MINUTES=30`: the rows share the time, and the counts add up over runs.

    python -m tests.faults --minutes 60 [--soak] [--rows A6 B7 ...] [--seed N] [--record docs/reliability.json]

Ends with 1 where a row did not hold; the others still run.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest
from tabulate import tabulate
from tqdm import tqdm

from tests.faults.all_rows import ROWS, SOAK
from tests.faults.record import HELD, SKIPPED, add, is_good, told
from tests.faults.row import Row, Run, SharedAgent


def main() -> int:
    arguments = _arguments()
    rows = SOAK if arguments.soak else ROWS
    wanted = [rows[name] for name in arguments.rows or rows]
    seed = arguments.seed if arguments.seed is not None else secrets.randbits(32)
    print(f"seed {seed}; {len(wanted)} rows share {arguments.minutes:g} minutes")
    end = time.monotonic() + arguments.minutes * 60
    results = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        shared = SharedAgent(Path(folder) / "packages")
        progress = tqdm(wanted, unit="row", disable=None)
        for number, row in enumerate(progress):
            progress.set_description(row.name)
            # What a row leaves of its share goes to those after it.
            share = max(1.0, (end - time.monotonic()) / (len(wanted) - number))
            own = Path(folder) / row.name
            own.mkdir()
            run = Run(own, shared, seed, sys.maxsize if arguments.unlimited else row.full, share)
            results.append((row, run, *_go(row, run)))
            if arguments.record:  # at once: what ends a long run does not take its counts along
                add(arguments.record, *results[-1])
        shared.close()
    print(_table(results))
    failed = [row.name for row, _, _, result in results if not is_good(result)]
    if failed:
        print(f"did not hold: {', '.join(failed)} (seed {seed})")
    return 1 if failed else 0


def _go(row: Row, run: Run) -> tuple[float, str]:
    """Seconds it took, and how it ended: HELD, SKIPPED with a reason, or why it did not hold."""
    began = time.monotonic()
    try:
        row.go(run)
        result = HELD
    except pytest.skip.Exception as reason:  # not an Exception
        result = f"{SKIPPED}{reason}"
    except Exception as error:
        traceback.print_exc()
        result = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return time.monotonic() - began, result


def _table(results: list[tuple[Row, Run, float, str]]) -> str:
    lines = [
        (row.name, run.reached, row.unit, f"{seconds:.0f} s", told(run), result)
        for row, run, seconds, result in results
    ]
    return tabulate(
        lines, headers=("row", "count", "of", "took", "what was seen", "result"), maxcolwidths=[None] * 4 + [60, 50]
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, required=True, help="how long all rows may take together")
    parser.add_argument("--soak", action="store_true", help="the long-time rows instead of the faults")
    parser.add_argument("--rows", nargs="+", choices=sorted({*ROWS, *SOAK}), help="only these")
    parser.add_argument("--seed", type=int, help="for the faults that are drawn by chance; printed when not given")
    parser.add_argument("--unlimited", action="store_true", help="do not stop at the plan's counts")
    parser.add_argument(
        "--record",
        type=Path,
        help="a JSON file to which the counts are added; its table is in the page of the same name",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
