"""Which device a model runs on, whatever is installed: the one asked for, or one that is told, or none."""

from __future__ import annotations

import gc
import importlib.util
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest

from agent import errors
from agent.backends import gpu_memory, onnx_runtime, opening
from agent.backends.base import BackendSettings, RunsOn, WantedDevice
from agent.backends.opening import devices_to_try
from agent.backends.tensorrt_api import MODULES
from agent.errors import (
    BadPackage,
    DeviceNotUsable,
    GpuFailed,
    GpuMemoryFull,
    ModelDoesNotFit,
    NoDeviceHasRoom,
    NoDeviceRunsModel,
    NoGpuMemoryToLoad,
    NoMemoryToLoad,
    Refusal,
)
from agent.packages.package import read_package
from agent.pipeline import Pipeline
from agent.settings import DEVICES, Settings, device_of
from tests.support.fake_tensorrt import FakeTensorRt
from tests.support.packages import HEIGHT, WIDTH, changed, darkness_model, grey, make_package
from tests.support.pretended_gpu import GPU, SURROUNDINGS, pretend
from tests.support.wrong_devices import CASES, WITH_TENSORRT, Case

CUDA_ALONE = BackendSettings(device="cuda")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("package") / "dark", any_size=False)


@pytest.fixture(autouse=True)
def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name == "tensorrt" else find_spec(name))
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "agent.backends.tensorrt", raising=False)


