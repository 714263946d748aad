"""Fixtures for backends: a CUDA runtime without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_cuda import FakeCuda, compile_fake_cuda


@pytest.fixture(scope="session")
def fake_cuda_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_fake_cuda(tmp_path_factory.mktemp("fake-cuda"))


@pytest.fixture
def fake_cuda(fake_cuda_library: Path) -> FakeCuda:
    """A fresh one, on whose GPU nothing is held."""
    return FakeCuda(fake_cuda_library)
