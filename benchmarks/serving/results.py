"""What was measured, and the arithmetic on it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.serving.model import Task
from benchmarks.serving.orders import Call, Contender, Span

SCORES_AGREE = 0.002
"""How far answers may differ; the agent rounds scores to 4 decimals."""


class WrongAnswer(Exception):
    """Somebody did something else than the floor: comparing times would mean nothing."""


@dataclass(frozen=True)
class Subject:
    """Who was measured doing what."""

    task: Task
    size: tuple[int, int]
    """Width and height."""
    contender: Contender
    clients: int

    def of(self, contender: Contender) -> Subject:
        """The same of another contender."""
        return Subject(self.task, self.size, contender, self.clients)


@dataclass(frozen=True)
class Turn:
    """A subject's turn in one round."""

    calls: list[Call]
    """One at least."""
    span: Span

    @property
    def latencies(self) -> list[float]:
        """Seconds."""
        return [call.seconds for call in self.calls]

    @property
    def per_second(self) -> float:
        """Calls. A call that came late for the span, since no other came in time, makes it longer."""
        end = max(self.span.end, *(call.ended for call in self.calls))
        return len(self.calls) / (end - self.span.counted_from)


Results = dict[Subject, list[Turn]]
"""For each subject its turns, one of each round."""


@dataclass(frozen=True)
class Ratio:
    """Of two medians over the rounds, and the lowest and the highest ratio of a round."""

    value: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.lowest:.2f} to {self.highest:.2f})"


def ratio(values: Sequence[float], of_floor: Sequence[float]) -> Ratio:
    """One value of each round, in the same order."""
    by_round = [value / floor for value, floor in zip(values, of_floor, strict=True)]
    return Ratio(statistics.median(values) / statistics.median(of_floor), min(by_round), max(by_round))


def percentile(values: Iterable[float], percent: float) -> float:
    return float(np.percentile(list(values), percent))


def medians(turns: Sequence[Turn]) -> list[float]:
    """The median latency of each turn, in seconds."""
    return [statistics.median(turn.latencies) for turn in turns]


def rates(turns: Sequence[Turn]) -> list[float]:
    """Calls per second of each turn."""
    return [turn.per_second for turn in turns]


def all_latencies(turns: Sequence[Turn]) -> list[float]:
    """Of all rounds together, in seconds: a percentile of 99 needs many."""
    return [latency for turn in turns for latency in turn.latencies]


def check_answers(results: Results, scores_agree: float = SCORES_AGREE) -> None:
    """Raises WrongAnswer where a contender's answer differs from the floor's to the same picture, its score by more
    than `scores_agree`, or its area by more than five times that."""
    for subject, turns in results.items():
        expected = results[subject.of("floor")][0].calls[0].verdict
        for verdict in {call.verdict for turn in turns for call in turn.calls}:
            if (
                verdict.is_refusal
                or abs(verdict.score - expected.score) > scores_agree
                or abs(verdict.area - expected.area) > 5 * scores_agree
            ):
                raise WrongAnswer(f"{subject} answered {verdict}; the floor says {expected}")


def as_json(results: Results) -> list[dict[str, object]]:
    """Each subject with its figures of every round, times in milliseconds."""
    return [
        {
            "size": subject.size,
            "contender": subject.contender,
            "clients": subject.clients,
            "p50": [round(seconds * 1000, 3) for seconds in medians(turns)],
            "p99": round(percentile(all_latencies(turns), 99) * 1000, 3),
            "per_second": [round(rate, 2) for rate in rates(turns)],
        }
        for subject, turns in results.items()
    ]
