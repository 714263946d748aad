"""The checks: the contract, accuracy against the CPU, calls against a bare loop, memory; and which there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from agent.wire import edge_agent_pb2 as wire
from benchmarks.gpu_check.agents import environment_of, stub_of
from benchmarks.gpu_check.engines import PRECISIONS, TIME_LIMIT, built_for_agents, engine_checks
from benchmarks.gpu_check.failures import failure_checks
from benchmarks.gpu_check.result import Check, Result, passed
from benchmarks.serving import servers
from benchmarks.serving.floor import PROVIDER
from benchmarks.serving.measure import CLIENTS, Plan, measure
from benchmarks.serving.model import Package
from benchmarks.serving.orders import Contender
from benchmarks.serving.results import SCORES_AGREE, Subject, all_latencies, percentile, rates
from benchmarks.serving.servers import COMPONENT

SIZE = (1280, 960)
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "tensorrt": "CPUExecutionProvider",
}
"""Of the bare loop. (A loop of TensorRT's own would be the agent's backend once more.)"""
LOWERED = {"cuda": "TF32", "onnxruntime-tensorrt": "fp16", "tensorrt": "fp16"}
"""What `precision` fp16 lets a device compute in."""
KEPT = 64 << 20
"""Bytes by which the GPU's free memory may differ after StopModel: other programs use it too."""


def contract(device: str) -> Iterator[Result]:
    """The tests that need a GPU, on this device and with this runtime."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/backends/test_gpu_contract.py"]
    selected = [*command, "-k", f"[{device}"]
    ended = subprocess.run(selected, capture_output=True, text=True, check=False, timeout=TIME_LIMIT)
    counts = ended.stdout.strip().splitlines()[-1:] or [ended.stderr.strip()[-200:]]
    holds = ended.returncode == 0 and " passed" in counts[0] and "skipped" not in counts[0]
    yield passed("backend contract", holds, re.sub(r" in [\d.]+s.*", "", counts[0]))


def accuracy(folder: Path, device: str, name: str, precision: str = "fp32") -> Iterator[Result]:
    """Every answer against the CPU's."""
    of_cpu, of_device = _answers(folder, "cpu", "fp32"), _answers(folder, device, precision)
    pairs = list(zip(of_cpu, of_device, strict=True))
    difference = max(_difference(*pair) for pair in pairs)
    verdicts = sum(on_cpu["is_anomalous"] != on_device["is_anomalous"] for on_cpu, on_device in pairs)
    scores = [answer["score"] for answer in of_cpu]
    figures = (
        f"{len(pairs)} images, scores from {min(scores):.2f} to {max(scores):.2f}; scores and areas differ by at most "
        f"{difference:.5f}, {verdicts} verdicts"
    )
    holds = difference <= PRECISIONS[precision] and not verdicts
    yield passed(f"as the CPU: {name}, {_computed_in(device, precision)}", holds, figures)


def _computed_in(device: str, precision: str) -> str:
    return LOWERED[device] if precision == "fp16" else precision


def _difference(on_cpu: dict, on_device: dict) -> float:  # type: ignore[type-arg]
    """The largest of scores and of areas, of labels that only one of them found too."""
    areas, others = on_cpu["areas"], on_device["areas"]
    of_areas = (abs(areas.get(label, 0.0) - others.get(label, 0.0)) for label in {*areas, *others})
    return max(abs(on_cpu["score"] - on_device["score"]), *of_areas, 0.0)


def _answers(folder: Path, device: str, precision: str) -> list[dict]:  # type: ignore[type-arg]
    command = [sys.executable, "-m", "benchmarks.gpu_check.answers", str(folder), device, precision]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT)
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or ["no word"])[-1]
        raise RuntimeError(f"{folder.name} does not run on {device}: {said}")
    found: list[dict] = json.loads(ended.stdout.splitlines()[-1])  # type: ignore[type-arg]
    return found


def calls(package: Package, folder: Path, device: str, plan: Plan) -> Iterator[Result]:
    """Pixels in shared memory to answer, against the same graph in a bare loop; wrong answers end it."""
    provider = PROVIDERS[device]
    tolerance = PRECISIONS["fp16"] if device == "tensorrt" else SCORES_AGREE
    environment = {"EDGE_AGENT_DEVICE": device, PROVIDER: provider}
    with environment_of(**environment), servers.agent(folder, package) as agent:
        found = measure(plan, package, {"segment": agent.address}, tolerance)

    def turns(contender: Contender, clients: int) -> list:  # type: ignore[type-arg]
        return found[Subject(package.task, plan.sizes[0], contender, clients)]

    agents, floors = (all_latencies(turns(contender, 1)) for contender in ("segment", "floor"))
    many, capacity = (sum(rates(turns(contender, CLIENTS))) / plan.rounds for contender in ("segment", "floor"))
    p50, floor = percentile(agents, 50) * 1000, percentile(floors, 50) * 1000
    figures = (
        f"p50 {p50:.2f} ms ({p50 / floor:.2f} of the bare loop's {floor:.2f} by {provider}), p99 "
        f"{percentile(agents, 99) * 1000:.2f} ms; {CLIENTS} clients: {many:.0f} calls/s ({many / capacity:.2f} of the "
        "loop's capacity)"
    )
    width, height = plan.sizes[0]
    yield Result(f"calls, {package.task}, {width} x {height}", "measured", figures)


def memory_is_given_back(package: Package, folder: Path, device: str) -> Iterator[Result]:
    """What StartModel takes of the GPU, StopModel gives back."""
    before = _free_gpu_memory()
    with (
        environment_of(EDGE_AGENT_DEVICE=device),
        servers.agent(folder, package) as agent,
        stub_of(agent.address) as stub,
    ):
        taken = before - _free_gpu_memory()
        stub.StopModel(wire.StopModelRequest(model_component=COMPONENT))
        kept = before - _free_gpu_memory()
    figures = f"{taken >> 20} MiB while RUNNING, {kept >> 20} MiB after StopModel"
    # Of what takes next to nothing nobody could see whether it is given back.
    yield passed("GPU memory is given back", kept <= KEPT < taken, figures)


def _free_gpu_memory() -> int:
    command = [sys.executable, "-m", "benchmarks.gpu_check.gpu_memory"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIME_LIMIT)
    return int(ended.stdout)


def all_checks(
    packages: Sequence[Path], made: Sequence[Package], folder: Path, device: str, plan: Plan, is_integrated: bool
) -> Iterator[Check]:
    """`packages`: more to compare with the CPU; `made`: the benchmark's own; `folder`: for agents."""
    yield Check("backend contract", partial(contract, device))
    named = {f"{package.task} (made)": package.folder for package in made} | {path.name: path for path in packages}
    for precision in PRECISIONS if device in LOWERED else ("fp32",):
        for name, path in named.items():
            check = f"as the CPU: {name}, {_computed_in(device, precision)}"
            yield Check(check, partial(accuracy, path, device, name, precision))
    if device == "tensorrt":
        yield Check("engines", partial(engine_checks, made[0], folder / "engines"))
        # An agent that builds would be waited for in vain.
        yield Check("engines of the agents below", partial(built_for_agents, made))
    for package in made:
        yield Check(f"calls, {package.task}", partial(calls, package, folder / "calls" / package.task, device, plan))
    if device != "cpu":
        yield Check("GPU memory is given back", partial(memory_is_given_back, made[0], folder / "memory", device))
        yield from failure_checks(made[0], folder / "failures", device, is_integrated)
