"""A model that is judged by the threshold of its device: live, for its version, through everything that happens."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from agent.errors import ModelNotLoaded
from agent.images.detection import Detection
from agent.models.admission import Caller
from agent.models.device_threshold import DeviceThreshold, IgnoredThreshold
from agent.models.fleet import Fleet
from agent.models.lifecycle import ModelStatus
from agent.models.served_model import ServedModel
from agent.workers.handle import ImageToInspect
from tests.support.fake_worker import PATIENCE, Plan, eventually, happens, image_request
from tests.support.model_bench import SETTINGS, Bench, becomes, says

OF_PACKAGE = 0.5


def judged_by(image: ImageToInspect) -> Detection:
    """What a worker answers: the threshold that came with the image, else its package's."""
    threshold = OF_PACKAGE if image.threshold is None else image.threshold
    return Detection(is_anomalous=False, confidence=1.0, score=0.0, threshold=threshold)


@pytest.fixture(autouse=True)
def _workers_tell_their_threshold(bench: Bench) -> None:
    bench.workers.plan = Plan(answer=judged_by)


def on_device(threshold: float, version: str = "1.0.0") -> DeviceThreshold:
    return DeviceThreshold("model", version, threshold, "2026-01-01T12:00:00Z", "anna")


def threshold_of(model: ServedModel) -> float:
    return model.detect(image_request(), Caller()).detection.threshold


def test_the_next_image_is_judged_by_a_threshold_that_was_just_set_or_taken_back(bench: Bench) -> None:
    model = bench.running()
    assert threshold_of(model) == OF_PACKAGE
    for threshold in (0.62, 0.0, 1.0):
        model.use_threshold(on_device(threshold))
        assert threshold_of(model) == threshold
    model.use_threshold(None)
    assert threshold_of(model) == OF_PACKAGE
    assert len(bench.workers.opened) == 1  # the same worker all the while


def test_the_status_message_tells_of_it_while_the_model_runs(bench: Bench) -> None:
    model = bench.running()
    usual = model.describe().message
    model.use_threshold(on_device(0.62))
    assert model.describe().message == f"{usual}; threshold 0.6200 set on this device, the package says 0.5000"
    model.use_threshold(None)
    assert model.describe().message == usual
    model.use_threshold(on_device(0.62))
    model.stop()
    assert model.describe().message == ""


def test_a_new_worker_judges_by_it_from_its_first_image(bench: Bench) -> None:
    model = bench.running()
    model.use_threshold(on_device(0.62))
    bench.workers.number(0).die()
    happens(bench.workers.number(1).is_open)
    assert threshold_of(model) == 0.62
    says(model, "fake runtime of 1 on CPU; threshold 0.6200 set on this device")


def test_a_call_that_is_tried_again_keeps_it(bench: Bench) -> None:
    bench.workers.next.append(Plan(dies_on_call=0))
    model = bench.running()
    model.use_threshold(on_device(0.62))
    assert threshold_of(model) == 0.62
    assert [worker.calls for worker in bench.workers.opened] == [1, 1]


def test_it_is_kept_through_stop_and_start(bench: Bench) -> None:
    model = bench.running()
    model.use_threshold(on_device(0.62))
    model.stop()
    model.start()
    says(model, "threshold 0.6200 set on this device")
    assert threshold_of(model) == 0.62


def test_it_is_kept_by_a_model_that_failed(bench: Bench) -> None:
    bench.workers.next.append(Plan(refuses_to_open=ModelNotLoaded("Runtime", "it is odd")))
    model = bench.model()
    model.use_threshold(on_device(0.62))
    model.start()
    becomes(model, ModelStatus.FAILED)
    assert "0.62" not in model.describe().message
    model.start()
    becomes(model, ModelStatus.RUNNING)
    assert threshold_of(model) == 0.62


