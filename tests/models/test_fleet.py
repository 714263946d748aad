"""All models together: when the agent is asked to stop, and when a deployment mends a model."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.errors import AgentStops
from agent.models.admission import Caller
from agent.models.fleet import Fleet
from agent.models.lifecycle import ModelStatus
from agent.models.registry import Record
from tests.support.fake_worker import NORMAL, PATIENCE, Plan, eventually, image_request
from tests.support.model_bench import SETTINGS, Bench
from tests.support.packages import make_package


def test_a_fleet_that_drains_answers_what_it_has_and_refuses_more(bench: Bench) -> None:
    fleet, may_answer = Fleet(bench.workers, SETTINGS), threading.Event()
    bench.workers.plan = Plan(may_answer=may_answer)
    fleet.apply({"model": Record("model", "1", str(bench.packages / "1"))})
    fleet.start("model")
    eventually("the model to run", lambda: fleet.describe("model").status is ModelStatus.RUNNING)
    with ThreadPoolExecutor(2) as threads:
        call = threads.submit(fleet.detect, "model", image_request(), Caller())
        bench.workers.number(0).wait_for_calls(1)
        fleet.drain(0.0)  # no time to wait
        with pytest.raises(AgentStops):
            fleet.detect("model", image_request(), Caller())
        drained = threads.submit(fleet.drain, PATIENCE)
        assert not drained.done()
        may_answer.set()
        drained.result(PATIENCE)
        assert call.result(PATIENCE).detection == NORMAL
    fleet.close()


@pytest.mark.parametrize("auto_start", [True, False])
def test_a_wanted_model_that_failed_starts_with_its_next_version(
    bench: Bench, tmp_path: Path, auto_start: bool
) -> None:
    fleet = Fleet(bench.workers, SETTINGS, auto_start=auto_start)
    bad = make_package(tmp_path / "bad")
    (bad / "manifest.json").write_text("{}")
    fleet.apply({"model": Record("model", "0", str(bad))})
    if not auto_start:  # a client wants it
        fleet.start("model")
    eventually("the model to fail", lambda: fleet.describe("model").status is ModelStatus.FAILED)
    fleet.apply({"model": Record("model", "1", str(bench.packages / "1"))})
    eventually("the model to run", lambda: fleet.describe("model").status is ModelStatus.RUNNING)
    fleet.stop("model")
    fleet.apply({"model": Record("model", "0", str(bad))})
    assert fleet.describe("model").status is ModelStatus.STOPPED
    fleet.close()
