"""From an answer to the camera client's verdict."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from camera_client.inspection import Decision
from camera_client.rules import Debounce, decide
from camera_client.settings import Rules


def answer(is_anomalous: bool = True, confidence: float = 0.8, score: float = 0.8, **areas: float) -> Any:
    found = [SimpleNamespace(name=name, total_percentage_area=area) for name, area in areas.items()]
    background = SimpleNamespace(name="background", total_percentage_area=1 - sum(areas.values()))
    return SimpleNamespace(
        is_anomalous=is_anomalous,
        confidence=confidence,
        anomaly_score=score,
        anomaly_threshold=0.5,
        anomalies=[background, *found],
    )


@pytest.mark.parametrize(
    ("rules", "result", "verdict"),
    [
        (Rules(), answer(), "reject"),
        (Rules(), answer(is_anomalous=False), "pass"),
        (Rules(confidence=0.8), answer(), "reject"),
        (Rules(confidence=0.81), answer(), "uncertain"),
        (Rules(confidence=0.81), answer(is_anomalous=False), "pass"),
        (Rules(area_limits={"dent": 0.02}), answer(dent=0.03), "reject"),
        (Rules(area_limits={"dent": 0.02}), answer(dent=0.02), "pass"),
        (Rules(area_limits={"dent": 0.02}), answer(scratch=0.5), "pass"),
        (Rules(area_limits={"dent": 0.02}), answer(is_anomalous=False, dent=0.5), "pass"),
        (Rules(area_limits={"dent": 0.02}, confidence=0.9), answer(dent=0.5), "uncertain"),
        (Rules(most_types=1), answer(dent=0.01), "pass"),
        (Rules(most_types=1), answer(dent=0.01, scratch=0.01), "reject"),
        (Rules(most_types=0), answer(dent=0.01), "reject"),
        (Rules(area_limits={"dent": 0.5}, most_types=1), answer(dent=0.01, scratch=0.01), "reject"),
        (Rules(uncertain_band=0.1), answer(score=0.55), "uncertain"),
        (Rules(uncertain_band=0.1), answer(is_anomalous=False, score=0.45), "uncertain"),
        (Rules(uncertain_band=0.1), answer(score=0.65), "reject"),
    ],
)
def test_rules_are_gated_by_the_verdict_and_its_confidence(rules: Rules, result: Any, verdict: str) -> None:
    assert decide(result, rules).verdict == verdict


def test_the_reason_names_what_was_found_and_the_limit() -> None:
    assert decide(answer(dent=0.031), Rules(area_limits={"dent": 0.02})).reason == "dent covers 3.10%, more than 2.00%"


@pytest.mark.parametrize(
    ("needed", "out_of", "verdicts", "confirmed"),
    [
        (1, 1, "prpu", "prpu"),
        (2, 3, "rppp", "uppp"),
        (2, 3, "prprp", "puprp"),
        (2, 3, "rrppp", "urrpp"),
        (1, 2, "rpp", "rrp"),
        (3, 3, "rrrp", "uurp"),
        (2, 2, "rur", "uuu"),
    ],
)
def test_a_rejection_is_confirmed_by_n_of_the_last_m(needed: int, out_of: int, verdicts: str, confirmed: str) -> None:
    names = {"p": "pass", "r": "reject", "u": "uncertain"}
    debounce = Debounce(Rules(reject_after=needed, out_of=out_of))
    told = [debounce.confirm(Decision(names[letter], "")).verdict[0] for letter in verdicts]
    assert "".join(told) == confirmed
