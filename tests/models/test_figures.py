"""What is told of a model in figures."""

from __future__ import annotations

import pytest

from agent.backends.base import STAGES, Stage
from agent.errors import ModelNotLoaded
from agent.models import keeper
from agent.models.admission import Caller
from agent.models.device_threshold import DeviceThreshold
from agent.models.fleet import Fleet
from agent.models.keeper import DEATHS_ALLOWED
from agent.models.lifecycle import ModelStatus
from tests.support.fake_worker import Plan, eventually, happens, image_request
from tests.support.model_bench import FAILED, RUNNING, SETTINGS, Bench, becomes, model_in, says, wait_in_line


@pytest.mark.parametrize("status", list(ModelStatus))
def test_figures_are_told_in_every_state(status: ModelStatus, bench: Bench) -> None:
    with model_in(status, bench) as model:
        figures = model.figures()
        assert (figures.component, figures.status) == ("model", status)
        assert (figures.worker is not None) is (status in (ModelStatus.RUNNING, ModelStatus.STOPPING))
        assert (figures.restarts, figures.threshold) == (0, 0.5)


@pytest.mark.parametrize("stage", STAGES)
def test_a_model_that_is_loaded_tells_what_it_is_at_and_one_that_runs_nothing(stage: Stage, bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.plan = Plan(may_open=gate, progress=("...",), stage=stage)
    model = bench.model()
    assert model.figures().stage is None
    model.start()
    happens(bench.workers.number(0).opening)
    assert model.figures().stage == stage
    gate.set()
    becomes(model, RUNNING)
    assert model.figures().stage is None


@pytest.mark.parametrize("is_taken", [True, False])
def test_an_engine_of_the_next_version_is_told_while_it_is_built(is_taken: bool, bench: Bench) -> None:
    model, gate = bench.running(), bench.gate()
    refusal = None if is_taken else ModelNotLoaded("Runtime", "it is odd")
    bench.workers.plan = Plan(may_open=gate, progress=("...",), stage="building", refuses_to_open=refusal)
    model.use(bench.record("2"))
    happens(bench.workers.number(1).opening)
    assert (model.figures().status, model.figures().stage) == (RUNNING, "building")
    gate.set()
    says(model, "version 2.0.0, fake" if is_taken else "it is odd")
    assert model.figures().stage is None


def test_the_worker_on_duty_is_told_with_what_it_holds_and_how_long_it_took_to_load(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.plan = Plan(may_open=gate)
    model = bench.model()
    model.start()
    worker = bench.workers.number(0)
    worker.opening.wait()
    assert model.figures().worker is None
    worker.size = 12345
    gate.set()
    becomes(model, RUNNING)
    told = model.figures().worker
    assert told is not None
    assert (told.served_by.version, told.served_by.runs_on.device, told.memory) == ("1.0.0", "CPU", 12345)
    assert told.load_seconds > 0


def test_calls_in_hand_and_calls_that_wait_are_told_apart(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.plan = Plan(may_answer=gate)
    model = bench.running()
    calls = [bench.threads.submit(model.detect, image_request(), Caller()) for _ in range(SETTINGS.slots + 3)]
    wait_in_line(model, 3)
    figures = model.figures()
    assert (figures.calls_in_hand, figures.calls_waiting) == (SETTINGS.slots, 3)
    gate.set()
    for call in calls:
        call.result()
    figures = model.figures()
    assert (figures.calls_in_hand, figures.calls_waiting) == (0, 0)
    assert sum(figures.counted.verdicts.values()) == len(calls)
    assert figures.counted.steps["waiting"].total > 0


def test_each_worker_that_is_replaced_counts_and_the_counts_outlive_it(bench: Bench) -> None:
    model = bench.running()
    model.detect(image_request(), Caller())
    bench.workers.number(0).die()
    bench.workers.number(1).is_open.wait()
    eventually("the new worker to be on duty", lambda: model.figures().worker is not None)
    assert model.figures().restarts == 1
    assert model.figures().counted.verdicts["normal"] == 1


def test_a_model_that_crashes_too_often_has_counted_every_restart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "BACK_OFF", (0.0,))
    model = bench.running()
    for number in range(DEATHS_ALLOWED + 1):
        bench.workers.number(number).is_open.wait()
        bench.workers.number(number).die()
    becomes(model, FAILED)
    assert model.figures().restarts == DEATHS_ALLOWED
    assert model.figures().worker is None


def test_a_call_that_is_tried_a_second_time_counts_once(bench: Bench) -> None:
    bench.workers.next.extend([Plan(dies_on_call=0), Plan()])
    model = bench.running()
    model.detect(image_request(), Caller())
    assert sum(model.figures().counted.verdicts.values()) == 1


def test_the_threshold_is_the_one_in_force(bench: Bench) -> None:
    model = bench.running()
    model.use_threshold(threshold(0.25, version="1.0.0"))
    assert model.figures().threshold == 0.25
    model.use_threshold(threshold(0.25, version="9.0.0"))
    assert model.figures().threshold == 0.5, "it was set for another version"


def test_a_package_that_cannot_be_read_has_no_threshold(bench: Bench) -> None:
    assert bench.model("bad").figures().threshold is None


def threshold(value: float, version: str) -> DeviceThreshold:
    return DeviceThreshold("model", version, value, "2026-01-01T12:00:00Z", "anna")


# --- the fleet


def test_figures_go_with_the_model_and_nothing_is_kept_of_names_that_clients_make_up(bench: Bench) -> None:
    fleet = Fleet(bench.workers, SETTINGS)
    records = {name: bench.record(component=name) for name in ("nut", "bolt")}
    fleet.apply(records)
    assert [model.component for model in fleet.figures()] == ["bolt", "nut"]
    for component in ("bolt", "washer", "", "bolt\n"):
        fleet.count_refusal(component, "INVALID_ARGUMENT", "NoImage")
    assert {model.component: dict(model.counted.refusals) for model in fleet.figures()} == {
        "bolt": {("INVALID_ARGUMENT", "NoImage"): 1},
        "nut": {},
    }
    del records["bolt"]
    fleet.apply(records)
    fleet.count_refusal("bolt", "NOT_FOUND", "ModelNotFound")  # of a call that was under way
    assert [model.component for model in fleet.figures()] == ["nut"]
    fleet.close()
