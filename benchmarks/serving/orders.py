"""What passes between the benchmark and its load processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

Contender = Literal["floor", "segment", "message", "fastapi", "describe"]


class Order(msgspec.Struct, frozen=True):
    """What to get ready for."""

    contender: Contender
    clients: int
    width: int
    height: int
    address: str
    """Path of the unix socket; of the floor: of the graph."""
    component: str = ""
    paints_mask: bool = False
    """Whether it is segmentation; the agent knows by itself."""
    interval: float = 0.0
    """Seconds from one call of a client to its next; 0: at once."""


class Span(msgspec.Struct, frozen=True):
    """When to make calls, and from when on they count, on the clock that all processes share: `time.monotonic`."""

    begin: float
    counted_from: float
    end: float


class Verdict(msgspec.Struct, frozen=True):
    """The answer to the picture; all contenders have to give the same."""

    score: float
    area: float = 0.0
    """Fraction of the pixels that are anomalous; 0 for classification."""
    is_refusal: bool = False
    """The agent cannot keep up with the calls."""


class Call(msgspec.Struct, frozen=True, array_like=True):
    """One call that ended while calls count."""

    ended: float
    """On the clock of the span."""
    seconds: float
    verdict: Verdict


MakeCall = Callable[[], Verdict]