class Raises:
    """In place of bound runs."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def run(self, image: object) -> None:
        raise self._error


def settings_of(case: Case) -> BackendSettings:
    device, allows_fallback = device_of(Settings(device=case.device, fallback=case.fallback), "any")
    return BackendSettings(device=device, allows_fallback=allows_fallback)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_device_runs_the_model_or_says_why_not(case: Case, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(case.installed, monkeypatch.setattr)
    comes_out_as_told(case, package)


@pytest.mark.parametrize("case", WITH_TENSORRT, ids=str)
def test_a_device_with_tensorrt_runs_the_model_or_says_why_not(
    case: Case, package: Path, fake_tensorrt: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(case.installed, monkeypatch.setattr)
    monkeypatch.setattr(opening, "find_spec", lambda name: object())
    if case.installed == "no GPU":
        fake_tensorrt.cuda.has_gpus(0)
    if case.installed == "memory full":  # of a Jetson, which shares it
        monkeypatch.setattr(gpu_memory, "available_memory", lambda: 100 << 20)
    comes_out_as_told(case, package)


def comes_out_as_told(case: Case, package: Path) -> None:
    settings = settings_of(case)
    if case.runs_on is None:
        with pytest.raises(BadPackage if case.installed != "memory full" else Refusal) as refusal:
            Pipeline(read_package(package), settings)
        said = str(refusal.value)
    else:
        pipeline = Pipeline(read_package(package), settings)
        pipeline.self_test()
        runs_on, said = pipeline.runs_on, str(pipeline.runs_on)
        assert runs_on.device == case.runs_on
        assert runs_on.runtime.startswith(case.by)
        assert runs_on.instead_of == (devices_to_try(settings)[0] if case.says else "")
        assert runs_on.wanted == case.device
        assert bool(runs_on.refused_as) is bool(case.says)
        if runs_on.refused_as:  # a closed set: it is a label of the metrics
            assert issubclass(getattr(errors, runs_on.refused_as), opening._ANOTHER_MAY_DO)
    assert case.says in said
    assert "\n" not in said and "/onnxruntime_src" not in said and "hostname" not in said


def test_every_kind_of_surroundings_is_tried() -> None:
    assert {case.installed for case in CASES} == set(SURROUNDINGS)


def test_the_devices_of_the_settings_are_those_of_the_backends() -> None:
    assert {word for words in get_args(WantedDevice) for word in get_args(words)} == set(DEVICES)
    assert set(opening.RUNTIME_OF) == set(DEVICES) - {"auto"}


def test_memory_that_is_short_for_the_first_device_does_not_fail_the_model(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU's runtime takes more of the processor's memory too."""
    pretend("working", monkeypatch.setattr)
    session = onnxruntime.InferenceSession

    def short_of_memory(*arguments: object, providers: list[tuple[str, object]], **others: object) -> object:
        if providers[0][0] == "CUDAExecutionProvider":
            raise MemoryError("std::bad_alloc")
        return session(*arguments, providers=providers, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", short_of_memory)
    with pytest.raises(NoMemoryToLoad):
        Pipeline(read_package(package), CUDA_ALONE)
    runs_on = Pipeline(read_package(package), replace(CUDA_ALONE, allows_fallback=True)).runs_on
    assert (runs_on.device, runs_on.instead_of) == ("CPU", "cuda")
    assert "it needs more memory than is free on this device" in runs_on.because


def test_where_no_device_has_room_it_is_told_as_a_want_of_memory(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a restart is tried again, and the model not given up."""
    pretend("memory full", monkeypatch.setattr)

    def short_of_memory(*arguments: object, **others: object) -> object:
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(onnxruntime, "InferenceSession", short_of_memory)
    with pytest.raises(NoDeviceHasRoom, match=r"^\[cuda\] The model needs about .*\[cpu\] ONNX Runtime .* more memory"):
        Pipeline(read_package(package), replace(CUDA_ALONE, allows_fallback=True))


def test_a_device_that_fails_halfway_holds_nothing_while_another_serves(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("no kernels", monkeypatch.setattr)
    sessions = []
    session = onnx_runtime._session

    def watched(*arguments: Any) -> Any:
        opened = session(*arguments)
        sessions.append(weakref.ref(opened))
        return opened

    monkeypatch.setattr(onnx_runtime, "_session", watched)
    gc.collect()
    gc.disable()  # a garbage collector comes when it comes
    try:
        pipeline = Pipeline(read_package(package), replace(CUDA_ALONE, allows_fallback=True))
        assert [reference() is not None for reference in sessions] == [False, True]
        assert pipeline.runs_on.device == "CPU"
    finally:
        gc.enable()


# --- which devices are tried


def test_a_named_device_is_the_only_one_unless_fallback_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("working", monkeypatch.setattr)
    assert devices_to_try(BackendSettings(device="tensorrt")) == ("tensorrt",)
    assert devices_to_try(BackendSettings(device="tensorrt", allows_fallback=True)) == ("tensorrt", "cuda", "cpu")
    assert devices_to_try(BackendSettings(device="cuda", allows_fallback=True)) == ("cuda", "cpu")
    assert devices_to_try(BackendSettings(device="cpu", allows_fallback=True)) == ("cpu",)
    through = BackendSettings(device="onnxruntime-tensorrt", allows_fallback=True)
    assert devices_to_try(through) == ("onnxruntime-tensorrt", "cuda", "cpu")


def test_auto_tries_what_is_installed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = BackendSettings(device="auto", allows_fallback=True)
    assert devices_to_try(auto) == ("cpu",)
    pretend("working", monkeypatch.setattr)
    assert devices_to_try(auto) == ("cuda", "cpu")
    monkeypatch.setattr(opening, "find_spec", lambda name: object())
    assert devices_to_try(auto) == ("tensorrt", "cuda", "cpu")
    assert devices_to_try(replace(auto, allows_fallback=False)) == ("tensorrt",)


def test_a_model_that_does_not_fit_its_manifest_is_tried_on_no_other_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_package(
        tmp_path / "p", change=lambda manifest: changed(manifest, outputs=changed(manifest.outputs, score="heat"))
    )
    pretend("working", monkeypatch.setattr)
    with pytest.raises(ModelDoesNotFit):
        Pipeline(read_package(package), BackendSettings(device="auto", allows_fallback=True))


def test_where_no_device_runs_the_model_each_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = darkness_model()
    model.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(np.array([7], np.int64), "channels"))  # no axis 7
    package = make_package(tmp_path / "p", model=model)
    pretend("no driver", monkeypatch.setattr)
    with pytest.raises(
        NoDeviceRunsModel, match=r"\[cuda\] CUDA cannot be used .*\[cpu\] ONNX Runtime .* could not load"
    ):
        Pipeline(read_package(package), BackendSettings(device="cuda", allows_fallback=True))


def test_what_stands_in_for_another_device_says_so() -> None:
    runs_on = RunsOn("ONNX Runtime 1.31.1", "CPU", "cuda", "CUDA cannot be used here: there is no GPU")
    assert str(runs_on) == "ONNX Runtime 1.31.1 on CPU, instead of cuda: CUDA cannot be used here: there is no GPU"


# --- on the GPU


def test_options_keep_cuda_small_and_within_its_limit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("working", monkeypatch.setattr)
    pipeline = Pipeline(read_package(package), replace(CUDA_ALONE, gpu_memory_limit=1 << 30))
    assert pipeline._backend._session.asked_for == {  # type: ignore[attr-defined]
        "CUDAExecutionProvider": {
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",
            "cudnn_conv_use_max_workspace": "0",
            "gpu_mem_limit": str(1 << 30),
        },
        "CPUExecutionProvider": {},
    }


def test_a_limit_below_what_the_model_needs_is_refused_with_figures(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("working", monkeypatch.setattr)
    with pytest.raises(Refusal, match=r"needs about 256 MiB of GPU memory, and 64 MiB may be taken\. Stop a model"):
        Pipeline(read_package(package), replace(CUDA_ALONE, gpu_memory_limit=64 << 20))


def test_a_run_that_breaks_the_gpu_ends_with_gpu_failed(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("working", monkeypatch.setattr, tmp_path)
    pipeline = Pipeline(read_package(package), CUDA_ALONE)
    (tmp_path / "sticky").touch()
    with pytest.raises(GpuFailed) as failure:
        pipeline.detect(grey(51))
    assert str(failure.value) == (
        "The GPU failed (a kernel read or wrote beyond its memory (CUDA failure 700)); "
        "the process that used it has to end."
    )


def test_a_gpu_that_fails_while_the_model_is_opened_is_not_usable(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("working", monkeypatch.setattr, tmp_path)
    (tmp_path / "sticky").touch()
    with pytest.raises(DeviceNotUsable, match=r"CUDA cannot be used here: a kernel read or wrote beyond its memory"):
        Pipeline(read_package(package), CUDA_ALONE)


def test_an_error_of_the_model_is_no_error_of_the_gpu(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("working", monkeypatch.setattr)
    backend = Pipeline(read_package(package), CUDA_ALONE)._backend
    with pytest.raises(Exception, match="size of numpy arrays does not match") as error:
        backend.run({"image": np.zeros((1, 2, 2, 2), np.uint8)})
    assert not isinstance(error.value, GpuFailed)


def test_buffers_of_runs_at_once_do_not_mix(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("working", monkeypatch.setattr)
    pipeline = Pipeline(read_package(package), CUDA_ALONE)
    assert isinstance(pipeline._backend, onnx_runtime.OnnxRuntimeBackend)
    with ThreadPoolExecutor(4) as threads:
        scores = list(threads.map(lambda value: pipeline.detect(grey(value)).score, range(0, 256, 2)))
    assert scores == pytest.approx([1 - value / 255 for value in range(0, 256, 2)], abs=1e-4)
    assert 1 <= len(pipeline._backend._bound._idle) <= 4  # type: ignore[union-attr]


def test_a_run_copies_its_image_once_into_a_buffer_that_is_there(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("working", monkeypatch.setattr)
    values, history = onnxruntime.OrtValue, []

    def made(*arguments: Any) -> Any:
        history.append("buffer")
        buffer = values.ortvalue_from_shape_and_type(*arguments)
        update = buffer.update_inplace
        buffer.update_inplace = lambda image: history.append("copy") or update(image)
        return buffer

    monkeypatch.setattr(onnxruntime, "OrtValue", SimpleNamespace(ortvalue_from_shape_and_type=made))
    pipeline = Pipeline(read_package(package), CUDA_ALONE)
    assert history == ["buffer", "copy"]  # the warm-up's
    for value in (51, 102):
        assert pipeline.detect(grey(value)).score == pytest.approx(1 - value / 255, abs=1e-4)
    assert history == ["buffer", "copy", "copy", "copy"]


def test_a_part_of_an_image_goes_to_the_gpu_as_it_is(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("working", monkeypatch.setattr)
    backend = Pipeline(read_package(package), CUDA_ALONE)._backend
    whole = np.random.default_rng(0).integers(0, 256, (1, 2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    part = whole[:, ::2, 5 : 5 + WIDTH]
    expected = 1 - part[0].astype(np.float32).mean(axis=2) / 255
    np.testing.assert_allclose(backend.run({"image": part})["map"][0, 0], expected, atol=1e-5)


def test_full_gpu_memory_refuses_a_call_and_no_more(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("working", monkeypatch.setattr)
    pipeline = Pipeline(read_package(package), CUDA_ALONE)
    with monkeypatch.context() as full:
        message = "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 4096"
        full.setattr(pipeline._backend, "_bound", Raises(RuntimeError(message)))
        with pytest.raises(GpuMemoryFull, match=r"^The GPU's memory is full; "):
            pipeline.detect(grey(51))
        full.setattr(onnx_runtime, "BoundRuns", lambda *others: Raises(RuntimeError(message)))
        with pytest.raises(NoGpuMemoryToLoad, match=r"could not load the model: the GPU's memory is full\. Stop a"):
            Pipeline(read_package(package), CUDA_ALONE)
    assert pipeline.detect(grey(51)).score == pytest.approx(0.8, abs=1e-4)


def test_the_gpu_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("working", monkeypatch.setattr)
    assert str(Pipeline(read_package(package), CUDA_ALONE).runs_on).endswith(f" on {GPU}")
