"""A threshold from the scores of labelled images and from what is asked of it.

Everything is counted in whole ten-thousandths: the wire contract compares scores and thresholds on 4 decimals, so two
scores that agree on them cannot be told apart by any threshold.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Protocol

from agent.images.detection import SCORE_DECIMALS
from agent.images.postprocess import COMBINED
from agent.packages.manifest import Combination

UNITS: int = 10**SCORE_DECIMALS
NEVER, ALWAYS = -1, UNITS + 1
"""Scores of images that no threshold, or any, makes anomalous: there the mask decides."""


@dataclass(frozen=True)
class Outcome:
    """What a threshold does on labelled images; the formulas are the original service's, with anomaly as positive.

    Where nothing is to be divided by, a figure is 0.
    """

    good: int
    anomalous: int
    false_rejects: int
    """Good images called anomalous."""
    misses: int
    """Anomalous images called normal."""

    @property
    def found(self) -> int:
        return self.anomalous - self.misses

    @property
    def precision(self) -> Fraction:
        return _ratio(self.found, self.found + self.false_rejects)

    @property
    def recall(self) -> Fraction:
        return _ratio(self.found, self.anomalous)

    @property
    def f1(self) -> Fraction:
        return _ratio(2 * self.found, 2 * self.found + self.false_rejects + self.misses)


class LabelledScores:
    """Scores of good and of anomalous images, in ten-thousandths."""

    def __init__(self, good: Iterable[int], anomalous: Iterable[int]) -> None:
        """Each 0 to UNITS, or NEVER or ALWAYS; see `deciding_score`."""
        self._good, self._anomalous = sorted(good), sorted(anomalous)

    def outcome(self, threshold: float) -> Outcome:
        """What `threshold` (0..1) does: anomalous is whose score is at least as high, on 4 decimals."""
        limit = round(threshold * UNITS)
        false_rejects = len(self._good) - bisect_left(self._good, limit)
        return Outcome(len(self._good), len(self._anomalous), false_rejects, bisect_left(self._anomalous, limit))

    def is_above_all(self, threshold: float) -> bool:
        """Whether no score reaches `threshold`."""
        return max(self._good + self._anomalous) < round(threshold * UNITS)

    def is_below_all(self, threshold: float) -> bool:
        """Whether every score reaches `threshold`."""
        return min(self._good + self._anomalous) >= round(threshold * UNITS)

    def cuts(self) -> list[float]:
        """One threshold for each way in which a threshold can part these images, ascending.

        Each lies halfway between two neighbouring scores, and where there is no room between, on the upper one. Below
        the lowest score and above the highest it lies halfway to 0 and to 1.
        """
        scores = sorted({score for score in self._good + self._anomalous if 0 <= score <= UNITS})
        if not scores:  # the mask decides them all, so one threshold is as good as another
            return [0.5]
        cuts = [scores[0] // 2, *(_halfway(low, high) for low, high in pairwise(scores))]
        if scores[-1] < UNITS:
            cuts.append(_halfway(scores[-1], UNITS))
        return [cut / UNITS for cut in cuts]


def deciding_score(score: float, mask_shows_anomaly: bool, combination: Combination) -> int:
    """What is compared with the threshold, in ten-thousandths, where the mask has a say in the verdict too.

    `score`: 0..1. NEVER or ALWAYS where the mask alone decides about this image.
    """
    combined = COMBINED[combination]
    above, below = combined(True, mask_shows_anomaly), combined(False, mask_shows_anomaly)
    if above == below:
        return ALWAYS if above else NEVER
    return round(score * UNITS)


class Target(Protocol):
    """What is asked of a threshold; its text says it to people."""

    def is_met(self, outcome: Outcome) -> bool: ...

    def cost(self, outcome: Outcome) -> tuple[Fraction | int, ...]:
        """Smaller is better. It falls short of the target by as little as can be, where it cannot meet it."""
        ...


@dataclass(frozen=True)
class MaxFalseReject:
    """At most this part (0..1) of the good images is rejected, and then as few anomalies as can be are missed."""

    limit: Fraction

    def is_met(self, outcome: Outcome) -> bool:
        return outcome.false_rejects <= self.limit * outcome.good

    def cost(self, outcome: Outcome) -> tuple[Fraction | int, ...]:
        if self.is_met(outcome):
            return (0, outcome.misses, outcome.false_rejects)
        return (1, outcome.false_rejects, outcome.misses)

    def __str__(self) -> str:
        return f"at most {percent(self.limit)} false rejects"


@dataclass(frozen=True)
class MaxMiss:
    """At most this part (0..1) of the anomalous images is missed, and then as few good ones as can be are rejected."""

    limit: Fraction

    def is_met(self, outcome: Outcome) -> bool:
        return outcome.misses <= self.limit * outcome.anomalous

    def cost(self, outcome: Outcome) -> tuple[Fraction | int, ...]:
        if self.is_met(outcome):
            return (0, outcome.false_rejects, outcome.misses)
        return (1, outcome.misses, outcome.false_rejects)

    def __str__(self) -> str:
        return f"at most {percent(self.limit)} misses"


@dataclass(frozen=True)
class BestF1:
    """The highest F1; of two that share it the one with fewer misses, since a miss leaves the factory."""

    def is_met(self, outcome: Outcome) -> bool:
        return True

    def cost(self, outcome: Outcome) -> tuple[Fraction | int, ...]:
        return (-outcome.f1, outcome.misses)

    def __str__(self) -> str:
        return "best F1"


@dataclass(frozen=True)
class CostRatio:
    """The lowest cost of all mistakes together; of two that share it the one with fewer misses."""

    miss: Fraction
    false_reject: Fraction

    def is_met(self, outcome: Outcome) -> bool:
        return True

    def cost(self, outcome: Outcome) -> tuple[Fraction | int, ...]:
        return (self.miss * outcome.misses + self.false_reject * outcome.false_rejects, outcome.misses)

    def __str__(self) -> str:
        return f"lowest cost, a miss to a false reject as {float(self.miss):g}:{float(self.false_reject):g}"


def tuned_threshold(scores: LabelledScores, target: Target) -> float:
    """The threshold (0..1, 4 decimals) that serves `target` best on these images.

    Where none meets the target it is the one that comes nearest; `target.is_met(scores.outcome(...))` tells.
    """
    return min(scores.cuts(), key=lambda cut: target.cost(scores.outcome(cut)))


def images_needed(limit: Fraction) -> int:
    """How many images it takes for a rate of `limit` to be more than none of them; 0 where that is what is asked."""
    return -(-limit.denominator // limit.numerator) if limit else 0


def percent(part: Fraction) -> str:
    """`part` (0..1) as people write it, as in "0.5%"."""
    return f"{float(part * 100):g}%"


def _halfway(low: int, high: int) -> int:
    """Above `low` and at most `high`, which is above `low`."""
    return (low + high + 1) // 2


def _ratio(part: int, whole: int) -> Fraction:
    return Fraction(part, whole) if whole else Fraction(0)
