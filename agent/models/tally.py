"""What a model counts of its calls, whether or not anybody asks for metrics: who looks, looks later.

Counted here and not by the library that publishes it: that one would cost every start 18 ms and 3 MB, and the counts of
a model go with the model.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from agent.images.detection import Detection

SCORES = tuple(step / 20 for step in range(1, 21))
"""Upper bounds of anomaly scores, 0.05 to 1."""
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper bounds of times: from a preprocessing that has nothing to do to `run_time_limit`."""
STEPS = ("waiting", "preprocessing", "inferring", "postprocessing")
"""Of an answer, as its trailing metadata names them."""
NORMAL, ANOMALOUS = "normal", "anomalous"


@dataclass(frozen=True)
class Distribution:
    """How many values were at most as large as each bound, and larger than the one before."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    """One more than there are bounds: the last is of what is larger than all of them."""
    total: float
    """Of all values."""


@dataclass(frozen=True)
class Counted:
    """What was counted up to one moment, from when the model was registered with the agent."""

    verdicts: Mapping[str, int]
    """By NORMAL and ANOMALOUS."""
    refusals: Mapping[tuple[str, str], int]
    """By status code and class of the refusal (`agent.errors`)."""
    scores: Distribution
    answers: Distribution
    """Seconds from a call's arrival until its answer."""
    steps: Mapping[str, Distribution]
    """Seconds, by STEPS."""


class _Histogram:
    """A distribution that grows."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def distribution(self) -> Distribution:
        return Distribution(self._bounds, tuple(self._counts), self._total)


class Tally:
    """The counts of one model. From several threads at once; costs a call some microseconds and never fails it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verdicts = {NORMAL: 0, ANOMALOUS: 0}
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._scores, self._answers = _Histogram(SCORES), _Histogram(SECONDS)
        self._steps = {step: _Histogram(SECONDS) for step in STEPS}

    def answered(self, detection: Detection, waited: float, took: float) -> None:
        """An image was inspected; `waited` and `took`: seconds from its arrival until a worker took it, and until the
        answer was there."""
        times = detection.times
        seconds = (waited, times.preprocessing, times.inferring, times.postprocessing)
        with self._lock:
            self._verdicts[ANOMALOUS if detection.is_anomalous else NORMAL] += 1
            self._scores.add(detection.score)
            self._answers.add(took)
            for histogram, value in zip(self._steps.values(), seconds, strict=True):
                histogram.add(value)

    def refused(self, code: str, reason: str) -> None:
        """An image was not inspected: status code, and class of the refusal."""
        with self._lock:
            self._refusals[code, reason] += 1

    def counted(self) -> Counted:
        """The counts as they are now, of one and the same moment."""
        with self._lock:
            return Counted(
                dict(self._verdicts),
                dict(self._refusals),
                self._scores.distribution(),
                self._answers.distribution(),
                {step: histogram.distribution() for step, histogram in self._steps.items()},
            )
