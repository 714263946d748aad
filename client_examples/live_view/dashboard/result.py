"""One line of a camera client's results, as the store keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

BACKGROUND = "background"
LONGEST_NAME = 200
LONGEST_TEXT = 500
MOST_TYPES_TOLD = 5

Fraction = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
Outcome = Literal["pass", "reject", "uncertain", "unanswered"]


class DamagedLine(ValueError):
    """No result can be read from a line."""


@dataclass(frozen=True)
class Result:
    """One inspected frame."""

    id: str  # no other frame has it, of another run or camera neither
    camera: str
    model: str
    at: int  # when the frame was captured, milliseconds since 1970 (UTC)
    outcome: Outcome  # the verdict; `unanswered` where the agent gave no answer
    reason: str
    is_anomalous: bool
    score: float | None  # 0 to 1; None: no answer
    threshold: float | None
    found: str  # anomaly types and the share of the picture each covers, largest first


class _Anomaly(msgspec.Struct):
    name: str
    total_percentage_area: float  # in spite of its name a fraction, 0 to 1


class _Line(msgspec.Struct):
    """What is needed of a line; keys of later versions do no harm."""

    id: Name
    camera: Name
    model: Name
    time: Annotated[datetime, Meta(tz=True)]
    verdict: Literal["pass", "reject", "uncertain"]
    reason: str = ""
    is_anomalous: bool = False
    anomaly_score: Fraction | None = None
    anomaly_threshold: Fraction | None = None
    anomalies: list[_Anomaly] = []


_DECODER = msgspec.json.Decoder(_Line)


def read_line(content: bytes) -> Result:
    """What a line of the camera client's `json_lines` says. Raises DamagedLine."""
    try:
        line = _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedLine(str(error)) from None
    if not 1970 <= line.time.year < 9999:  # beyond, there are time zones in which Python has no such time
        raise DamagedLine(f"no camera has seen the year {line.time.year}")
    is_answered = line.anomaly_score is not None and line.anomaly_threshold is not None
    return Result(
        id=line.id,
        camera=line.camera,
        model=line.model,
        at=int(line.time.timestamp() * 1000),
        # The camera client calls a frame without an answer uncertain, and tells no score.
        outcome=line.verdict if is_answered else "unanswered",
        reason=line.reason[:LONGEST_TEXT],
        is_anomalous=line.is_anomalous,
        score=line.anomaly_score if is_answered else None,
        threshold=line.anomaly_threshold if is_answered else None,
        found=_found(line.anomalies),
    )


def _found(anomalies: list[_Anomaly]) -> str:
    areas = {found.name: found.total_percentage_area for found in anomalies if found.name != BACKGROUND}
    largest = sorted(areas.items(), key=lambda one: -one[1])
    told = [f"{name[:LONGEST_NAME]} {area:.2%}".replace("%", " %") for name, area in largest[:MOST_TYPES_TOLD]]
    if len(largest) > MOST_TYPES_TOLD:
        told.append(f"and {len(largest) - MOST_TYPES_TOLD} more")
    return ", ".join(told)
