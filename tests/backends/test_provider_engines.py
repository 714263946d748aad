"""ONNX Runtime's TensorRT: its engines are kept whole or not at all, and never those of another model."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from agent.backends import onnx_runtime
from agent.backends.base import BackendSettings, ModelToOpen, Stage
from agent.backends.engine_cache import EngineCache
from agent.backends.onnx_providers import TENSORRT
from agent.backends.onnx_runtime import OnnxRuntimeBackend
from agent.errors import ModelNotLoaded
from agent.packages.package import read_package
from agent.pipeline import open_tested
from tests.support.packages import HEIGHT, WIDTH, darkness_model, grey, make_package
from tests.support.pretended_gpu import GPU, pretend

MIB = 1 << 20
ENGINE = "TensorrtExecutionProvider_TRTKernel_graph_1_0_0_fp16_sm86.engine"
TIMING = "TensorrtExecutionProvider_cache_sm86.timing"


class Provider:
    """What ONNX Runtime's TensorRT does with the folder it is given: it finds an engine by the names in the graph, and
    ends the session where a file is torn."""

    def __init__(self) -> None:
        self.version = "10.3"
        self.builds: list[bytes] = []
        """The timings that each build began with."""
        self.refused: list[str] = []
        self.fp16_error = 0.0
        self.fails = ""
        self.engine_size = 1000

    def opens(self, path: str, options: dict[str, str]) -> None:
        if self.fails:
            raise RuntimeError(self.fails)
        names = [node.name for node in onnx.load(path).graph.node]
        engine = f"{self.version} {names}".encode().ljust(self.engine_size)
        if "trt_engine_cache_path" not in options:
            self.builds.append(b"")
            return
        file = Path(options["trt_engine_cache_path"], ENGINE)
        if not file.exists():
            self._build(file, engine, Path(options["trt_timing_cache_path"], TIMING))
        elif file.read_bytes() != engine:
            self.refused.append(file.name)
            raise RuntimeError(f"[ONNXRuntimeError] : 11 : EP_FAIL : could not deserialize engine from cache: {file}")

    def _build(self, file: Path, engine: bytes, timings: Path) -> None:
        known = timings.read_bytes() if timings.exists() else b""
        if known.strip(b"measured;"):
            self.refused.append(timings.name)
            raise RuntimeError(f"[ONNXRuntimeError] : 11 : EP_FAIL : could not create timing cache: {timings}")
        self.builds.append(known)
        file.write_bytes(engine)
        timings.write_bytes(known + b"measured;")


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    pretend("working", monkeypatch.setattr)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    session: Any = onnxruntime.InferenceSession
    found = Provider()

    class WithTensorRt(session):  # type: ignore[misc]
        def __init__(self, path: str, *, providers: list[Any], **others: Any) -> None:
            (name, options), *_ = providers
            assert name == TENSORRT
            assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
            found.opens(path, options)
            self._error = found.fp16_error * int(options["trt_fp16_enable"])
            super().__init__(path, providers=providers, **others)

        def io_binding(self) -> Any:
            binding = super().io_binding()
            copied = binding.copy_outputs_to_cpu
            binding.copy_outputs_to_cpu = lambda: [values + np.float32(self._error) for values in copied()]
            return binding

    monkeypatch.setattr(onnxruntime, "InferenceSession", WithTensorRt)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, "CUDAExecutionProvider"])
    return found


@pytest.fixture
def model(tmp_path: Path) -> ModelToOpen:
    return written(tmp_path / "package", darkness_model())


@pytest.fixture
def settings(tmp_path: Path) -> BackendSettings:
    return BackendSettings(device="onnxruntime-tensorrt", engine_cache=str(tmp_path / "engines"))


def written(folder: Path, graph: onnx.ModelProto) -> ModelToOpen:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return ModelToOpen(folder / "model.onnx", "image", (1, HEIGHT, WIDTH, 3), "uint8", ("score",), name="bottle")


def trained_again() -> onnx.ModelProto:
    """The same names, other weights."""
    graph = darkness_model()
    (white,) = (tensor for tensor in graph.graph.initializer if tensor.name == "white")
    white.CopyFrom(onnx.numpy_helper.from_array(np.array(510, np.float32).reshape(white.dims), "white"))
    return graph


def folder_in(settings: BackendSettings) -> Path:
    (folder,) = Path(settings.engine_cache).glob("*.engines")
    return folder


def score(backend: OnnxRuntimeBackend) -> float:
    return float(backend.run({"image": grey(51)[None]})["score"][0])


def test_engines_are_built_at_the_first_start_and_loaded_at_the_next(
    provider: Provider, model: ModelToOpen, settings: BackendSettings
) -> None:
    for _ in range(2):
        backend = OnnxRuntimeBackend(model, settings)
        assert score(backend) == pytest.approx(0.8)
        assert (backend.device, backend.precision, backend.lowered_to) == (GPU, "fp16", "fp16")
        assert backend.runtime == f"ONNX Runtime {onnxruntime.__version__} with TensorRT"
    assert len(provider.builds) == 1


def test_a_build_is_told_and_a_load_is_not(provider: Provider, model: ModelToOpen, settings: BackendSettings) -> None:
    told: list[tuple[str, Stage]] = []
    watched = replace(model, on_progress=lambda text, stage="loading": told.append((text, stage)))
    OnnxRuntimeBackend(watched, settings)
    assert told == [("building TensorRT engines in fp16: this takes minutes, once", "building")]
    OnnxRuntimeBackend(watched, settings)
    assert len(told) == 1


def test_a_model_trained_again_gets_engines_of_its_own_though_all_names_are_the_same(
    provider: Provider, model: ModelToOpen, settings: BackendSettings, tmp_path: Path
) -> None:
    OnnxRuntimeBackend(model, settings)
    backend = OnnxRuntimeBackend(written(tmp_path / "again", trained_again()), settings)
    assert score(backend) == pytest.approx(0.9)
    assert len(provider.builds) == 2


def test_what_was_measured_serves_the_builds_of_other_models(
    provider: Provider, model: ModelToOpen, settings: BackendSettings, tmp_path: Path
) -> None:
    OnnxRuntimeBackend(model, settings)
    again = written(tmp_path / "again", trained_again())
    OnnxRuntimeBackend(again, settings)
    (timings,) = Path(settings.engine_cache).glob("*.timing")
    timings.write_bytes(timings.read_bytes()[:-3])
    OnnxRuntimeBackend(replace(again, outputs=("score", "map")), settings)
    assert provider.builds == [b"", b"measured;", b""]
    assert provider.refused == []


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda folder: (folder / ENGINE).write_bytes((folder / ENGINE).read_bytes()[:-1]),
    "empty": lambda folder: (folder / ENGINE).write_bytes(b""),
    "zeros": lambda folder: (folder / ENGINE).write_bytes(bytes(1000)),
    "missing": lambda folder: (folder / ENGINE).unlink(),
    "under another name": lambda folder: (folder / ENGINE).rename(folder / "other.engine"),
    "a link": lambda folder: (folder / ENGINE).rename(folder.parent / "x") and (folder / ENGINE).symlink_to("../x"),
    "one file more": lambda folder: (folder / "other.engine").write_bytes(b"x"),
    "writable for others": lambda folder: (folder / ENGINE).chmod(0o666),
    "killed before its end": lambda folder: (folder / "head.json").unlink(),
    "a torn head": lambda folder: (folder / "head.json").write_bytes((folder / "head.json").read_bytes()[:-9]),
    "an empty head": lambda folder: (folder / "head.json").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_engines_that_are_not_as_they_were_kept_are_built_again_before_the_runtime_sees_them(
    provider: Provider, model: ModelToOpen, settings: BackendSettings, damage: str
) -> None:
    OnnxRuntimeBackend(model, settings)
    DAMAGES[damage](folder_in(settings))
    assert score(OnnxRuntimeBackend(model, settings)) == pytest.approx(0.8)
    assert (len(provider.builds), provider.refused) == (2, [])
    OnnxRuntimeBackend(model, settings)
    assert len(provider.builds) == 2


def test_engines_that_the_runtime_refuses_are_built_again_once(
    provider: Provider, model: ModelToOpen, settings: BackendSettings
) -> None:
    OnnxRuntimeBackend(model, settings)
    provider.version = "10.9"  # of TensorRT, below the same ONNX Runtime
    for _ in range(2):
        assert score(OnnxRuntimeBackend(model, settings)) == pytest.approx(0.8)
    assert (len(provider.builds), provider.refused) == (2, [ENGINE])


def test_a_model_that_is_not_taken_is_refused_with_the_reason_and_nothing_is_kept(
    provider: Provider, model: ModelToOpen, settings: BackendSettings, tmp_path: Path
) -> None:
    provider.fails = f"[ONNXRuntimeError] : 11 : EP_FAIL : could not build engine for {tmp_path}/package/model.onnx"
    with pytest.raises(ModelNotLoaded, match=r"could not build engine for model\.onnx$"):
        OnnxRuntimeBackend(model, settings)
    assert [path.name for path in Path(settings.engine_cache).iterdir()] == ["build.lock"]
    provider.fails = ""
    OnnxRuntimeBackend(model, settings)
    assert len(provider.builds) == 1


def test_what_a_killed_build_left_behind_is_removed_by_the_next_one_of_any_model(
    provider: Provider, model: ModelToOpen, settings: BackendSettings
) -> None:
    OnnxRuntimeBackend(model, settings)
    kept = folder_in(settings)
    left = kept.with_name("0" * 64 + ".engines")
    left.mkdir()
    (left / ENGINE).write_bytes(b"half")
    with EngineCache(Path(settings.engine_cache), MIB).turn_to_build():
        assert kept.exists() and not left.exists()


def test_the_folder_is_its_users_alone(provider: Provider, model: ModelToOpen, settings: BackendSettings) -> None:
    OnnxRuntimeBackend(model, settings)
    folder = folder_in(settings)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {ENGINE: 0o600, "head.json": 0o600}


def test_engines_are_listed_counted_and_cleared_with_the_others(
    provider: Provider, model: ModelToOpen, settings: BackendSettings, tmp_path: Path
) -> None:
    provider.engine_size = MIB
    settings = replace(settings, engine_cache_size=int(2.5 * MIB))
    again = written(tmp_path / "again", trained_again())
    for opened in (model, again, replace(model, outputs=("map",))):
        OnnxRuntimeBackend(opened, settings)
    cache = EngineCache(Path(settings.engine_cache), MIB)
    kept = cache.engines()
    assert [each.head is not None and each.head.model_name for each in kept] == ["bottle", "bottle"]
    assert all(each.size > MIB for each in kept)
    assert len(provider.builds) == 3
    OnnxRuntimeBackend(model, settings)  # the oldest had made room
    assert len(provider.builds) == 4
    assert cache.clear() > 2 * MIB
    assert cache.engines() == []


def test_engines_larger_than_all_there_may_be_are_not_kept_and_serve_all_the_same(
    provider: Provider, model: ModelToOpen, settings: BackendSettings, caplog: pytest.LogCaptureFixture
) -> None:
    provider.engine_size = 2 * MIB
    assert score(OnnxRuntimeBackend(model, replace(settings, engine_cache_size=MIB))) == pytest.approx(0.8)
    assert list(Path(settings.engine_cache).glob("*.engines")) == []
    assert "raise engine_cache_size" in caplog.text


def test_a_cache_that_cannot_be_used_costs_a_build_at_every_start_and_nothing_else(
    provider: Provider, model: ModelToOpen, settings: BackendSettings
) -> None:
    Path(settings.engine_cache).touch()
    for _ in range(2):
        assert score(OnnxRuntimeBackend(model, settings)) == pytest.approx(0.8)
    assert len(provider.builds) == 2


def test_who_waits_for_another_build_says_so_and_loads_what_was_built(
    provider: Provider, model: ModelToOpen, settings: BackendSettings, tmp_path: Path
) -> None:
    waits, told = threading.Event(), list[tuple[str, Stage]]()

    def tell(text: str, stage: Stage = "loading") -> None:
        told.append((text, stage))
        waits.set()

    opened: list[OnnxRuntimeBackend] = []
    waiting = threading.Thread(
        target=lambda: opened.append(OnnxRuntimeBackend(replace(model, on_progress=tell), settings))
    )
    with EngineCache(Path(settings.engine_cache), MIB).turn_to_build():
        waiting.start()
        assert waits.wait(30)
        others = replace(settings, engine_cache=str(tmp_path / "others"))
        OnnxRuntimeBackend(model, others)
        folder_in(others).rename(Path(settings.engine_cache) / folder_in(others).name)
    waiting.join(30)
    assert told == [("waiting: another TensorRT engine is being built on this device", "waiting")]
    assert len(provider.builds) == 1
    assert score(opened[0]) == pytest.approx(0.8)


@pytest.mark.parametrize(("error", "builds"), [(0.04, 1), (0.06, 2)])
def test_half_precision_that_deviates_gives_way_to_fp32_and_says_so(
    provider: Provider, settings: BackendSettings, tmp_path: Path, error: float, builds: int
) -> None:
    provider.fp16_error = error
    opened = open_tested(read_package(make_package(tmp_path / "p", any_size=False)), settings)
    assert len(provider.builds) == builds
    assert ("fp16 deviates in the self-test, so it runs in fp32" in str(opened.runs_on)) is (builds == 2)


def test_cuda_and_the_processor_build_no_engines(
    model: ModelToOpen, settings: BackendSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("working", monkeypatch.setattr)
    backend = onnx_runtime.OnnxRuntimeBackend(model, replace(settings, device="cuda"))
    assert (backend.precision, backend.lowered_to) == ("fp32", "TF32")
    assert not Path(settings.engine_cache).exists()
