"""The step that changes something: a threshold put in force on this device, and what is said of it."""

from __future__ import annotations

import os
from pathlib import Path

from agent.commands.models import failures_of
from agent.commands.tune.subject import Subject
from agent.models.device_threshold import Measured
from agent.models.registry import Record
from agent.models.threshold_change import ThresholdChange, now, set_threshold, user


def put_in_force(
    subject: Subject,
    record: Record,
    threshold: float,
    registry: Path,
    *,
    target: str,
    measured: Measured | None = None,
    images: str = "",
) -> None:
    """Logs the change, sets `threshold` (0..1) and says so. Raises RegistryNotWritable."""
    change = ThresholdChange(
        when=now(),
        who=user(os.environ),
        action="set",
        component=record.component,
        version=record.version,
        old=subject.in_force,
        new=threshold,
        target=target,
        measured=measured,
        images=images,
    )
    with failures_of(registry):
        set_threshold(registry, change)
    print(
        f"Threshold {threshold:.4f} is set for {subject} on this device, in place of {change.old:.4f} "
        f"(the package says {subject.package.manifest.decision.threshold:.4f})."
    )
    print("A running agent follows within a second.")
    print(f"To take it back: edge-agent tune {record.component} --reset")
