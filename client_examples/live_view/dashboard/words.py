"""How the page says things: outcomes, states, times. Never by colour alone."""

from __future__ import annotations

from datetime import datetime, tzinfo

OUTCOMES = {"pass": "PASS", "reject": "REJECT", "uncertain": "UNCERTAIN", "unanswered": "NO ANSWER"}
OUTCOME_SIGNS = {"pass": "✓", "reject": "✕", "uncertain": "?", "unanswered": "!"}
STATE_SIGNS = {"RUNNING": "✓", "STARTING": "…", "STOPPING": "…", "STOPPED": "■", "FAILED": "✕"}

DAY = 86_400


def time_of(second: float, now: float, zone: tzinfo) -> str:
    """When it was, in the reader's time zone; with its day where that is not today. Both in seconds since 1970."""
    time, today = datetime.fromtimestamp(second, zone), datetime.fromtimestamp(now, zone)
    return f"{time:%H:%M:%S}" if time.date() == today.date() else f"{time:%-d %b %H:%M:%S}"


def age(seconds: float) -> str:
    """How long ago it was."""
    for unit, length, most in (("s", 1, 60), ("min", 60, 5400), ("h", 3600, 2 * DAY)):
        if seconds < most:
            return f"{max(seconds, 0) / length:.0f} {unit} ago"
    return f"{seconds / DAY:.0f} days ago"


def per_cent(ratio: float | None) -> str:
    """As people read it; what is rare keeps two digits."""
    if ratio is None:
        return "—"
    return f"{100 * ratio:.2g} %" if 0 < ratio < 0.01 else f"{100 * ratio:.1f} %"
