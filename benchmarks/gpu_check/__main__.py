"""Shows what the agent does on this machine's GPU, and adds a table to a page.

    python -m benchmarks.gpu_check [--device cuda] [--packages FOLDER ...] [--quick] [--record docs/gpu-checks.md]

Exit code: 0 all passed, 1 something failed, 3 the device cannot be used here (nothing is recorded).
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from agent.backends.base import DEVICE_NAMES
from agent.workbench.doctor.machine import machine_findings
from agent.workbench.doctor.nvidia import nvidia_findings
from agent.workbench.doctor.packages import package_findings
from agent.workbench.doctor.trials import tried
from benchmarks.gpu_check.checks import SIZE, all_checks
from benchmarks.gpu_check.result import table
from benchmarks.serving.measure import Plan
from benchmarks.serving.model import make_packages

NOT_HERE = 3
NOT_RUN = "**No check has been run yet.**"
"""What the page says before the first one."""


def main() -> int:
    arguments = _arguments()
    outcome = tried(arguments.device)
    if not outcome.runs_on:
        print(f"benchmarks.gpu_check: nothing was checked. {outcome.reason}.", file=sys.stderr)
        return NOT_HERE
    plan = Plan([SIZE], *((1, 0.5) if arguments.quick else (5, 3.0)), seed=0)
    results = []
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        folder = Path(name)
        made = list(make_packages(folder / "packages").values())
        for result in tqdm(all_checks(arguments.packages, made, folder, arguments.device, plan), disable=None):
            results.append(result)
    page = f"{conditions(outcome.runs_on)}\n\n{table(results)}\n"
    print(page)
    if arguments.record:
        arguments.record.write_text(recorded(arguments.record.read_text(), page))
    return 1 if any(result.outcome == "FAILED" for result in results) else 0


def conditions(runs_on: str) -> str:
    """Where it was checked, as a heading and a list."""
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    findings = [*machine_findings()[:2], *nvidia_findings(), *package_findings()]
    lines = [f"- {finding.topic}: {finding.what.partition(' (/')[0]}" for finding in findings]
    return "\n".join([f"## {today}: {runs_on}", "", *lines])


def recorded(page: str, entry: str) -> str:
    """`page` with `entry` after what it says of itself, before older entries."""
    head, mark, older = page.partition("\n## ")
    head = head.replace(f"\n{NOT_RUN}\n", "")
    return f"{head.rstrip()}\n\n{entry.rstrip()}\n{mark}{older}"


def _arguments() -> argparse.Namespace:
    description, _, _ = __doc__.partition("\n")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=description)
    parser.add_argument("--device", choices=DEVICE_NAMES, default="cuda")
    parser.add_argument("--packages", type=Path, nargs="+", default=[], metavar="FOLDER", help="compared with the CPU")
    parser.add_argument("--quick", action="store_true", help="a minute; for a look, not for claims")
    parser.add_argument("--record", type=Path, metavar="FILE", help="the page that the table is added to")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
