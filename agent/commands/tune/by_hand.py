"""What needs no images: a threshold set by hand, taken back, and the changes so far. Works on a bare device."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from agent.commands.models import failures_of
from agent.commands.tune.setting import put_in_force
from agent.commands.tune.subject import NeitherComponentNorPackage, NotAComponent, component_of
from agent.errors import BadPackage
from agent.models.device_threshold import Measured
from agent.models.registry import Registry, check_component_name
from agent.models.threshold_change import ThresholdChange, drop_threshold, history, log_of, now, user


def set_by_hand(component: str, threshold: float, registry: Path, *, dry_run: bool) -> int:
    with component_of(component, registry) as (subject, record):
        if dry_run:
            print(f"{subject} would get the threshold {threshold:.4f} in place of {subject.in_force:.4f}.")
        else:
            put_in_force(subject, record, threshold, registry, target="by hand")
    return 0


def reset(component: str, registry: Path, *, dry_run: bool) -> int:
    """The package's threshold holds again; also where the threshold file cannot be read, or its component is gone."""
    check_component_name(component)
    with failures_of(registry):
        if component not in Registry(registry).thresholds():
            print(f"No threshold is set for {component} on this device; its package's holds.")
        elif dry_run:
            print(f"The threshold set for {component} on this device would be taken back.")
        else:
            drop_threshold(registry, _reset_of(component, registry))
            print(f"The threshold set for {component} on this device is taken back; its package's holds again.")
    return 0


def _reset_of(component: str, registry: Path) -> ThresholdChange:
    version, old, new = "", None, None
    # What cannot be told is left open: a package that has become unreadable is no reason to keep its threshold.
    with suppress(NeitherComponentNorPackage, NotAComponent, BadPackage), component_of(component, registry) as found:
        subject, record = found
        version, old, new = record.version, subject.in_force, subject.package.manifest.decision.threshold
    return ThresholdChange(now(), user(os.environ), "reset", component, version, old, new)


def show_history(component: str, registry: Path) -> int:
    from tabulate import tabulate

    check_component_name(component)
    with failures_of(registry):
        changes, damaged = history(registry, component)
    if changes:
        rows = [[show(change) for _, show in COLUMNS] for change in changes]
        print(tabulate(rows, headers=[name for name, _ in COLUMNS], disable_numparse=True))
    else:
        print(f"The threshold of {component} was never changed on this device.")
    if damaged:
        print(f"Left out, since they cannot be read: {damaged} of the lines in {log_of(registry, component)}.")
    return 0


def _number(threshold: float | None) -> str:
    return "" if threshold is None else f"{threshold:.4f}"


def _mistakes(measured: Measured | None, count: Callable[[Measured], tuple[int, int]]) -> str:
    return "" if measured is None else "{} of {}".format(*count(measured))


COLUMNS: tuple[tuple[str, Callable[[ThresholdChange], str]], ...] = (
    ("when", lambda change: change.when),
    ("who", lambda change: change.who),
    ("version", lambda change: change.version),
    ("change", lambda change: change.action),
    ("old", lambda change: _number(change.old)),
    ("new", lambda change: _number(change.new)),
    ("asked for", lambda change: change.target),
    ("false rejects", lambda change: _mistakes(change.measured, lambda got: (got.false_rejects, got.good))),
    ("misses", lambda change: _mistakes(change.measured, lambda got: (got.misses, got.anomalous))),
    ("images", lambda change: change.images),
)
