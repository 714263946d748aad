"""`edge-agent doctor`: one page on what this device can do, and what to do about the rest."""

from __future__ import annotations

import argparse
import functools
import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.commands.device_flags import add_setting_flags, settings_given

if TYPE_CHECKING:
    from agent.settings import Settings
    from agent.workbench.doctor.finding import Finding

FLAGS = ("socket", "registry", "engine_cache", "device", "model_devices", "fallback", "metrics_port")
MARKS = {"ok": "", "note": "note", "problem": "PROBLEM"}
WIDTH = 110
"""Characters of a line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Exit code: 0 where all is well, 1 where there is a problem: what the agent is set to do, it cannot."
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_setting_flags(parser, *FLAGS)


def run(arguments: argparse.Namespace) -> int:
    """1 where there is a problem: the agent would not do here what it is set to do."""
    findings = _findings(settings_given(arguments, *FLAGS))
    problems = [finding for finding in findings if finding.level == "problem"]
    if arguments.json:
        _print_json(findings, len(problems))
    else:
        _print_page(findings, problems)
    return 1 if problems else 0


def _findings(settings: Settings) -> list[Finding]:
    from agent.workbench.doctor.access import access_findings
    from agent.workbench.doctor.greengrass import greengrass_findings
    from agent.workbench.doctor.machine import machine_findings
    from agent.workbench.doctor.metrics import metrics_finding
    from agent.workbench.doctor.nvidia import NO_GPU, nvidia_findings
    from agent.workbench.doctor.packages import package_findings
    from agent.workbench.doctor.trials import choice_findings, device_findings, tried

    of_gpu = nvidia_findings()
    attempt, has_gpu = functools.cache(tried), of_gpu != [NO_GPU]
    return [
        *machine_findings(),
        *of_gpu,
        *package_findings(),
        *device_findings(attempt, has_gpu),
        *choice_findings(attempt, has_gpu, settings),
        *access_findings(settings),
        metrics_finding(settings),
        *greengrass_findings(os.environ),
    ]


def _print_json(findings: Sequence[Finding], problems: int) -> None:
    import json
    from dataclasses import asdict

    print(json.dumps({"problems": problems, "findings": [asdict(finding) for finding in findings]}, indent=2))


def _print_page(findings: Sequence[Finding], problems: Sequence[Finding]) -> None:
    topics = max(len(finding.topic) for finding in findings)
    for finding in findings:
        _print_wrapped(f"{finding.topic:{topics}}  {MARKS[finding.level]:7}  ", finding.what)
        if finding.todo:
            _print_wrapped(f"{'':{topics}}           -> ", finding.todo)
    names = ", ".join(dict.fromkeys(finding.topic for finding in problems))
    print(f"\n{len(problems)} problem{'s'[: len(problems) != 1]}: {names}." if problems else "\nNo problems.")


def _print_wrapped(before: str, text: str) -> None:
    indent = " " * len(before)
    # Commands are copied from here: no line ends within a word of one.
    print(textwrap.fill(text, WIDTH, initial_indent=before, subsequent_indent=indent, break_on_hyphens=False))
