"""What the page's charts are made of: places in a picture 100 % wide and high, and the words beside them.

The template draws them as SVG; nothing is left to the browser to compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo

from dashboard.history import Counts, Scores
from dashboard.windows import DAY, Window
from dashboard.words import per_cent

STACK = (("rejected", "reject"), ("uncertain", "uncertain"), ("unanswered", "unanswered"), ("passed", "pass"))
"""From the bottom up: what matters stands on the ground. Field of Counts, and what it is drawn as."""
GRID = 1000
"""Width and height of the score history's own grid, which is stretched over the chart."""
LEAST_STROKE = 16
"""On the grid; as high as a stroke is wide, so that a single score is a dot that is seen."""
GAP = 0.15
"""Of a bar's place."""


@dataclass(frozen=True)
class Part:
    """A piece of a bar, in per cent of the chart from its top left."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Bar:
    """Everything that happened in one time."""

    parts: list[Part]
    words: str  # shown where the mouse rests on it


@dataclass(frozen=True)
class Label:
    """Words beside an axis, in per cent of the chart."""

    place: float
    words: str


@dataclass(frozen=True)
class BarChart:
    """Bars over time."""

    bars: list[Bar]
    levels: list[Label]  # from the top
    times: list[Label]


@dataclass(frozen=True)
class ScoreChart:
    """The range of scores over time, as paths on the GRID."""

    below: str  # the threshold
    above: str
    threshold: str
    last_threshold: float | None
    levels: list[Label]
    times: list[Label]


@dataclass(frozen=True)
class Axis:
    """The time axis: a window that ends now, for a reader in a time zone."""

    window: Window
    now: float  # seconds since 1970
    zone: tzinfo

    @property
    def offset(self) -> int:
        """Seconds that the reader's clock is ahead of UTC."""
        ahead = datetime.fromtimestamp(self.now, self.zone).utcoffset()
        return int(ahead.total_seconds()) if ahead else 0

    def place(self, second: float) -> float:
        """In per cent of the chart from its left."""
        return 100 * (1 + (second - self.now) / self.window.length)

    def times(self) -> list[Label]:
        """Labels at round times; not where they would be cut off."""
        tick, offset = self.window.tick, self.offset
        first = math.ceil((self.now - self.window.length + offset) / tick) * tick - offset
        labels = [Label(self.place(second), self._words(second)) for second in range(first, int(self.now), tick)]
        return [label for label in labels if 4 <= label.place <= 96]

    def span_words(self, start: int, width: int) -> str:
        """From when to when."""
        begin, end = (datetime.fromtimestamp(second, self.zone) for second in (start, start + width))
        if width >= DAY:
            return f"{begin:%a %-d %b}" if width == DAY else f"{begin:%a %-d %b} to {end:%a %-d %b}"
        return f"{begin:%a %-d %b %H:%M} to {end:%H:%M}"

    def _words(self, second: int) -> str:
        time = datetime.fromtimestamp(second, self.zone)
        return f"{time:%H:%M}" if self.window.tick < DAY else f"{time:%-d %b}"


def counts_chart(bars: dict[int, Counts], axis: Axis) -> BarChart:
    """How many pictures had which outcome, one upon the other."""
    top = _round_up(max((counts.all for counts in bars.values()), default=0))
    drawn = []
    for start, counts in bars.items():
        stack = ((kind, getattr(counts, field) / top) for field, kind in STACK)
        drawn.append(_bar(axis, start, stack, f"{axis.span_words(start, axis.window.bar)}: {_told(counts)}"))
    return BarChart(drawn, _levels(top, lambda value: f"{value:,g}"), axis.times())


def ratio_chart(bars: dict[int, Counts], axis: Axis) -> BarChart:
    """The anomaly ratio."""
    ratios = {start: counts.anomaly_ratio for start, counts in bars.items()}
    top = min(_round_up(max((100 * ratio for ratio in ratios.values() if ratio), default=0)), 100)
    drawn = []
    for start, ratio in ratios.items():
        if ratio is not None:
            words = f"{axis.span_words(start, axis.window.bar)}: {per_cent(ratio)} anomalous, {_told(bars[start])}"
            drawn.append(_bar(axis, start, [("anomalous", 100 * ratio / top)], words))
    return BarChart(drawn, _levels(top, lambda value: f"{value:g} %"), axis.times())


def score_chart(scores: list[Scores], axis: Axis) -> ScoreChart:
    """For each point in time a stroke over the scores below the threshold, and one over those from it on.

    Between the two is the room that the threshold has.
    """
    below, above, threshold = [], [], []
    half = axis.window.point / 2
    before = None
    for point in scores:
        x = _on_grid(axis.place(point.start + half) / 100)
        if point.below:
            below.append(_stroke(x, *point.below))
        if point.above:
            above.append(_stroke(x, *point.above))
        y = _on_grid(1 - point.threshold)
        # A step where the threshold was changed.
        threshold.append(f"M0 {y}" if before is None else f"H{x}" + (f"V{y}" if y != before else ""))
        before = y
    if threshold:
        threshold.append(f"H{GRID}")
    last = scores[-1].threshold if scores else None
    levels = _levels(1, lambda value: f"{value:g}")
    return ScoreChart("".join(below), "".join(above), "".join(threshold), last, levels, axis.times())


def _bar(axis: Axis, start: int, stack: Iterable[tuple[str, float]], words: str) -> Bar:
    """`stack`: kinds and shares of the chart's height, from the bottom up."""
    left, right = max(axis.place(start), 0.0), min(axis.place(start + axis.window.bar), 100.0)
    gap = GAP * (right - left)
    return Bar(list(_stacked(left + gap / 2, right - left - gap, stack)), words)


def _stacked(x: float, width: float, stack: Iterable[tuple[str, float]]) -> Iterator[Part]:
    y = 100.0
    for kind, share in stack:
        height = 100 * share
        y -= height
        if height:
            yield Part(kind, round(x, 3), round(y, 3), round(width, 3), round(height, 3))


def _told(counts: Counts) -> str:
    told = f"{counts.passed:,} pass, {counts.rejected:,} reject, {counts.uncertain:,} uncertain"
    return f"{told}, {counts.unanswered:,} without answer" if counts.unanswered else told


def _round_up(value: float) -> float:
    """To 1, 2 or 5 and zeros; at least 1."""
    if value <= 1:
        return 1
    scale = 10.0 ** math.floor(math.log10(value))
    return next(step * scale for step in (1, 2, 5, 10) if value <= step * scale)


def _levels(top: float, words: Callable[[float], str]) -> list[Label]:
    return [Label(0, words(top)), Label(50, words(top / 2)), Label(100, words(0))]


def _stroke(x: int, low: float, high: float) -> str:
    """From low to high; a single value is a dot."""
    bottom, top = _on_grid(1 - low), _on_grid(1 - high)
    return f"M{x} {bottom}V{min(top, bottom - LEAST_STROKE)}"


def _on_grid(share: float) -> int:
    return round(GRID * share)
