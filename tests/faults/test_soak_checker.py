"""The judge of long runs, on series whose verdict is known."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.faults.soak_checker import LEAST_SAMPLES, MB, Sample, judge

ALLOWED = 10.0
"""Bytes per call: 1 MB per 100,000."""


def series(
    resident: Callable[[int], float], *, count: int = 400, each: int = 1000, noise: float = MB, seed: int = 1
) -> list[Sample]:
    """`count` samples, `each` calls apart; `resident` tells the bytes after so many calls, without the noise."""
    drawn = random.Random(seed)
    calls = [number * each for number in range(count)]
    return [Sample(step, round(100 * MB + resident(step) + drawn.uniform(-noise, noise)), 40, 20) for step in calls]


def test_a_process_that_holds_what_it_held_is_shown_flat():
    trend = judge(series(lambda call: 0), ALLOWED)
    assert trend.complaints == []
    assert trend.is_shown_flat


def test_a_leak_of_one_kilobyte_per_call_is_flagged_within_thirty_thousand_calls():
    trend = judge(series(lambda call: 1024 * call, count=300, each=100), ALLOWED)
    assert trend.complaints
    assert trend.slope == pytest.approx(1024, rel=0.2)


def test_a_leak_of_twenty_bytes_per_call_is_flagged_in_the_long_run():
    assert judge(series(lambda call: 20 * call, count=2600), ALLOWED).complaints


def test_a_growth_within_what_is_allowed_is_not_flagged():
    assert not judge(series(lambda call: 5 * call), ALLOWED).complaints


def test_what_fills_up_in_the_warm_up_is_not_flagged():
    assert not judge(series(lambda call: 80 * MB * min(1.0, call / 90_000)), ALLOWED).complaints


def test_a_step_of_thirty_megabytes_after_the_middle_is_flagged():
    assert judge(series(lambda call: 30 * MB * (call > 300_000)), ALLOWED).complaints


def test_a_step_is_no_surprise_before_memory_has_settled():
    assert not judge(series(lambda call: 30 * MB * (call > 300_000)), ALLOWED, settled=1_000_000).complaints


def test_step_after_step_is_flagged():
    assert judge(series(lambda call: 8 * MB * (call // 40_000)), ALLOWED).complaints


def test_a_gross_leak_is_flagged_before_memory_has_settled():
    assert judge(series(lambda call: 1024 * call), ALLOWED, settled=1_000_000).complaints


def test_single_outliers_are_not_flagged():
    samples = series(lambda call: 150 * MB * (call % 40_000 == 0))
    assert not judge(samples, ALLOWED).complaints


@pytest.mark.parametrize("seed", range(20))
def test_a_short_noisy_run_is_neither_flagged_nor_shown_flat(seed):
    trend = judge(series(lambda call: 0, count=LEAST_SAMPLES, each=50, seed=seed), ALLOWED)
    assert trend.complaints == []
    assert not trend.is_shown_flat


@pytest.mark.parametrize("field", ["descriptors", "threads"])
def test_one_descriptor_or_thread_more_is_flagged(field):
    samples = series(lambda call: 0)
    held = [{"descriptors": 40, "threads": 20, field: 60 + (sample.steps > 300_000)} for sample in samples]
    grown = [Sample(sample.steps, sample.resident, **now) for sample, now in zip(samples, held, strict=True)]
    assert len(judge(grown, ALLOWED).complaints) == 1


def test_threads_of_pools_that_still_grow_are_not_flagged():
    grown = [Sample(sample.steps, sample.resident, 40, 20 + sample.steps // 100_000) for sample in series(lambda _: 0)]
    assert judge(grown, ALLOWED, spare_threads=4).complaints == []


def test_a_verdict_is_told_in_megabytes():
    told = judge(series(lambda call: 1024 * call, noise=0), ALLOWED).told(100_000, "100 k calls")
    assert told == "+97.7 ± 0 MB per 100 k calls, +117.2 MB from the middle (grows)"


def test_too_few_samples_are_refused():
    with pytest.raises(AssertionError, match="tell nothing"):
        judge(series(lambda call: 0, count=LEAST_SAMPLES - 1), ALLOWED)
