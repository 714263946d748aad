"""Fixtures for tests of more than one room."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.backends import cuda_runtime
from tests.support.checkout import ROOT
from tests.support.fake_cuda import FakeCuda, compile_fake_cuda
from tests.support.fake_tensorrt import FakeTensorRt


@pytest.fixture(scope="session", autouse=True)
def started_processes_can_be_interrupted() -> None:
    """What runs in the background of a shell ignores Ctrl-C, and so would everything it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def wire_python() -> str:
    """The interpreter with the pinned generators; `make test` names it."""
    python = os.environ.get("WIRE_PYTHON", str(ROOT / ".venv-wire/bin/python"))
    if not Path(python).exists():
        pytest.skip("the environment with the pinned generators is not there; `make test` sets it up")
    return python


@pytest.fixture(scope="session")
def fake_cuda_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_fake_cuda(tmp_path_factory.mktemp("fake-cuda"))


@pytest.fixture
def fake_cuda(fake_cuda_library: Path, tmp_path_factory: pytest.TempPathFactory) -> FakeCuda:
    """A library of its own for every test: what another one still holds is given back to where it came from."""
    return FakeCuda(Path(shutil.copy(fake_cuda_library, tmp_path_factory.mktemp("cuda"))))


@pytest.fixture
def gpu_without_tensorrt(fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A device with a GPU."""
    monkeypatch.setattr(cuda_runtime, "libraries_of_device", lambda: [str(fake_cuda.path)])
    return fake_cuda


@pytest.fixture
def fake_tensorrt(gpu_without_tensorrt: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRt]:
    """A device with a GPU and TensorRT."""
    fake = FakeTensorRt(gpu_without_tensorrt)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    yield fake
    assert fake.illegal_accesses == []