def test_of_two_calls_at_once_each_is_judged_by_the_threshold_it_found(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.plan = Plan(may_answer=gate, answer=judged_by)
    model = bench.running()
    model.use_threshold(on_device(0.62))
    first = bench.threads.submit(threshold_of, model)
    bench.workers.number(0).wait_for_calls(1)
    model.use_threshold(on_device(0.4))
    second = bench.threads.submit(threshold_of, model)
    bench.workers.number(0).wait_for_calls(2)
    model.use_threshold(None)
    gate.set()
    assert (first.result(PATIENCE), second.result(PATIENCE)) == (0.62, 0.4)
    assert threshold_of(model) == OF_PACKAGE


def test_another_version_is_judged_by_its_own_and_says_so_until_the_first_one_is_back(bench: Bench) -> None:
    model = bench.running("1")
    model.use_threshold(on_device(0.62))
    model.use(bench.record("2"))
    says(model, "the threshold 0.6200 set on this device for version 1.0.0 is not applied to version 2.0.0")
    assert threshold_of(model) == OF_PACKAGE
    model.use(bench.record("1"))
    says(model, "version 1.0.0, fake runtime of 1 on CPU; threshold 0.6200 set on this device")
    assert threshold_of(model) == 0.62


def test_while_a_new_version_loads_the_old_one_is_judged_as_before(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.of_package["2"] = Plan(may_open=gate, answer=judged_by)
    model = bench.running("1")
    model.use_threshold(on_device(0.62, version="2.0.0"))  # measured ahead of the update
    model.use(bench.record("2"))
    happens(bench.workers.number(1).opening)
    assert threshold_of(model) == OF_PACKAGE
    gate.set()
    says(model, "version 2.0.0, fake runtime of 2 on CPU; threshold 0.6200 set on this device")
    assert threshold_of(model) == 0.62


def test_a_file_that_cannot_be_used_changes_nothing_and_is_told_of_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    model = bench.running()
    for _ in range(3):
        model.use_threshold(IgnoredThreshold("it is odd"))
    assert threshold_of(model) == OF_PACKAGE
    assert "the threshold set on this device is ignored (it is odd)" in model.describe().message
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert warnings == ["model model: the threshold set on this device is ignored: it is odd"]


def test_each_change_is_one_line_of_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent.models.served_model")
    model = bench.model()
    caplog.clear()
    for threshold in (None, on_device(0.62), on_device(0.62), None):
        model.use_threshold(threshold)
    assert [entry.getMessage() for entry in caplog.records] == [
        "model model: threshold 0.6200 set on this device for version 1.0.0",
        "model model: the package's threshold holds again",
    ]


def test_the_fleet_hands_thresholds_on_without_touching_workers(bench: Bench) -> None:
    fleet = Fleet(bench.workers, SETTINGS, auto_start=True)
    records = {"model": bench.record("1")}
    try:
        # Also those of components that are not there: they harm nobody.
        fleet.apply(records, {"model": on_device(0.62), "nobody": on_device(0.7)})
        eventually("it to run", lambda: fleet.describe("model").status is ModelStatus.RUNNING)
        first = fleet.detect("model", image_request(), Caller()).detection.threshold
        fleet.apply(records, {})
        second = fleet.detect("model", image_request(), Caller()).detection.threshold
        assert (first, second) == (0.62, OF_PACKAGE)
        assert [model.component for model in fleet.list()] == ["model"]
        assert len(bench.workers.opened) == 1
    finally:
        fleet.close()


def test_a_model_that_left_the_registry_and_came_back_is_judged_by_it(bench: Bench) -> None:
    fleet = Fleet(bench.workers, SETTINGS, auto_start=True)
    records, thresholds = {"model": bench.record("1")}, {"model": on_device(0.62)}
    try:
        fleet.apply(records)
        eventually("it to run", lambda: fleet.describe("model").status is ModelStatus.RUNNING)
        fleet.apply({}, thresholds)
        fleet.apply(records, thresholds)
        eventually("it to run again", lambda: fleet.describe("model").status is ModelStatus.RUNNING)
        assert fleet.detect("model", image_request(), Caller()).detection.threshold == 0.62
    finally:
        fleet.close()


def test_no_file_is_touched_by_a_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bench.running()
    model.use_threshold(on_device(0.62))

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("a call looked at the disk")

    for name in ("open", "stat", "scandir"):
        monkeypatch.setattr(os, name, touched)
    monkeypatch.setattr(Path, "open", touched)
    called = bench.threads.submit(threshold_of, model)
    assert called.result(PATIENCE) == 0.62
