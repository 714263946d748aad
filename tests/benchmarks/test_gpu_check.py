"""The check of GPUs: what it writes, and what it does where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

from agent.backends.cuda_runtime import CudaError
from agent.wire import edge_agent_pb2 as wire
from agent.workbench.doctor.trials import Outcome
from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check import checks, failures, gpu_memory
from benchmarks.gpu_check.checks import accuracy, all_checks, contract, memory_is_given_back
from benchmarks.gpu_check.engines import engine_checks
from benchmarks.gpu_check.result import Check, Result, passed, results_of, table
from benchmarks.serving import floor
from benchmarks.serving.measure import Plan
from benchmarks.serving.model import Package, make_packages
from tests.support.checkout import ROOT
from tests.support.pretended_tensorrt import pretended_tensorrt

PLAN = Plan([(640, 480)], 1, 0.5, 0)


def test_a_device_that_cannot_be_used_is_told_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    monkeypatch.setattr(gpu_check, "tried", lambda device: Outcome(reason="there is no GPU; add one"))
    monkeypatch.setattr("sys.argv", ["gpu_check", "--record", str(page)])
    assert gpu_check.main() == 3
    assert "nothing was checked. there is no GPU; add one." in capsys.readouterr().err
    assert page.read_text() == "# Page\n"


def test_what_fails_is_seen_in_the_table() -> None:
    results = [
        passed("memory", False, "900 MiB | kept"),
        passed("contract", True, "14 passed"),
        Result("p50", "measured", "1"),
    ]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(results).splitlines()[2:]]
    assert rows == [
        ["memory", "FAILED", "900 MiB / kept"],
        ["contract", "passed", "14 passed"],
        ["p50", "measured", "1"],
    ]


def test_entries_come_newest_first_below_what_the_page_says_of_itself() -> None:
    first = gpu_check.recorded(f"# Page\n\nHow.\n\n{gpu_check.NOT_RUN}\n", "## one\n\ntable\n")
    assert first == "# Page\n\nHow.\n\n## one\n\ntable\n"
    assert gpu_check.recorded(first, "## two\n") == "# Page\n\nHow.\n\n## two\n\n## one\n\ntable\n"


def test_the_page_of_this_project_can_take_a_first_entry() -> None:
    page = gpu_check.recorded((ROOT / "docs/gpu-checks.md").read_text(), "## new\n")
    assert gpu_check.NOT_RUN not in page
    assert page.count("## new") == 1


def test_conditions_name_no_path_and_tell_a_quick_look() -> None:
    text = gpu_check.conditions("a runtime on a device", False)
    heading, _, *lines = text.splitlines()
    assert heading.endswith(": a runtime on a device")
    assert ", agent " in lines[0] and sys.executable not in text
    assert "quick look" in gpu_check.conditions("a runtime on a device", True).splitlines()[0]


def test_a_check_that_ends_takes_no_other_result_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    def halfway() -> Iterator[Result]:
        yield passed("first half", True, "")
        sys.exit("In vain waited for the model.\nIts log says: no")

    def broken() -> Iterator[Result]:
        raise ValueError("not enough values")

    checks = [Check("halfway", halfway), Check("broken", broken), Check("fine", lambda: [passed("fine", True, "")])]
    assert list(results_of(checks)) == [
        Result("first half", "passed", ""),
        Result("halfway", "FAILED", "SystemExit: In vain waited for the model. Its log says: no"),
        Result("broken", "FAILED", "ValueError: not enough values"),
        Result("fine", "passed", ""),
    ]
    assert "not enough values" in capsys.readouterr().err


def test_the_results_of_a_run_come_as_they_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new.md"
    checks = [Check("one", lambda: [passed("one", True, "1")]), Check("two", lambda: [passed("two", False, "2")])]
    monkeypatch.setattr(gpu_check, "tried", lambda device: Outcome("a runtime on a device", 1.0))
    monkeypatch.setattr(gpu_check, "all_checks", lambda *given: checks)
    monkeypatch.setattr(gpu_check, "make_packages", lambda folder: {})
    monkeypatch.setattr("sys.argv", ["gpu_check", "--device", "cpu", "--record", str(page)])
    assert gpu_check.main() == 1
    assert [line.split() for line in capsys.readouterr().err.splitlines() if "one:" in line or "two:" in line] == [
        ["passed", "one:", "1"],
        ["FAILED", "two:", "2"],
    ]
    assert "| two     | FAILED | " in page.read_text()


def test_every_device_has_its_checks() -> None:
    def names(device: str, is_integrated: bool) -> list[str]:
        made = [Package(Path("made"), "segmentation")]
        return [check.name for check in all_checks([Path("own")], made, Path("x"), device, PLAN, is_integrated)]

    of_cuda = names("cuda", False)
    assert {
        "backend contract",
        "as the CPU: own, fp32",
        "as the CPU: own, TF32",
        "worker killed",
        "GPU memory taken by others",
    } <= set(of_cuda)
    assert {"engines", "as the CPU: own, fp16"} <= set(names("tensorrt", True)) - set(of_cuda)
    assert "GPU memory taken by others" not in names("tensorrt", True)


# --- each check can fail


def only(results: Iterable[Result]) -> Result:
    (result,) = results
    return result


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "1 failed, 13 passed in 2.00s"),
        (0, "13 passed, 1 skipped in 2.00s"),
        (5, "42 deselected in 2.00s"),
        (4, ""),
    ],
)
def test_a_contract_that_is_not_held_or_not_tried_has_failed(
    code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.subprocess, "run", lambda *given, **how: CompletedProcess([], code, said, "usage"))
    assert only(contract("cuda")).outcome == "FAILED"


@pytest.mark.parametrize(
    ("of_device", "outcome"),
    [
        ({}, "passed"),
        ({"score": 0.704}, "passed"),
        ({"score": 0.706}, "FAILED"),
        ({"is_anomalous": False}, "FAILED"),
        ({"areas": {"background": 0.99, "anomaly": 0.01}}, "FAILED"),
        ({"areas": {"background": 1.0, "another": 0.006}}, "FAILED"),
    ],
)
def test_answers_that_differ_from_the_cpus_have_failed(
    of_device: dict[str, object], outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu = {"score": 0.7, "is_anomalous": True, "areas": {"background": 1.0}}
    answers = {"cpu": [on_cpu, on_cpu], "cuda": [on_cpu, {**on_cpu, **of_device}]}
    monkeypatch.setattr(checks, "_answers", lambda folder, device, precision: answers[device])
    assert only(accuracy(Path("x"), "cuda", "made")).outcome == outcome


class NoAgent:
    """In place of an agent and of its stub."""

    address, workers = "nowhere", (1,)

    def StopModel(self, request: object) -> None: ...  # noqa: N802


@pytest.fixture
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (checks, failures):
        monkeypatch.setattr(module.servers, "agent", lambda *given: nullcontext(NoAgent()))
        monkeypatch.setattr(module, "stub_of", lambda address: nullcontext(NoAgent()))


@pytest.mark.parametrize(
    ("while_running", "after", "outcome"), [(700, 10, "passed"), (700, 100, "FAILED"), (3, 0, "FAILED")]
)
def test_gpu_memory_that_is_kept_or_was_never_taken_has_failed(
    while_running: int, after: int, outcome: str, no_agent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([4000 << 20, 4000 - while_running << 20, 4000 - after << 20])
    monkeypatch.setattr(checks, "_free_gpu_memory", lambda: next(free))
    assert only(memory_is_given_back(Package(Path("x"), "segmentation"), Path("x"), "cuda")).outcome == outcome


@pytest.mark.parametrize(
    ("check", "state", "message", "outcome"),
    [
        (failures.hidden, wire.FAILED, "CUDA cannot be used here: CUDA finds no GPU", "passed"),
        (failures.hidden, wire.FAILED, "The model does not fit its manifest", "FAILED"),
        (failures.hidden, wire.RUNNING, "ONNX Runtime on CPU", "FAILED"),
        (failures.stood_in_for, wire.RUNNING, "ONNX Runtime on CPU, instead of cuda: ...", "passed"),
        (failures.stood_in_for, wire.RUNNING, "ONNX Runtime on NVIDIA L4", "FAILED"),
        (failures.limited, wire.FAILED, "needs about 259 MiB of GPU memory", "passed"),
        (failures.limited, wire.RUNNING, "ONNX Runtime on NVIDIA L4", "FAILED"),
        (failures.full, wire.FAILED, "needs about 259 MiB of GPU memory", "passed"),
        (failures.full, wire.FAILED, "The model was not ready within 1800 s", "FAILED"),
    ],
)
def test_a_failure_that_leads_to_something_else_has_failed(
    check: Any, state: int, message: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "outcome", lambda *given, **environment: (state, message))
    monkeypatch.setattr(failures, "_memory_taken", nullcontext)
    assert only(check(Package(Path("x"), "segmentation"), Path("x"), "cuda")).outcome == outcome


@pytest.mark.parametrize(
    ("message", "outcome"), [("CUDA on NVIDIA L4", "passed"), ("CPU, instead of cuda: it failed", "FAILED")]
)
def test_a_model_that_comes_back_on_another_device_has_failed(
    message: str, outcome: str, no_agent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(process: int, signal: int) -> None:
        told.append((wire.RUNNING, message))
        monkeypatch.setattr(NoAgent, "workers", (2,))

    told = [(wire.RUNNING, "CUDA on NVIDIA L4")]
    monkeypatch.setattr(failures.os, "kill", kill)
    monkeypatch.setattr(failures, "described", lambda stub: told[-1])
    monkeypatch.setattr(failures, "PATIENCE", 0.05)
    assert only(failures.killed(Package(Path("x"), "segmentation"), Path("x"), "cuda")).outcome == outcome


def test_a_bare_loop_that_would_run_elsewhere_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    session = SimpleNamespace(get_providers=lambda: [floor.CPU])
    monkeypatch.setattr(floor.onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(floor.onnxruntime, "InferenceSession", lambda *given, **how: session)
    monkeypatch.setenv(floor.PROVIDER, "CUDAExecutionProvider")
    with pytest.raises(SystemExit, match="cannot run by CUDAExecutionProvider"):
        floor.open_session("model.onnx")


class FragmentedGpu:
    """Gives no block of more than 300 bytes of its 1,000."""

    def __init__(self) -> None:
        self.free = 1000

    def memory(self) -> tuple[int, int]:
        return self.free, 1000

    def device_memory(self, size: int) -> object:
        if size > 300:
            raise CudaError("cudaMalloc", 2, "cudaErrorMemoryAllocation")
        self.free -= size
        return size


def test_memory_is_taken_until_the_wanted_rest_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "SMALLEST", 1)
    gpu = FragmentedGpu()
    blocks = gpu_memory.take_all_but(gpu, 100)  # type: ignore[arg-type]
    assert (sum(blocks), gpu.free) == (900, 100)  # type: ignore[arg-type]


# --- for real, on what is here


def test_the_cpu_passes_its_own_contract_and_answers_as_itself(tmp_path: Path) -> None:
    assert only(contract("cpu")).outcome == "passed"
    package = make_packages(tmp_path / "packages")["segmentation"]
    result = only(accuracy(package.folder, "cpu", "made"))
    assert (result.outcome, result.figures.partition("; ")[2]) == (
        "passed",
        "scores and areas differ by at most 0.00000, 0 verdicts",
    )


def test_engines_are_built_loaded_built_again_and_brought_by_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_cuda_library: Path
) -> None:
    for name, value in pretended_tensorrt(fake_cuda_library).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PRETENDED_FP16_ERROR", "0.2")  # two engines are built: fp16, then fp32
    package = make_packages(tmp_path / "packages")["segmentation"]
    results = list(engine_checks(package, tmp_path / "engines"))
    assert [result.outcome for result in results] == ["passed"] * 4
    assert results[0].figures.endswith(" engine in fp32 was built in 0 s")
    result = only(accuracy(package.folder, "tensorrt", "made", "fp16"))
    assert (result.check, result.outcome) == ("as the CPU: made, fp16", "FAILED")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_of_it_runs_on_a_device_that_is_pretended(fake_cuda_library: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "tensorrt", "--quick", "--record", str(page)]
    environment = {**os.environ, **pretended_tensorrt(fake_cuda_library)}
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in page.read_text().splitlines() if "|" in line]
    outcomes = dict(rows[2:])
    assert "## " in page.read_text() and ": TensorRT 10.3.0 on Fake GPU" in page.read_text()
    # What the fake takes is the computer's memory, of which others take and give back some.
    assert outcomes.pop("GPU memory is given back") in ("passed", "FAILED")
    assert set(outcomes.values()) == {"passed", "measured"}, ended.stderr
    assert len(outcomes) == 16
