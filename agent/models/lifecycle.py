"""The states of a model and the moves between them: one table, no ifs."""

from __future__ import annotations

from enum import Enum


class ModelStatus(Enum):
    """The wire contract's states; the values are its names."""

    STOPPED = "STOPPED"
    """Not loaded."""
    STARTING = "STARTING"
    """Loading; not yet able to answer."""
    RUNNING = "RUNNING"
    """Answers. The restart of a worker that died is no move: calls wait for it."""
    FAILED = "FAILED"
    """Could not be loaded, or kept crashing; may be started again."""
    STOPPING = "STOPPING"
    """Answers the calls in hand, then unloads."""


ALLOWED_MOVES = frozenset(
    {
        (ModelStatus.STOPPED, ModelStatus.STARTING),
        (ModelStatus.STARTING, ModelStatus.RUNNING),
        (ModelStatus.STARTING, ModelStatus.FAILED),
        (ModelStatus.RUNNING, ModelStatus.STOPPING),
        (ModelStatus.RUNNING, ModelStatus.FAILED),
        (ModelStatus.STOPPING, ModelStatus.STOPPED),
        (ModelStatus.FAILED, ModelStatus.STARTING),
    }
)
"""Every other pair is refused. (A model that is taken off the device leaves the table altogether.)"""
