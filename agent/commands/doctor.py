"""`edge-agent doctor`: one page on what this device can do, and what to do about the rest."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.commands.device_flags import add_setting_flags, settings_given

if TYPE_CHECKING:
    from agent.workbench.doctor.finding import Finding

FLAGS = ("socket", "registry", "device", "fallback", "metrics_port")
MARKS = {"ok": "", "note": "note", "problem": "PROBLEM"}
WIDTH = 110
"""Characters of a line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_setting_flags(parser, *FLAGS)


def run(arguments: argparse.Namespace) -> int:
    """1 where there is a problem: the agent would not do here what it is set to do."""
    from agent.settings import device_of
    from agent.workbench.doctor.access import access_findings
    from agent.workbench.doctor.greengrass import greengrass_findings
    from agent.workbench.doctor.machine import machine_findings
    from agent.workbench.doctor.metrics import metrics_finding
    from agent.workbench.doctor.nvidia import nvidia_findings
    from agent.workbench.doctor.packages import package_findings
    from agent.workbench.doctor.trials import trial_findings

    settings = settings_given(arguments, *FLAGS)
    findings = [
        *machine_findings(),
        *nvidia_findings(),
        *package_findings(),
        *trial_findings(*device_of(settings, "")),
        *access_findings(settings),
        metrics_finding(settings),
        *greengrass_findings(os.environ),
    ]
    problems = sum(finding.level == "problem" for finding in findings)
    if arguments.json:
        _print_json(findings, problems)
    else:
        _print_page(findings, problems)
    return 1 if problems else 0


def _print_json(findings: Sequence[Finding], problems: int) -> None:
    import json
    from dataclasses import asdict

    print(json.dumps({"problems": problems, "findings": [asdict(finding) for finding in findings]}, indent=2))


def _print_page(findings: Sequence[Finding], problems: int) -> None:
    topics = max(len(finding.topic) for finding in findings)
    for finding in findings:
        _print_wrapped(f"{finding.topic:{topics}}  {MARKS[finding.level]:7}  ", finding.what)
        if finding.todo:
            _print_wrapped(f"{'':{topics}}           -> ", finding.todo)
    print(f"\n{problems or 'No'} problem{'s' if problems != 1 else ''}.")


def _print_wrapped(before: str, text: str) -> None:
    print(textwrap.fill(text, WIDTH, initial_indent=before, subsequent_indent=" " * len(before)))
