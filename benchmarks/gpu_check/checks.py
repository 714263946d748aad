"""The checks: the contract, accuracy against the CPU, calls against a bare loop, memory, forced failures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc

from agent.models.registry import Record, write_record
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from benchmarks.gpu_check.result import Result, passed
from benchmarks.serving import servers
from benchmarks.serving.floor import PROVIDER
from benchmarks.serving.measure import CLIENTS, Plan, measure
from benchmarks.serving.model import Package
from benchmarks.serving.orders import Contender
from benchmarks.serving.processes import running, wait_until
from benchmarks.serving.results import Subject, all_latencies, percentile, rates
from benchmarks.serving.servers import COMPONENT, RECONNECT

SIZE = (1280, 960)
PROVIDERS = {"cuda": "CUDAExecutionProvider", "onnxruntime-tensorrt": "TensorrtExecutionProvider"}
"""Of the bare loop; for TensorRT itself it runs by CUDA where ONNX Runtime has it, else on the CPU."""
TOLERANCE = 0.005
"""How far scores and areas may be from the CPU's, as for a package's self-test in fp32."""
KEPT = 64 << 20
"""Bytes by which the GPU's free memory may differ after StopModel: other programs use it too."""
PATIENCE = 60.0
"""Seconds that a model may take to run again."""


def contract(device: str) -> Result:
    """The tests that need a GPU, on this device and with this runtime."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/backends/test_gpu_contract.py"]
    ended = subprocess.run([*command, "-k", f"[{device}"], capture_output=True, text=True, check=False)
    counts = ended.stdout.strip().splitlines()[-1:] or [ended.stderr.strip()[-200:]]
    holds = ended.returncode == 0 and " passed" in counts[0] and "skipped" not in counts[0]
    return passed("backend contract", holds, re.sub(r" in [\d.]+s.*", "", counts[0]))


def accuracy(folder: Path, device: str, name: str) -> Result:
    """Every answer against the CPU's."""
    of_cpu, of_device = (_answers(folder, each) for each in ("cpu", device))
    differences = [abs(a["score"] - b["score"]) for a, b in zip(of_cpu, of_device, strict=True)]
    for a, b in zip(of_cpu, of_device, strict=True):
        differences += [abs(area - b["areas"].get(label, 0.0)) for label, area in a["areas"].items()]
    verdicts = sum(a["is_anomalous"] != b["is_anomalous"] for a, b in zip(of_cpu, of_device, strict=True))
    figures = f"{len(of_cpu)} images, scores and areas differ by at most {max(differences):.5f}, {verdicts} verdicts"
    return passed(f"as the CPU: {name}", max(differences) <= TOLERANCE and not verdicts, figures)


def _answers(folder: Path, device: str) -> list[dict]:  # type: ignore[type-arg]
    command = [sys.executable, "-m", "benchmarks.gpu_check.answers", str(folder), device]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{folder} does not run on {device}: {(ended.stderr.strip().splitlines() or ['no word'])[-1]}")
    found: list[dict] = json.loads(ended.stdout.splitlines()[-1])  # type: ignore[type-arg]
    return found


def calls(package: Package, folder: Path, device: str, plan: Plan) -> Result:
    """Pixels in shared memory to answer, against the same graph in a bare loop on the same provider."""
    provider = {PROVIDER: PROVIDERS[device]} if device in PROVIDERS else {}
    with _environment(EDGE_AGENT_DEVICE=device, **provider), servers.agent(folder, package) as agent:
        found = measure(plan, package, {"segment": agent.address})

    def turns(contender: Contender, clients: int) -> list:  # type: ignore[type-arg]
        return found[Subject(package.task, plan.sizes[0], contender, clients)]

    agents, floors = (all_latencies(turns(contender, 1)) for contender in ("segment", "floor"))
    many, capacity = (sum(rates(turns(contender, CLIENTS))) / plan.rounds for contender in ("segment", "floor"))
    p50, floor = percentile(agents, 50) * 1000, percentile(floors, 50) * 1000
    figures = (
        f"p50 {p50:.2f} ms ({p50 / floor:.2f} of the bare loop's {floor:.2f}), p99 {percentile(agents, 99) * 1000:.2f} "
        f"ms; {CLIENTS} clients: {many:.0f} calls/s ({many / capacity:.2f} of the loop's capacity)"
    )
    width, height = plan.sizes[0]
    return Result(f"calls, {package.task}, {width} x {height}", "measured", figures)


