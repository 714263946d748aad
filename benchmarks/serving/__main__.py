"""What serving costs: calls end to end, by message and by shared memory, against the same graph in a bare loop.

    python -m benchmarks.serving [--peers] [--quick] [--rounds 7] [--sizes 640x480 ...] [--json FILE] [--markdown]

Prints tables of ratios; docs/performance.md says what the columns mean and what the budgets are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.serving import servers
from benchmarks.serving.measure import Plan
from benchmarks.serving.results import WrongAnswer, as_json
from benchmarks.serving.run import Around, Report, run
from benchmarks.serving.tables import budgets_table, figures_of, figures_table, ratios_table

SIZES = ((640, 480), (1280, 960), (4096, 3000))
TASKS = ("classification", "segmentation")
# Rounds, seconds of a turn, and what is beside the calls.
THOROUGH = 7, 3.0, Around(overload=10.0, idling=20.0, starts=5)
QUICK = 2, 0.4, Around(overload=2.0, idling=5.0, starts=1)


def main() -> int:
    arguments = _arguments()
    if arguments.peers and not servers.peers_are_installed():
        print("The peers are not installed: run `make bench PEERS=1`, or `pip install --group peers`.", file=sys.stderr)
        return 2
    rounds, seconds, beside = QUICK if arguments.quick else THOROUGH
    plan = Plan(arguments.sizes, arguments.rounds or rounds, arguments.seconds or seconds, arguments.seed)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            report = run(Path(folder), plan, beside, arguments.tasks, peers=arguments.peers)
    except WrongAnswer as error:
        print(f"benchmarks.serving: {error}", file=sys.stderr)
        return 1
    print(told(report, plan, markdown=arguments.markdown))
    if arguments.json:
        content = {"conditions": conditions(plan), "figures": report.figures}
        content["turns"] = {task: as_json(results) for task, results in report.results.items()}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


def told(report: Report, plan: Plan, *, markdown: bool) -> str:
    """The report for people."""
    style, title = ("github", "### {}\n\n") if markdown else ("simple", "{}\n\n")
    parts = [conditions(plan)]
    parts += [title.format(task.capitalize()) + ratios_table(found, style) for task, found in report.results.items()]
    figures = report.figures | figures_of(report.results.get("classification", {}))
    parts.append(title.format("Budgets") + budgets_table(figures, style))
    parts.append(title.format("Also measured") + figures_table(report.figures, style))
    return "\n\n".join(parts)


def conditions(plan: Plan) -> str:
    """Where and how it was measured, in a sentence."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "onnxruntime", "pillow", "numpy"))
    return (
        f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, {libraries}; "
        f"{plan.rounds} rounds, {plan.seconds:g} s a turn."
    )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def _arguments() -> argparse.Namespace:
    description, _, _ = __doc__.partition("\n")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=description)
    parser.add_argument("--peers", action="store_true", help="also FastAPI with ONNX Runtime, on the same graph")
    parser.add_argument("--quick", action="store_true", help="about a minute; for a look, not for claims")
    parser.add_argument("--rounds", type=int, help="in each of them everybody has a turn")
    parser.add_argument("--seconds", type=float, help="of a turn")
    parser.add_argument("--sizes", type=_size, nargs="+", default=SIZES, metavar="WIDTHxHEIGHT")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seed", type=int, default=0, help="of the order within the rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all medians, tails and rates go")
    parser.add_argument("--markdown", action="store_true", help="tables as in docs/performance.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
