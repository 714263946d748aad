"""The benchmark of serving: its arithmetic, its tables, and one very short run of it."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from benchmarks.serving.load import make_calls
from benchmarks.serving.measure import CLIENTS, Plan, spread
from benchmarks.serving.orders import Call, Order, Span, Verdict
from benchmarks.serving.results import Results, Subject, Turn, WrongAnswer, as_json, check_answers, ratio
from benchmarks.serving.run import Around, run
from benchmarks.serving.tables import Budget, budgets_table, figures_of, ratios_table

NORMAL = Verdict(0.25)
FLOOR = Subject("classification", (1280, 960), "floor", 1)
SPAN = Span(0.0, 10.0, 12.0)


def turn(*milliseconds: float, verdict: Verdict = NORMAL) -> Turn:
    """Calls that took so long and ended in time."""
    return Turn([Call(11.0, duration / 1000, verdict) for duration in milliseconds], SPAN)


def results(**turns: list[Turn]) -> Results:
    """The same turns with one client and with eight."""
    return {
        dataclasses.replace(FLOOR, contender=contender, clients=clients): found
        for contender, found in turns.items()
        for clients in (1, CLIENTS)
    }


def test_a_ratio_is_of_medians_and_its_spread_of_rounds() -> None:
    found = ratio([12.0, 30.0, 11.0], [10.0, 10.0, 11.0])
    assert (found.value, found.lowest, found.highest) == (1.2, 1.0, 3.0)
    assert str(found) == "1.20 (1.00 to 3.00)"


def test_the_rate_counts_calls_of_the_span_and_a_late_one_makes_it_longer() -> None:
    assert turn(1, 1, 1).per_second == 1.5
    assert Turn([Call(15.0, 5.0, NORMAL)], SPAN).per_second == 0.2


def test_budgets_are_told_as_kept_missed_or_stretched() -> None:
    at_most, at_least = Budget("low", 1.08, 1.05), Budget("high", 0.7, at_least=True)
    assert at_most.told(1.05) == ("low", "1.05", "<= 1.08", "<= 1.05", "stretch")
    assert at_most.told(1.06)[-1] == "kept"
    assert at_most.told(1.09)[-1] == "MISSED"
    assert at_least.told(0.71) == ("high", "0.71", ">= 0.7", "", "kept")
    assert at_least.told(0.69)[-1] == "MISSED"


def test_the_tables_show_each_contender_against_the_floor() -> None:
    found = results(floor=[turn(10, 10), turn(12, 12)], segment=[turn(11), turn(13.2)], fastapi=[turn(22), turn(22)])
    table = ratios_table(found, "github")
    assert "1.10 (1.10 to 1.10)" in table
    assert "0.50 (0.50 to 0.50)" in table
    figures = figures_of(found)
    assert figures["segment, 1280x960, 1 client: p50 / floor"] == pytest.approx(1.1)
    assert figures["segment, 1280x960, 1 client: p50 / FastAPI's"] == pytest.approx(0.55)
    budgets = budgets_table(figures, "github")
    assert "| segment, 1280x960, 1 client: p50 / floor " in budgets
    assert "4096x3000" not in budgets  # not measured
    assert {entry["contender"] for entry in json.loads(json.dumps(as_json(found)))} == {"floor", "segment", "fastapi"}


@pytest.mark.parametrize("verdict", [Verdict(0.26), Verdict(0.25, area=0.1), Verdict(0.25, is_refusal=True)])
def test_whoever_answers_otherwise_than_the_floor_ends_the_benchmark(verdict: Verdict) -> None:
    check_answers(results(floor=[turn(10)], segment=[turn(11, verdict=Verdict(0.2501))]))
    with pytest.raises(WrongAnswer, match="segment"):
        check_answers(results(floor=[turn(10)], segment=[turn(11), turn(11, verdict=verdict)]))


def test_clients_are_spread_over_the_processes() -> None:
    order = Order("segment", 5, 640, 480, "socket")
    processes = ["first", "second", "third"]
    assert [share.clients for _, share in spread(order, processes)] == [2, 2, 1]
    single = Order("segment", 1, 640, 480, "socket")
    assert [process for process, _ in spread(single, processes)] == ["first"]


def test_calls_before_and_after_the_span_do_not_count_and_a_clients_failure_is_told() -> None:
    now = time.monotonic()
    span = Span(now, now + 0.05, now + 0.15)
    calls = make_calls([lambda: time.sleep(0.01) or NORMAL] * 2, span)
    assert len(calls) >= 2
    assert all(call.ended >= span.counted_from and call.seconds >= 0.01 for call in calls)
    assert make_calls([lambda: NORMAL], Span(now - 2, now - 1, now), 0.0)  # one at least
    with pytest.raises(ZeroDivisionError):
        make_calls([lambda: 1 / 0], span)


def test_a_very_short_run_measures_everybody(tmp_path: Path) -> None:
    plan = Plan(sizes=[(64, 64)], rounds=1, seconds=0.05, seed=0)
    report = run(tmp_path, plan, Around(overload=0, idling=0, starts=0), ["segmentation"], peers=False)
    found = report.results["segmentation"]
    assert {(subject.contender, subject.clients) for subject in found} == {
        (contender, clients) for contender in ("floor", "segment", "message") for clients in (1, CLIENTS)
    }
    assert all(call.verdict.area > 0.05 for turns in found.values() for turn in turns for call in turn.calls)
    assert ratios_table(found, "simple").count("64x64") == 3
    assert report.figures["segmentation: memory of its worker, MB"] > 0