def memory_is_given_back(package: Package, folder: Path, device: str) -> Result:
    """What StartModel takes of the GPU, StopModel gives back."""
    before = _free_gpu_memory()
    with _environment(EDGE_AGENT_DEVICE=device), servers.agent(folder, package) as agent, _stub(agent.address) as stub:
        taken = before - _free_gpu_memory()
        stub.StopModel(wire.StopModelRequest(model_component=COMPONENT))
        kept = before - _free_gpu_memory()
    figures = f"{taken >> 20} MiB while RUNNING, {kept >> 20} MiB after StopModel"
    return passed("GPU memory is given back", kept <= KEPT < taken, figures)


def failures(package: Package, folder: Path, device: str) -> Iterator[Result]:
    """What happens where the GPU is hidden, where it is too small, and where a worker is killed."""
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"}
    state, message = _outcome(package, folder / "hidden", EDGE_AGENT_DEVICE=device, **hidden)
    yield passed("GPU hidden, fallback forbidden: FAILED", state == wire.FAILED, message)
    state, message = _outcome(
        package, folder / "allowed", EDGE_AGENT_DEVICE=device, EDGE_AGENT_FALLBACK="allow", **hidden
    )
    holds = state == wire.RUNNING and " on CPU, instead of " in message
    yield passed("GPU hidden, fallback allowed: RUNNING on the CPU", holds, message)
    state, message = _outcome(package, folder / "small", EDGE_AGENT_DEVICE=device, EDGE_AGENT_GPU_MEMORY_LIMIT="1")
    yield passed("less GPU memory than it needs: FAILED", state == wire.FAILED and "GPU memory" in message, message)
    with _environment(EDGE_AGENT_DEVICE=device), servers.agent(folder / "killed", package) as agent:
        (worker,) = agent.workers
        os.kill(worker, signal.SIGKILL)
        with _stub(agent.address) as stub:
            seconds = _wait(lambda: agent.workers not in ([], [worker]) and "version" in _described(stub)[1])
    yield passed("worker killed: back on the GPU", True, f"after {seconds:.1f} s")


def _outcome(package: Package, folder: Path, **environment: str) -> tuple[int, str]:
    """State and message of a model that an agent with this environment has started."""
    folder.mkdir(parents=True)
    address, registry, log = folder / "agent", folder / "registry", folder / "log"
    write_record(registry, Record(COMPONENT, "1.0.0", str(package.folder)))
    command = ["-m", "agent", "serve", "--socket", f"unix://{address}", "--registry", str(registry)]
    with _environment(**environment), running([*command, "--auto-start", "true"], log) as process:
        wait_until("the agent", address.exists, process, log)
        with _stub(str(address)) as stub:
            wait_until("the model", lambda: _described(stub)[0] in (wire.RUNNING, wire.FAILED), process, log)
            return _described(stub)


def _described(stub: EdgeAgentStub) -> tuple[int, str]:
    request = wire.DescribeModelRequest(model_component=COMPONENT)
    described = stub.DescribeModel(request, wait_for_ready=True).model_description
    return described.status, described.status_message


def _wait(holds: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not holds():
        if time.monotonic() > began + PATIENCE:
            sys.exit(f"In vain waited {PATIENCE:g} s for the model to run again.")
        time.sleep(0.01)
    return time.monotonic() - began


@contextmanager
def _stub(address: str) -> Iterator[EdgeAgentStub]:
    with grpc.insecure_channel(f"unix:{address}", options=RECONNECT) as channel:
        yield EdgeAgentStub(channel)


def _free_gpu_memory() -> int:
    command = [sys.executable, "-m", "benchmarks.gpu_check.gpu_memory"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """For the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def all_checks(
    packages: Sequence[Path], made: Sequence[Package], folder: Path, device: str, plan: Plan
) -> Iterator[Result]:
    """`packages`: more to compare with the CPU; `made`: the benchmark's own; `folder`: for agents."""
    yield contract(device)
    for package in made:
        yield accuracy(package.folder, device, f"{package.task} (made)")
    for path in packages:
        yield accuracy(path, device, path.name)
    for package in made:
        yield calls(package, folder / "calls" / package.task, device, plan)
    if device != "cpu":
        yield memory_is_given_back(made[0], folder / "memory", device)
        yield from failures(made[0], folder / "failures", device)
