"""Engines that a package brings: loaded where they fit, and where not, one is built and the reason told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agent.backends.base import BackendSettings, RunsOn
from agent.errors import EngineNotTaken
from agent.packages.manifest import Manifest, OnnxModel, TensorRtEngine
from agent.packages.package import read_package
from agent.pipeline import Pipeline
from tests.support.fake_tensorrt import FakeTensorRt
from tests.support.packages import add_file, changed, make_package

HERE = TensorRtEngine("8.7", "10.3.0", "fp16")
SETTINGS = BackendSettings(device="tensorrt")


def opened(folder: Path, engine: bytes, built_for: TensorRtEngine, *, with_model: bool = True) -> RunsOn:
    """Opens a package that brings `engine`, beside its model or in its place."""

    def change(manifest: Manifest) -> Manifest:
        brought = changed(add_file(folder, "model.engine", engine), runtime=built_for)
        others = [file for file in manifest.files if with_model or not isinstance(file.runtime, OnnxModel)]
        return changed(manifest, files=[brought, *others])

    return Pipeline(read_package(make_package(folder, change=change)), SETTINGS).runs_on


def test_for_another_device_one_is_built_and_it_is_told_for_which_they_are(
    fake_tensorrt: FakeTensorRt, tmp_path: Path
) -> None:
    runs_on = opened(tmp_path / "package", b"engine", TensorRtEngine("7.2", "8.6.1", "fp16"))
    assert len(fake_tensorrt.builds) == 1
    assert str(runs_on) == (
        "TensorRT 10.3.0 on Fake GPU; "
        "the package's engines are for TensorRT 8.6.1 and 7.2 in fp16, so one was built here"
    )


def test_one_that_tensorrt_does_not_take_gives_way_to_one_that_is_built(
    fake_tensorrt: FakeTensorRt, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs_on = opened(tmp_path / "package", b"no engine", HERE)
    assert len(fake_tensorrt.builds) == 1
    assert runs_on.remark == "TensorRT does not take the package's engine, so one was built here"
    (reason,) = [r.message for r in caplog.records if r.levelno == logging.WARNING and "package's" in r.message]
    assert "it does not take the package's prebuilt engine" in reason and "IRuntime::deserializeCudaEngine" in reason


def test_one_that_tensorrt_does_not_take_is_refused_where_there_is_no_model(
    fake_tensorrt: FakeTensorRt, tmp_path: Path
) -> None:
    with pytest.raises(EngineNotTaken, match="build it on a device like this one, or package the ONNX model"):
        opened(tmp_path / "package", b"no engine", HERE, with_model=False)


def test_a_package_without_engines_has_nothing_to_remark(fake_tensorrt: FakeTensorRt, tmp_path: Path) -> None:
    assert Pipeline(read_package(make_package(tmp_path / "package")), SETTINGS).runs_on.remark == ""


def test_engines_for_other_devices_take_no_memory_here(tmp_path: Path) -> None:
    """A package of ten engines is not refused for want of memory for ten."""
    manifest = read_package(make_package(tmp_path / "package")).manifest
    model = manifest.files[0]
    engines = [changed(model, path=f"{size}.engine", size=size, runtime=HERE) for size in (1000, 1 << 20)]
    assert changed(manifest, files=[*manifest.files, *engines]).model_size == 1 << 20
    assert manifest.model_size == model.size
