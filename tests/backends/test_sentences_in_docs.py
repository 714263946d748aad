"""Whatever the agent says about a device is in the tables of the pages on devices, with what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.backends import cuda_runtime, gpu_failure, onnx_providers, opening, prebuilt, tensorrt_api
from agent.backends.cuda_runtime import CudaError
from agent.backends.engine_cache import EngineCacheNotUsable, EngineTooLarge
from agent.backends.gpu_failure import gpu_failure_in
from agent.errors import DeviceNotUsable, GpuFailed, GpuMemoryFull, NotEnoughGpuMemory
from agent.packages.manifest import PackageFile, TensorRtEngine
from agent.workbench.doctor.nvidia import kernel_findings
from tests.support.checkout import ROOT

WHAT_TO_DO = re.compile(r"^\| `status_message`.* \| what to do \|\n\|---.*\n((?:\|.*\n)+)", re.MULTILINE)
FLEET = re.compile(r"^\| a device \| what happens \| `status_message` \|\n\|---.*\n((?:\|.*\n)+)", re.MULTILINE)


def rows() -> list[re.Pattern[str]]:
    """What the tables of messages tell of; `...` stands for anything."""
    devices, tensorrt = ((ROOT / "docs" / page).read_text() for page in ("devices.md", "tensorrt.md"))
    tables = [found[1] for page in (devices, tensorrt) for found in WHAT_TO_DO.finditer(page)]
    assert len(tables) == 2
    fleet = FLEET.search(tensorrt)
    assert fleet is not None
    first_cells = [line.split(" | ")[0] for table in tables for line in table.splitlines()]
    last_cells = [line.split(" | ")[-1] for line in fleet[1].splitlines()]
    return [pattern_of(cell) for cell in (*first_cells, *last_cells)]


def pattern_of(cell: str) -> re.Pattern[str]:
    parts = (re.escape(part.strip(" |`;")) for part in cell.strip("| ").split("..."))
    return re.compile(".*".join(parts))


def engine_for_another() -> PackageFile:
    return PackageFile("a.engine", 1, "0" * 64, TensorRtEngine("7.2", "8.6.1", "fp16"))


def of_tensorrt(error: ImportError, monkeypatch: pytest.MonkeyPatch) -> str:
    def fails(name: str) -> None:
        error.name = error.name or name
        raise error

    monkeypatch.setattr(tensorrt_api, "import_module", fails)
    with pytest.raises(DeviceNotUsable) as refusal:
        tensorrt_api.load_tensorrt()
    return str(refusal.value)


def sentences(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One of each kind."""
    numbers = (*gpu_failure._REASONS, 999)
    of_cuda = [gpu_failure_in(f"CUDA failure {number}: x") for number in numbers]
    of_libraries = [gpu_failure_in("CUBLAS failure 3: x")]
    monkeypatch.setattr(onnx_providers, "_other_releases", lambda library: ["libcudart.so.12"])
    libraries = ("libcuda.so.1", "libnvinfer.so.10", "libcublasLt.so.13")
    providers = (onnx_providers.CUDA, onnx_providers.TENSORRT)
    said = [
        *(failure.reason for failure in (*of_cuda, *of_libraries) if failure is not None),
        *(
            cuda_runtime._why_not(failure)
            for failure in (None, *(CudaError("x", code, "y") for code in (35, 100, 999)))
        ),
        *(onnx_providers.why_not_loaded(library, "13.0") for library in libraries),
        *(onnx_providers.why_not_installed(provider) for provider in providers),
        of_tensorrt(ModuleNotFoundError("x"), monkeypatch),
        of_tensorrt(ImportError("x", name="libnvinfer"), monkeypatch),
        str(opening._missing("cuda", f"onnxruntime is not installed; {opening.INSTALL}")),
        prebuilt.why_built_here([engine_for_another()]),
        opening.NOT_TAKEN,
        *(str(refusal) for refusal in (NotEnoughGpuMemory(1, 2), GpuMemoryFull(), GpuFailed("x"))),
        *(str(refusal) for refusal in (EngineCacheNotUsable(Path("x"), "y"), EngineTooLarge(2, 1))),
        *(finding.what for finding in kernel_findings("8.7", "1.31.1", "aarch64")),
    ]
    monkeypatch.setattr(onnx_providers, "both_are_installed", lambda: True)
    return [*said, onnx_providers.why_not_installed(onnx_providers.CUDA)]


def test_every_sentence_about_a_device_is_in_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = rows()
    missing = [each for each in sentences(monkeypatch) if not any(pattern.search(each) for pattern in patterns)]
    assert missing == []


def test_a_sentence_that_is_not_there_would_be_found_missing() -> None:
    assert not any(pattern.search("the GPU has gone for a walk; call it back") for pattern in rows())
