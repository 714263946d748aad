"""The time windows of the page, and how finely each is told."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE, HOUR, DAY = 60, 3600, 86_400

KEPT_FOR = {10: 2 * HOUR, MINUTE: 4 * DAY, HOUR: 190 * DAY}
"""Span of a tally to how long such tallies are kept, both in seconds: no window reads more than some thousand."""


@dataclass(frozen=True)
class Window:
    """From so long ago until now. All in seconds."""

    key: str  # in the page's address
    name: str
    length: int
    span: int  # of the tallies that it is counted from
    point: int  # width of a point of the score history
    bar: int  # width of a bar of counts
    tick: int  # between two labels of the time axis


WINDOWS = (
    Window("1h", "last hour", HOUR, 10, 10, MINUTE, 15 * MINUTE),
    Window("1d", "1 day", DAY, MINUTE, 5 * MINUTE, 30 * MINUTE, 6 * HOUR),
    Window("3d", "3 days", 3 * DAY, MINUTE, 15 * MINUTE, HOUR, DAY),
    Window("1w", "1 week", 7 * DAY, HOUR, HOUR, 3 * HOUR, 2 * DAY),
    Window("2w", "2 weeks", 14 * DAY, HOUR, HOUR, 6 * HOUR, 3 * DAY),
    Window("1m", "1 month", 30 * DAY, HOUR, 2 * HOUR, 12 * HOUR, 7 * DAY),
    Window("3m", "3 months", 91 * DAY, HOUR, 6 * HOUR, DAY, 14 * DAY),
    Window("6m", "6 months", 182 * DAY, HOUR, 12 * HOUR, 2 * DAY, 28 * DAY),
)
"""Those of Amazon Lookout for Vision's dashboard, and the last hour."""
WINDOW_OF = {window.key: window for window in WINDOWS}
