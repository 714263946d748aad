"""Shows what the agent does on this machine's GPU, and adds a table to a page.

    python -m benchmarks.gpu_check [--device cuda] [--packages FOLDER ...] [--quick] [--record docs/gpu-checks.md]

Exit code: 0 all passed, 1 something failed, 3 the device cannot be used here (nothing is recorded).
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from agent.backends.base import DEVICE_NAMES
from agent.backends.cuda_runtime import open_cuda_runtime
from agent.workbench.doctor.machine import machine_findings
from agent.workbench.doctor.nvidia import nvidia_findings
from agent.workbench.doctor.packages import package_findings
from agent.workbench.doctor.trials import tried
from benchmarks.gpu_check.agents import environment_of
from benchmarks.gpu_check.checks import SIZE, all_checks
from benchmarks.gpu_check.result import Result, results_of, table
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
    with (
        tempfile.TemporaryDirectory(prefix="gpu-") as name,
        # Engines of these checks are no business of an agent on this device.
        environment_of(EDGE_AGENT_ENGINE_CACHE=f"{name}/engines-of-agents"),
    ):
        results = run_all(arguments, Path(name), plan)
    page = f"{conditions(outcome.runs_on, arguments.quick)}\n\n{table(results)}\n"
    print(page)
    if arguments.record:
        before = arguments.record.read_text() if arguments.record.exists() else "# What was checked on GPUs\n"
        arguments.record.write_text(recorded(before, page))
    return 1 if any(result.outcome == "FAILED" for result in results) else 0


def run_all(arguments: argparse.Namespace, folder: Path, plan: Plan) -> list[Result]:
    """Each result is printed when it is there: who has to end this early keeps what was found."""
    made = list(make_packages(folder / "packages").values())
    is_integrated = arguments.device != "cpu" and open_cuda_runtime().gpu.is_integrated
    checks = list(all_checks(arguments.packages, made, folder, arguments.device, plan, is_integrated))
    results = []
    with tqdm(total=len(checks), unit="check", disable=None) as progress:
        for check in checks:
            progress.set_description(check.name)
            for result in results_of([check]):
                progress.write(f"{result.outcome:8}  {result.check}: {result.figures}", file=sys.stderr)
                results.append(result)
            progress.update()
    return results


def conditions(runs_on: str, is_quick: bool) -> str:
    """Where it was checked, as a heading and a list."""
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    findings = [*machine_findings()[:2], *nvidia_findings(), *package_findings()]
    # Without the path of the interpreter.
    lines = [f"- {finding.topic}: {re.sub(r' [(]/[^)]*[)]', '', finding.what)}" for finding in findings]
    look = " (a quick look: its figures are for no claims)" if is_quick else ""
    return "\n".join([f"## {today}: {runs_on}{look}", "", *lines])


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
