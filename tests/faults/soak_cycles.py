"""Rows H: channels, models, workers and agents that come and go, over and over."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import signal
import time
from pathlib import Path

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from agent.packages.manifest import Manifest
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.row import ANY_SIZE, SOAK, Run, row
from tests.faults.soak_checker import LEAST_SAMPLES, MB, POOLED_THREADS, Sample, judge
from tests.support.agent_process import (
    LARGE_REPLIES,
    PATIENCE,
    RECONNECT,
    AgentProcess,
    answers,
    describe,
    detect,
    inline_request,
    names,
    segment,
    segment_request,
    status,
    wait_for,
)
from tests.support.packages import changed, grey, make_package

WIDTH, HEIGHT = 320, 240
CONVOLVED = "convolved"
ALLOWED_PER_CYCLE = 20 * MB / 1000
"""The plan's 20 MB over its 1,000 cycles."""


def convolved_package(folder: Path) -> Path:
    """A package whose answers are sums of many products, as a real model's are; white is good."""
    drawn = np.random.default_rng(3)

    def weights(name: str, outputs: int, inputs: int) -> onnx.TensorProto:
        # Scaled so that every layer's values are about as large as those that go in.
        values = drawn.normal(0, (inputs * 9) ** -0.5, (outputs, inputs, 3, 3)).astype(np.float32)
        return numpy_helper.from_array(values, name)

    constants = [
        numpy_helper.from_array(np.array(255, np.float32), "white"),
        numpy_helper.from_array(np.array(1, np.float32), "one"),
        weights("first", 16, 3),
        weights("second", 16, 16),
        weights("third", 1, 16),
    ]
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["brightness"]),
        # Darkness, so that white gives nothing in every layer.
        helper.make_node("Sub", ["one", "brightness"], ["darkness"]),
        helper.make_node("Transpose", ["darkness"], ["layer0"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["layer0", "first"], ["sum1"], **same),
        helper.make_node("Relu", ["sum1"], ["layer1"]),
        helper.make_node("Conv", ["layer1", "second"], ["sum2"], **same, strides=[2, 2]),
        helper.make_node("Relu", ["sum2"], ["layer2"]),
        helper.make_node("Conv", ["layer2", "third"], ["sum3"], **same),
        helper.make_node("Tanh", ["sum3"], ["map"]),
        helper.make_node("ReduceMean", ["map"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Abs", ["mean"], ["score"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])
    outputs = [
        helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 1, HEIGHT // 2, WIDTH // 2]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, [1]),
    ]
    graph = helper.make_graph(nodes, CONVOLVED, [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return make_package(folder, model=model, width=WIDTH, height=HEIGHT, change=_with_half_the_noise_anomalous)


def _with_half_the_noise_anomalous(manifest: Manifest) -> Manifest:
    return changed(manifest, decision=changed(manifest.decision, pixel_threshold=0.2))


@row(
    "H6",
    "models loaded and unloaded without end: the agent gives back what each took",
    unit="cycles",
    full=1000,
    short=3,
    into=SOAK,
)
def loading_and_unloading(run: Run) -> None:
    agent, stub = run.agent, run.agent.stub()
    agent.register(CONVOLVED, convolved_package(run.folder / CONVOLVED))
    wait_for("the model to be listed", lambda: CONVOLVED in names(stub))
    workers, descriptors, samples, loading = agent.worker_pids(), _descriptors(agent), [], []
    for _ in run.steps():
        began = time.monotonic()
        stub.StartModel(wire.StartModelRequest(model_component=CONVOLVED))
        wait_for("the model to run", lambda: status(stub, CONVOLVED) != wire.STARTING)
        loading.append(time.monotonic() - began)
        assert describe(stub, CONVOLVED).status == wire.RUNNING, describe(stub, CONVOLVED).status_message
        assert detect(stub, inline_request(CONVOLVED, grey(255, WIDTH, HEIGHT))).anomaly_score == 0
        stopped = stub.StopModel(wire.StopModelRequest(model_component=CONVOLVED))
        run.saw(wire.ModelStatus.Name(stopped.status))
        # StopModel answers when the worker is gone.
        assert agent.worker_pids() == workers
        # The agent's own end of it goes a moment later.
        wait_for("the worker's descriptors to be closed", lambda: _descriptors(agent) <= descriptors)
        samples.append(Sample.of(agent.running.pid, run.reached))
    assert set(run.outcomes) == {"STOPPED"}, run.outcomes
    agent.remove(CONVOLVED)
    wait_for("the model to be gone", lambda: CONVOLVED not in names(stub))
    run.figures["loading, p50"] = f"{np.median(loading):.2f} s"
    run.figures["agent"] = f"{(samples[-1].resident - samples[0].resident) / MB:+.1f} MB since the first cycle"
    if len(samples) >= LEAST_SAMPLES:
        trend = judge(samples, ALLOWED_PER_CYCLE, spare_threads=POOLED_THREADS)
        run.figures["agent"] += f", {trend.told(1000, '1,000 cycles')}"
        assert not trend.complaints, trend


IMAGES_PER_WORKER = 20
"""By each way of sending them a quarter."""


@row(
    "H9",
    "one image, across restarts of workers, models and agents: one distinct answer, mask included",
    unit="images",
    full=100_000,
    short=4 * IMAGES_PER_WORKER,
    uses_shared_agent=False,
    into=SOAK,
)
def one_answer(run: Run) -> None:
    pixels = np.random.default_rng(run.seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    seen = set[str]()
    with AgentProcess() as agent, segment(pixels.tobytes(), 2 * pixels.nbytes) as name:
        agent.run_model(CONVOLVED, convolved_package(run.folder / CONVOLVED))
        restarts = [_kill_worker, _stop_and_start_model, _restart_agent]
        stub = agent.stub([*LARGE_REPLIES, *RECONNECT])
        for number in run.steps(each=IMAGES_PER_WORKER):
            if number:
                restart = restarts[(number // IMAGES_PER_WORKER - 1) % len(restarts)]
                restart(agent, stub)
                run.saw(restart.__name__.removeprefix("_").replace("_", " "))
            seen |= _answers_to(stub, pixels, name)
    run.figures["distinct answers"] = str(len(seen))
    assert len(seen) == 1, seen


def _answers_to(stub: EdgeAgentStub, pixels: np.ndarray, name: str) -> set[str]:
    """The distinct answers to so many calls, by message and by segment, two at a time."""
    by_message = inline_request(CONVOLVED, pixels)
    by_segment = segment_request(CONVOLVED, WIDTH, HEIGHT, name)
    seen = set()
    for _ in range(IMAGES_PER_WORKER // 4):
        together = [stub.DetectAnomalies.future(request, PATIENCE) for request in (by_message, by_segment)]
        seen |= {_told(call.result().detect_anomaly_result) for call in together}
        seen |= {_with_mask_in_segment(stub, name, inline) for inline in (by_message, by_segment)}
    return seen


def _with_mask_in_segment(stub: EdgeAgentStub, name: str, request: wire.DetectAnomaliesRequest) -> str:
    """The answer as it would be with the mask inline."""
    size = WIDTH * HEIGHT * 3
    asked = wire.DetectAnomaliesRequest.FromString(request.SerializeToString())
    handle = wire.SharedMemoryHandle(name=name, size=size, offset=size)
    asked.anomaly_mask_params.shared_memory_handle.CopyFrom(handle)
    with (Path("/dev/shm") / name.removeprefix("/")).open("r+b") as written:
        written.seek(size)
        written.write(bytes(size))  # the last mask is no answer to this call
        written.flush()
        result = detect(stub, asked)
        written.seek(size)
        result.anomaly_mask.byte_data = written.read(size)
    return _told(result)


def _told(result: wire.DetectAnomalyResult) -> str:
    """Verdict, numbers and anomalies, and of the mask its hash."""
    mask = hashlib.sha256(result.anomaly_mask.byte_data).hexdigest()
    return f"{result.is_anomalous} {result.anomaly_score} {result.confidence} {list(result.anomalies)} {mask}"


def _kill_worker(agent: AgentProcess, stub: EdgeAgentStub) -> None:
    for worker in agent.worker_pids():
        os.kill(worker, signal.SIGKILL)


def _stop_and_start_model(agent: AgentProcess, stub: EdgeAgentStub) -> None:
    stub.StopModel(wire.StopModelRequest(model_component=CONVOLVED))
    stub.StartModel(wire.StartModelRequest(model_component=CONVOLVED))
    _wait_until_it_runs(stub)


def _restart_agent(agent: AgentProcess, stub: EdgeAgentStub) -> None:
    assert agent.stop() == 0
    agent.start()
    _wait_until_it_runs(stub)


def _wait_until_it_runs(stub: EdgeAgentStub) -> None:
    wait_for("the model to run", lambda: answers(lambda: status(stub, CONVOLVED) == wire.RUNNING))


IDLE = 1000
"""Channels that stay open meanwhile; fewer in a short run, and where a process may not have as many descriptors."""


@row(
    "H5",
    "channels that come and go, others open and idle: nothing is kept of those that went",
    unit="channels",
    full=10_000,
    short=60,
    into=SOAK,
)
def coming_and_going(run: Run) -> None:
    agent, took = run.agent, []
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
    with contextlib.ExitStack() as open_and_idle:
        for _ in range(min(IDLE, run.wanted, most)):
            _ask(open_and_idle.enter_context(_channel(agent)))
        run.figures["open and idle"] = f"{_descriptors(agent)} descriptors"
        before = _descriptors(agent)
        for _ in run.steps():
            began = time.monotonic()
            with _channel(agent) as channel:
                _ask(channel)
            took.append(time.monotonic() - began)
            run.saw("OK")
        wait_for("those of closed channels to be closed", lambda: _descriptors(agent) <= before)
    p50, p99 = np.percentile(took, (50, 99)) * 1000
    run.figures["connect, ask, close"] = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _channel(agent: AgentProcess) -> grpc.Channel:
    # A pool of its own: channels with equal options would share one connection.
    return grpc.insecure_channel(f"unix:{agent.socket}", [("grpc.use_local_subchannel_pool", 1)])


def _ask(channel: grpc.Channel) -> None:
    assert ANY_SIZE in names(EdgeAgentStub(channel))


def _descriptors(agent: AgentProcess) -> int:
    return Sample.of(agent.running.pid, steps=0).descriptors
