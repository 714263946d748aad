"""Rows D15 and F4: GPUs that fail, and GPUs that are not there."""

from __future__ import annotations

from pathlib import Path

import grpc

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.processes_support import VICTIM, agent_with, numbered, quick_package, tells
from tests.faults.row import Run, row
from tests.support.agent_process import AgentProcess, describe, detect, status, wait_for
from tests.support.packages import make_package
from tests.support.pretended_gpu import GPU, pretended_gpu
from tests.support.wrong_devices import CASES, Case

ERRORS_IN_A_ROW = 2
"""Between two starts of the model: the sixth death within a minute makes it FAILED."""
NUMBER = 51
"""In every image; a poisoned process answers as if it were 204."""


@row(
    "D15",
    "a CUDA error that poisons its process: a new worker that passes the self-test; no wrong answer is served",
    unit="errors",
    full=100,
    short=2,
    uses_shared_agent=False,
)
def poisoned_gpus(run: Run) -> None:
    switches = run.folder / "switches"
    switches.mkdir()
    environment = pretended_gpu("working", switches=switches)
    with agent_with({VICTIM: quick_package(run, VICTIM)}, "--device", "cuda", environment=environment) as agent:
        for number in run.steps():
            stub = agent.stub()
            if number and number % ERRORS_IN_A_ROW == 0:
                start_again_on_gpu(stub)
            (before,) = agent.worker_pids()
            (switches / "sticky").touch()
            # The call in hand is tried once more, in the new worker.
            assert tells(detect(stub, numbered(VICTIM, NUMBER)), NUMBER), "a wrong answer was served"
            (after,) = agent.worker_pids()
            assert after != before
            assert GPU in describe(stub, VICTIM).status_message
            run.saw("right answer by a new worker")
            agent.close_channels()
        ends = agent.log_text().count("its worker ended: the GPU failed (a kernel read or wrote beyond its memory")
        assert ends >= run.reached
        never_serves_wrong_answers(agent, switches)
    run.saw("worker that fails the self-test: FAILED")


def start_again_on_gpu(stub: EdgeAgentStub) -> None:
    stub.StopModel(wire.StopModelRequest(model_component=VICTIM))
    stub.StartModel(wire.StartModelRequest(model_component=VICTIM))
    wait_for("it to run", lambda: status(stub, VICTIM) == wire.RUNNING)


def never_serves_wrong_answers(agent: AgentProcess, switches: Path) -> None:
    """A GPU that goes on giving wrong answers: the next worker fails its self-test, and the model is FAILED."""
    stub = agent.stub()
    (switches / "wrong").touch()
    (switches / "sticky").touch()
    try:
        detect(stub, numbered(VICTIM, NUMBER))
        raise AssertionError("a wrong answer was served")
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION, error
    wait_for("it to be FAILED", lambda: status(stub, VICTIM) == wire.FAILED)
    assert 'Self-test image "self-test/good.rgb": expected a score' in describe(stub, VICTIM).status_message


@row(
    "F4",
    "a device that is not there: another is told of, or the model is FAILED with what to do, as fallback says",
    unit="starts",
    full=210,
    short=4,
    uses_shared_agent=False,
)
def missing_devices(run: Run) -> None:
    # Every seventh: a short run meets a GPU that works, one that stands in, and two that fail.
    for number in run.steps():
        case = CASES[number * 7 % len(CASES) if run.wanted < len(CASES) else number % len(CASES)]
        run.saw(outcome_of(case, run.folder / str(number)))


def outcome_of(case: Case, folder: Path) -> str:
    """Starts a model in an agent on the device that the case tells of."""
    devices = ("--model-devices", f"{VICTIM}={case.device}", "--fallback", case.fallback)
    agent = AgentProcess(
        *devices, "--engine-cache", str(folder.with_suffix(".engines")), environment=pretended_gpu(case.installed)
    )
    agent.register(VICTIM, make_package(folder, task="classification"))
    with agent:
        stub = agent.stub()
        stub.StartModel(wire.StartModelRequest(model_component=VICTIM))
        wait_for("it to be loaded, or not", lambda: status(stub, VICTIM) in (wire.RUNNING, wire.FAILED))
        message = describe(stub, VICTIM).status_message
        assert case.says in message, message
        if case.runs_on is None:
            assert status(stub, VICTIM) == wire.FAILED, message
            return "FAILED with a sentence"
        assert status(stub, VICTIM) == wire.RUNNING, message
        assert f" on {case.runs_on}" in message and case.by in message, message
        assert tells(detect(stub, numbered(VICTIM, NUMBER)), NUMBER)
        return "stands in for another" if case.says else "as asked for"
