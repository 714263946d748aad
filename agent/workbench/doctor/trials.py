"""Whether a model really runs on each device: tried, each in a process of its own, since a runtime that does not fit
may take its process down."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from agent.backends.base import DEVICE_NAMES, Device
from agent.workbench.doctor.finding import Finding, Level

TIME_LIMIT = 300.0
"""Seconds; TensorRT builds an engine for the trial."""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    runs_on: str = ""
    """Runtime and device; empty where it did not run."""
    milliseconds: float = 0.0
    """Of one run of the small model, the median of some."""
    reason: str = ""
    """Why it did not run, and what to do."""


Try = Callable[[Device], Outcome]


def trial_findings(wanted: str, allows_fallback: bool, attempt: Try | None = None) -> list[Finding]:
    """What came of trying every device; `wanted` and `allows_fallback` as the agent is set."""
    outcomes = {device: (attempt or tried)(device) for device in DEVICE_NAMES}
    findings = [_told(device, outcome, wanted, allows_fallback) for device, outcome in outcomes.items()]
    if not any(outcome.runs_on for outcome in outcomes.values()):
        todo = "install one runtime: pip install 'vision-edge-agent[cpu]'"
        findings.append(Finding("models", "nothing here runs a model", "problem", todo))
    return findings


def tried(device: Device) -> Outcome:
    """Runs the trial in a child process."""
    command = [sys.executable, "-m", "agent.workbench.doctor.trial", device]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(reason=f"it had not run after {TIME_LIMIT:g} s; restart the device and try again")
    if ended.returncode < 0:
        name = signal.Signals(-ended.returncode).name
        return Outcome(reason=f"the runtime crashed ({name}); install a runtime made for this CUDA and this GPU")
    try:
        return Outcome(**json.loads(ended.stdout.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        last = ended.stderr.strip().splitlines()[-1:] or ["without a word"]
        return Outcome(reason=f"the trial ended: {last[0][:200]}; install the agent again")


def _told(device: Device, outcome: Outcome, wanted: str, allows_fallback: bool) -> Finding:
    topic = f"device {device}"
    if outcome.runs_on:
        return Finding(topic, f"runs models: {outcome.runs_on}, {outcome.milliseconds:.2f} ms for a small one")
    is_needed = device == wanted and not allows_fallback
    level: Level = "problem" if is_needed else "note"
    what, _, todo = outcome.reason.partition("; ")
    if not is_needed:
        todo = f"only if it is wanted: {todo}"
    return Finding(topic, what, level, todo)
