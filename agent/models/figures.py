"""What is known of a model at one moment, in figures: for metrics, where `ModelDescription` is for people."""

from __future__ import annotations

from dataclasses import dataclass

from agent.backends.base import Stage
from agent.models.lifecycle import ModelStatus
from agent.models.tally import Counted
from agent.models.worker_post import ServedBy


@dataclass(frozen=True)
class WorkerFigures:
    """Of the worker that takes a model's calls."""

    served_by: ServedBy
    load_seconds: float
    """From its start until it could answer, the build of an engine included."""
    memory: int
    """Bytes that it holds and no file backs."""


@dataclass(frozen=True)
class ModelFigures:
    """Of one model."""

    component: str
    status: ModelStatus
    stage: Stage | None
    """What opening a worker is at; None where none is being opened, or nothing is told of it."""
    worker: WorkerFigures | None
    """None where nobody would take a call now."""
    calls_in_hand: int
    calls_waiting: int
    """For their turn; not those in hand."""
    restarts: int
    """Workers that ended, or had to be ended, while the model was RUNNING."""
    threshold: float | None
    """By which an image would be judged now; None where the package cannot be read."""
    counted: Counted
