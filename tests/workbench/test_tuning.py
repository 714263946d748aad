"""Thresholds from scores and labels: cases counted by hand, and what must hold of any."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workbench.tuning import (
    ALWAYS,
    NEVER,
    UNITS,
    BestF1,
    CostRatio,
    LabelledScores,
    MaxFalseReject,
    MaxMiss,
    Outcome,
    Target,
    deciding_score,
    images_needed,
    percent,
    tuned_threshold,
)

NONE = Fraction(0)
SEPARABLE = LabelledScores(good=[1000, 2000, 3000], anomalous=[5000, 6000])
#                          good: 1000 2000 3000      5500       anomalous: 2500      5000 6000
MIXED = LabelledScores(good=[1000, 2000, 3000, 5500], anomalous=[2500, 5000, 6000])


def of(good: int, anomalous: int, false_rejects: int, misses: int) -> Outcome:
    return Outcome(good, anomalous, false_rejects, misses)


# --- counting ---


@pytest.mark.parametrize(
    ("threshold", "false_rejects", "misses"),
    [(0.0, 4, 0), (0.1, 4, 0), (0.1001, 3, 0), (0.25, 2, 0), (0.2501, 2, 1), (0.55, 1, 2), (0.6, 0, 2), (0.6001, 0, 3)],
)
def test_a_score_that_equals_the_threshold_is_anomalous(threshold: float, false_rejects: int, misses: int) -> None:
    assert MIXED.outcome(threshold) == of(4, 3, false_rejects, misses)


@pytest.mark.parametrize(
    ("found", "false_rejects", "missed", "precision", "recall", "f1"),
    [
        (85, 15, 0, 0.85, 1.0, 0.919),
        (40, 60, 0, 0.40, 1.0, 0.571),
        (90, 10, 10, 0.90, 0.90, 0.90),
        (9, 1, 0, 0.9, 1.0, 0.947),
        (30, 70, 0, 0.30, 1.0, 0.46),
        (19, 1, 76, 0.95, 0.20, 0.33),
        (0, 0, 5, 0.0, 0.0, 0.0),
    ],
)
def test_precision_recall_and_f1(
    found: int, false_rejects: int, missed: int, precision: float, recall: float, f1: float
) -> None:
    outcome = of(100, found + missed, false_rejects, missed)
    assert float(outcome.precision) == pytest.approx(precision)
    assert float(outcome.recall) == pytest.approx(recall)
    assert float(outcome.f1) == pytest.approx(f1, abs=0.0051)


def test_no_images_of_a_kind_make_figures_of_0_and_no_error() -> None:
    empty = of(0, 0, 0, 0)
    assert (empty.precision, empty.recall, empty.f1) == (0, 0, 0)


# --- choosing ---


@pytest.mark.parametrize("target", [MaxFalseReject(NONE), MaxMiss(NONE), BestF1(), CostRatio(Fraction(1), Fraction(1))])
def test_kinds_that_can_be_parted_are_parted_halfway_whatever_is_asked(target: Target) -> None:
    assert tuned_threshold(SEPARABLE, target) == 0.4


@pytest.mark.parametrize(
    ("target", "threshold", "false_rejects", "misses"),
    [
        (MaxFalseReject(NONE), 0.575, 0, 2),
        (MaxFalseReject(Fraction(1, 4)), 0.4, 1, 1),
        (MaxFalseReject(Fraction(1, 2)), 0.225, 2, 0),
        (MaxFalseReject(Fraction(1)), 0.225, 2, 0),  # more false rejects would find no more
        (MaxMiss(NONE), 0.225, 2, 0),
        (MaxMiss(Fraction(1, 3)), 0.4, 1, 1),
        (MaxMiss(Fraction(2, 3)), 0.575, 0, 2),
        (MaxMiss(Fraction(1)), 0.575, 0, 2),
        (BestF1(), 0.225, 2, 0),  # 6/8; at 0.4 it is 4/6
        (CostRatio(Fraction(3), Fraction(1)), 0.225, 2, 0),
        (CostRatio(Fraction(1), Fraction(3)), 0.575, 0, 2),
        (CostRatio(Fraction(1), Fraction(1)), 0.225, 2, 0),  # three thresholds cost 2: the one with fewest misses
    ],
)
def test_each_target_on_mixed_scores(target: Target, threshold: float, false_rejects: int, misses: int) -> None:
    assert tuned_threshold(MIXED, target) == threshold
    assert MIXED.outcome(threshold) == of(4, 3, false_rejects, misses)
    assert target.is_met(MIXED.outcome(threshold))


def test_equal_scores_of_both_kinds_go_the_same_way() -> None:
    tied = LabelledScores(good=[5000, 5000], anomalous=[5000, 7000])
    assert tuned_threshold(tied, MaxMiss(NONE)) == 0.25  # all of them are anomalous
    assert tuned_threshold(tied, MaxFalseReject(NONE)) == 0.6
    assert tied.outcome(0.6) == of(2, 2, 0, 1)


def test_neighbours_without_room_between_are_parted_at_the_upper_one() -> None:
    assert tuned_threshold(LabelledScores([4999], [5000]), BestF1()) == 0.5
    assert tuned_threshold(LabelledScores([4998], [5000]), BestF1()) == 0.4999


def test_good_images_at_1_cannot_be_let_through_and_the_nearest_is_taken() -> None:
    scores, target = LabelledScores(good=[100, UNITS, UNITS], anomalous=[200, 9000]), MaxFalseReject(NONE)
    threshold = tuned_threshold(scores, target)
    assert scores.outcome(threshold) == of(3, 2, 2, 0)  # what is out of reach anyhow costs no miss on top
    assert threshold == 0.015
    assert not target.is_met(scores.outcome(threshold))


def test_it_is_told_when_a_threshold_parts_nothing() -> None:
    assert [SEPARABLE.is_below_all(t) for t in (0.0, 0.1, 0.1001)] == [True, True, False]
    assert [SEPARABLE.is_above_all(t) for t in (0.6, 0.6001, 1.0)] == [False, True, True]


# --- packages whose mask has a say ---


@pytest.mark.parametrize(
    ("combination", "mask_shows_anomaly", "deciding"),
    [
        ("class", False, 1234),
        ("class", True, 1234),
        ("class and mask", True, 1234),
        ("class and mask", False, NEVER),
        ("class or mask", True, ALWAYS),
        ("class or mask", False, 1234),
        ("mask", True, ALWAYS),
        ("mask", False, NEVER),
    ],
)
def test_where_the_mask_alone_decides_no_threshold_changes_the_verdict(
    combination: str, mask_shows_anomaly: bool, deciding: int
) -> None:
    assert deciding_score(0.12341, mask_shows_anomaly, combination) == deciding  # type: ignore[arg-type]


def test_misses_that_the_mask_decides_are_counted_at_every_threshold() -> None:
    scores = LabelledScores(good=[1000, ALWAYS], anomalous=[NEVER, 5000])
    assert scores.outcome(0.0) == of(2, 2, 2, 1)
    assert scores.outcome(1.0) == of(2, 2, 1, 2)
    assert tuned_threshold(scores, MaxMiss(NONE)) == 0.3
    assert not MaxMiss(NONE).is_met(scores.outcome(0.3))


def test_images_that_the_mask_decides_all_leave_the_choice_free() -> None:
    assert tuned_threshold(LabelledScores([NEVER], [ALWAYS]), BestF1()) == 0.5


# --- words ---


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (MaxFalseReject(Fraction("0.5") / 100), "at most 0.5% false rejects"),
        (MaxMiss(NONE), "at most 0% misses"),
        (BestF1(), "best F1"),
        (CostRatio(Fraction("20"), Fraction("0.5")), "lowest cost, a miss to a false reject as 20:0.5"),
    ],
)
def test_targets_say_what_was_asked_for(target: Target, words: str) -> None:
    assert str(target) == words


def test_how_many_images_make_a_rate_visible() -> None:
    assert images_needed(Fraction("0.5") / 100) == 200
    assert images_needed(Fraction("0.3") / 100) == 334
    assert images_needed(NONE) == 0
    assert percent(Fraction(1, 3)) == "33.3333%"


# --- what must hold of any ---

scores_of = st.lists(st.integers(0, UNITS) | st.sampled_from([0, 1, 4999, 5000, 5001, UNITS]), min_size=1, max_size=12)
limits = st.fractions(0, 1, max_denominator=12)
targets = st.one_of(
    st.builds(MaxFalseReject, limits),
    st.builds(MaxMiss, limits),
    st.just(BestF1()),
    st.builds(CostRatio, st.integers(1, 50).map(Fraction), st.integers(1, 50).map(Fraction)),
)


@given(scores_of, scores_of, targets)
def test_no_threshold_serves_a_target_better_than_the_one_chosen(
    good: list[int], anomalous: list[int], target: Target
) -> None:
    scores = LabelledScores(good, anomalous)
    chosen = tuned_threshold(scores, target)
    assert 0 <= chosen <= 1 and chosen == round(chosen, 4)
    # Between two scores nothing changes: these are all there are.
    everything = {0, UNITS, *good, *anomalous, *(min(score + 1, UNITS) for score in (*good, *anomalous))}
    outcomes = [scores.outcome(threshold / UNITS) for threshold in everything]
    assert target.cost(scores.outcome(chosen)) == min(target.cost(outcome) for outcome in outcomes)
    assert target.is_met(scores.outcome(chosen)) == any(target.is_met(outcome) for outcome in outcomes)


@given(scores_of, scores_of, limits)
def test_the_rate_that_was_asked_for_is_the_rate_on_the_images_themselves(
    good: list[int], anomalous: list[int], limit: Fraction
) -> None:
    """Counted anew, as the service compares: score >= threshold, both on 4 decimals."""
    threshold = tuned_threshold(LabelledScores(good, anomalous), MaxMiss(limit))
    missed = sum(not round(score / UNITS, 4) >= round(threshold, 4) for score in anomalous)
    assert missed <= limit * len(anomalous)
    threshold = tuned_threshold(LabelledScores(good, anomalous), MaxFalseReject(limit))
    rejected = sum(round(score / UNITS, 4) >= round(threshold, 4) for score in good)
    assert rejected <= max(limit * len(good), good.count(UNITS))  # no threshold is above a score of 1
