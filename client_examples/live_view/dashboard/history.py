"""Questions to the store: what happened last, how often, and how scores went. Each takes milliseconds."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from dashboard.windows import WINDOWS, Window

COUNTS = (
    "coalesce(sum(passed), 0) AS passed, coalesce(sum(rejected), 0) AS rejected, "
    "coalesce(sum(uncertain), 0) AS uncertain, coalesce(sum(unanswered), 0) AS unanswered, "
    "coalesce(sum(anomalous), 0) AS anomalous"
)

WITHIN = "line = :line AND span = :span AND start BETWEEN :first AND :now"  # a clock may have been ahead for a while


@dataclass(frozen=True)
class Line:
    """A camera with a model."""

    key: int
    camera: str
    model: str


@dataclass(frozen=True)
class Seen:
    """A result as the page tells it."""

    id: str
    at: int  # milliseconds since 1970
    outcome: str  # pass, reject, uncertain or unanswered
    reason: str
    score: float | None
    threshold: float | None
    found: str


@dataclass(frozen=True)
class Counts:
    """How many pictures of a time had which outcome."""

    passed: int
    rejected: int
    uncertain: int
    unanswered: int
    anomalous: int  # as the model called them, whatever became of it by the camera's rules

    @property
    def answered(self) -> int:
        """Pictures the agent gave an answer for."""
        return self.passed + self.rejected + self.uncertain

    @property
    def all(self) -> int:
        """All pictures."""
        return self.answered + self.unanswered

    @property
    def anomaly_ratio(self) -> float | None:
        """Anomalous ones among those answered, 0 to 1; None where none was."""
        return self.anomalous / self.answered if self.answered else None


@dataclass(frozen=True)
class Scores:
    """Scores of a time."""

    start: int  # seconds since 1970
    below: tuple[float, float] | None  # the lowest and the highest of those below the threshold
    above: tuple[float, float] | None  # and of those from it on
    threshold: float


def lines(database: sqlite3.Connection) -> list[Line]:
    """Those with results within half a year, by name."""
    question = (
        "SELECT key, camera, model FROM line "
        "WHERE EXISTS (SELECT * FROM tally WHERE line = line.key) ORDER BY camera, model"
    )
    return [Line(**row) for row in database.execute(question)]


def last(database: sqlite3.Connection, line: Line, most: int) -> list[Seen]:
    """The last results of a line, the newest first."""
    return _seen(database, "line = ?", (line.key, most))


def last_to_look_at(database: sqlite3.Connection, line: Line, most: int) -> list[Seen]:
    """The last ones that were rejected or uncertain, the newest first."""
    return _seen(database, "line = ? AND outcome IN ('reject', 'uncertain')", (line.key, most))


def outcome_of(database: sqlite3.Connection, result_id: str) -> str | None:
    """The outcome of a result; None where there is no such result (any more)."""
    row = database.execute("SELECT outcome FROM result WHERE id = ?", (result_id,)).fetchone()
    return row["outcome"] if row else None


def counts(database: sqlite3.Connection, line: Line, now: float) -> dict[str, Counts]:
    """For each window by its key."""
    question = f"SELECT {COUNTS} FROM tally WHERE {WITHIN}"
    return {
        window.key: Counts(**database.execute(question, _values(line, window, now)).fetchone()) for window in WINDOWS
    }


def bars(database: sqlite3.Connection, line: Line, window: Window, now: float, offset: int) -> dict[int, Counts]:
    """Counts by the start of each bar, in seconds since 1970; times without results are left out.

    `offset`: seconds that the reader's clock is ahead of UTC; bars of a day begin at the reader's midnight.
    """
    question = (
        f"SELECT (start + :offset) / :width * :width - :offset AS bar, {COUNTS} FROM tally WHERE {WITHIN} GROUP BY bar"
    )
    rows = database.execute(question, _values(line, window, now) | {"width": window.bar, "offset": offset})
    return {start: Counts(*values) for start, *values in rows}


def scores(database: sqlite3.Connection, line: Line, window: Window, now: float) -> list[Scores]:
    """Their ranges at each point in time, the oldest first: an outlier is never averaged away."""
    question = (
        "SELECT start / :width * :width AS point, min(lowest), max(below), min(above), max(highest), "
        "max(threshold) FROM tally "
        f"WHERE {WITHIN} AND lowest IS NOT NULL GROUP BY point ORDER BY point"
    )
    rows = database.execute(question, _values(line, window, now) | {"width": window.point})
    return [
        Scores(
            point,
            below=None if below is None else (lowest, below),
            above=None if above is None else (above, highest),
            threshold=threshold,
        )
        for point, lowest, below, above, highest, threshold in rows
    ]


def _seen(database: sqlite3.Connection, condition: str, values: tuple[int, int]) -> list[Seen]:
    question = (
        f"SELECT id, at, outcome, reason, score, threshold, found FROM result WHERE {condition} "
        "ORDER BY key DESC LIMIT ?"
    )
    return [Seen(**row) for row in database.execute(question, values)]


def _values(line: Line, window: Window, now: float) -> dict[str, float]:
    return {"line": line.key, "span": window.span, "first": now - window.length, "now": now}
