"""Whether a model really runs on each device: tried, each in a process of its own, since a runtime that does not fit
may take its process down."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from agent.backends.base import DEVICE_NAMES, Device, WantedDevice
from agent.settings import Settings, device_of
from agent.workbench.doctor.finding import Finding

TIME_LIMIT = 300.0
"""Seconds; TensorRT builds an engine for the trial."""

IN_THE_LOG = "(the agent's log says why)"
"""In reasons of the device half, which name no paths."""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    runs_on: str = ""
    """Runtime and device; empty where it did not run."""
    milliseconds: float = 0.0
    """Of one run of the small model, the median of some."""
    reason: str = ""
    """Why it did not run, or not on the device that was wanted, and what to do."""


Attempt = Callable[[WantedDevice, bool], Outcome]
"""Given a device, and whether the next best may stand in for it."""


def device_findings(attempt: Attempt, has_gpu: bool) -> list[Finding]:
    """What each device can do; `has_gpu`: whether it is worth anything to install something for one."""
    return [_told(device, attempt(device, False), has_gpu) for device in DEVICE_NAMES]


def choice_findings(attempt: Attempt, has_gpu: bool, settings: Settings) -> list[Finding]:
    """What models run on as the agent is set, those with a device of their own too."""
    own = [pair.partition("=")[0] for pair in settings.model_devices.split(",") if pair]
    of_all = {"models": device_of(settings, ""), **{component: device_of(settings, component) for component in own}}
    return [_choice(models, *choice, attempt, has_gpu) for models, choice in of_all.items()]


def _choice(models: str, device: str, allows_fallback: bool, attempt: Attempt, has_gpu: bool) -> Finding:
    outcome = attempt(cast(WantedDevice, device), allows_fallback)  # checked when the setting was read
    why_not, _, todo = outcome.reason.partition("; ")
    if not has_gpu and device not in ("auto", "cpu"):
        todo = f"set device cpu or auto, since no NVIDIA driver is here; or install it, then: {todo}"
    if not outcome.runs_on:
        return Finding(models, f"device {device}: FAILED; {why_not}", "problem", todo)
    what = f"device {device}: {outcome.runs_on}"
    return Finding(models, f"{what}, since {why_not}", "note", todo) if why_not else Finding(models, what)


def tried(device: WantedDevice, allows_fallback: bool = False) -> Outcome:
    """Runs the trial in a child process."""
    command = [sys.executable, "-m", "agent.workbench.doctor.trial", device, *(["allow"] if allows_fallback else [])]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(reason=f"it had not run after {TIME_LIMIT:g} s; restart the device and try again")
    if ended.returncode < 0:
        name = signal.Signals(-ended.returncode).name
        return Outcome(reason=f"the runtime crashed ({name}); install a runtime made for this CUDA and this GPU")
    last = (ended.stderr.strip().splitlines() or ["without a word"])[-1][:300]
    try:
        outcome = Outcome(**json.loads(ended.stdout.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        return Outcome(reason=f"the trial ended: {last}; install the agent again")
    # What a worker would write into the agent's log went to stderr here.
    return replace(outcome, reason=outcome.reason.replace(IN_THE_LOG, f"(it says: {last})"))


def _told(device: Device, outcome: Outcome, has_gpu: bool) -> Finding:
    topic = f"device {device}"
    if outcome.runs_on:
        return Finding(topic, f"runs models: {outcome.runs_on}, {outcome.milliseconds:.2f} ms for a small one")
    what, _, todo = outcome.reason.partition("; ")
    if device != "cpu" and not has_gpu:
        return Finding(topic, what, "note", "nothing, unless an NVIDIA GPU is there: install its driver first")
    return Finding(topic, what, "note", f"only if it is wanted: {todo}")
