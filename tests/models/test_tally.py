"""What a model counts of its calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.images.detection import Detection, StageTimes
from agent.models.tally import ANOMALOUS, NORMAL, SCORES, SECONDS, STEPS, Distribution, Tally

QUICK = StageTimes()


def detection(score: float, *, is_anomalous: bool = False, times: StageTimes = QUICK) -> Detection:
    return Detection(is_anomalous, 0.5, score, 0.5, times=times)


def in_buckets(distribution: Distribution) -> dict[float, int]:
    """What is not empty, by upper bound."""
    bounds = (*distribution.bounds, float("inf"))
    return {bound: count for bound, count in zip(bounds, distribution.counts, strict=True) if count}


def test_an_answer_counts_once_everywhere() -> None:
    tally = Tally()
    tally.answered(detection(0.72, is_anomalous=True, times=StageTimes(0.0004, 0.009, 0.0015)), waited=0.3, took=31.0)
    counted = tally.counted()
    assert counted.verdicts == {NORMAL: 0, ANOMALOUS: 1}
    assert counted.refusals == {}
    assert in_buckets(counted.scores) == {0.75: 1}
    assert in_buckets(counted.answers) == {float("inf"): 1}
    assert counted.answers.total == 31.0
    assert {step: in_buckets(seconds) for step, seconds in counted.steps.items()} == {
        "waiting": {0.5: 1},
        "preprocessing": {0.0005: 1},
        "inferring": {0.01: 1},
        "postprocessing": {0.002: 1},
    }
    assert tuple(counted.steps) == STEPS


@pytest.mark.parametrize(("score", "bound"), [(0.0, 0.05), (0.05, 0.05), (0.0501, 0.1), (0.5, 0.5), (1.0, 1.0)])
def test_a_score_at_a_bound_belongs_below_it(score: float, bound: float) -> None:
    tally = Tally()
    tally.answered(detection(score), 0.0, 0.0)
    assert in_buckets(tally.counted().scores) == {bound: 1}


def test_bounds_rise_and_cover_scores_and_the_default_time_limit() -> None:
    assert list(SCORES) == sorted(set(SCORES)) and SCORES[-1] == 1.0
    assert list(SECONDS) == sorted(set(SECONDS)) and SECONDS[-1] == 30.0


def test_refusals_count_by_code_and_reason_and_are_no_answers() -> None:
    tally = Tally()
    for reason in ("QueueFull", "QueueFull", "TooManyCalls"):
        tally.refused("RESOURCE_EXHAUSTED", reason)
    counted = tally.counted()
    assert counted.refusals == {("RESOURCE_EXHAUSTED", "QueueFull"): 2, ("RESOURCE_EXHAUSTED", "TooManyCalls"): 1}
    assert sum(counted.verdicts.values()) == sum(counted.scores.counts) == 0


def test_what_was_told_does_not_change_any_more() -> None:
    tally = Tally()
    before = tally.counted()
    tally.answered(detection(0.1), 0.0, 0.0)
    tally.refused("INTERNAL", "Unexpected")
    assert before == Tally().counted() != tally.counted()


def test_no_count_is_lost_where_many_calls_end_at_once() -> None:
    tally = Tally()

    def count(number: int) -> None:
        tally.answered(detection(0.25, is_anomalous=number % 2 == 1), 0.25, 0.25)
        tally.refused("INTERNAL", "Unexpected")
        counted = tally.counted()  # of one moment: all that was counted of an answer, or nothing
        assert sum(counted.verdicts.values()) == sum(counted.scores.counts) == sum(counted.answers.counts)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(4000)))
    counted = tally.counted()
    assert counted.verdicts == {NORMAL: 2000, ANOMALOUS: 2000}
    assert counted.refusals == {("INTERNAL", "Unexpected"): 4000}
    assert counted.scores.total == 1000.0
