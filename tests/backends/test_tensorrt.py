"""TensorRT's backend, against fakes of its calls and of CUDA's: what it builds, keeps, loads, runs and refuses."""

from __future__ import annotations

import gc
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from agent.backends import cuda_runtime
from agent.backends.base import BackendSettings, ModelToOpen
from agent.backends.engine_cache import EngineCache
from agent.backends.prebuilt import file_for_tensorrt
from agent.backends.tensorrt import RunFailed, TensorRtBackend
from agent.errors import (
    DeviceNotUsable,
    EngineNotTaken,
    GpuFailed,
    GpuMemoryFull,
    ModelDoesNotFit,
    ModelNotLoaded,
    NoGpuMemoryToLoad,
    NoMemoryToLoad,
    NoRuntimeForPackage,
)
from agent.packages.manifest import OnnxModel, PackageFile, TensorRtEngine
from tests.support import fake_tensorrt as fakes
from tests.support.fake_tensorrt import FakeTensorRt, fake_engine
from tests.support.packages import HEIGHT, WIDTH, darkness_model, first_channel_model, grey

SHAPE = (1, HEIGHT, WIDTH, 3)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "package" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(darkness_model().SerializeToString())
    return ModelToOpen(path, "image", SHAPE, "uint8", ("score", "map"), name="bottle")


@pytest.fixture
def settings(tmp_path):
    return BackendSettings(engine_cache=str(tmp_path / "engines"), engine_workspace=1 << 28)


@pytest.fixture
def trt(fake_tensorrt):
    return fake_tensorrt


def kept(settings):
    return EngineCache(Path(settings.engine_cache), 1 << 30).engines()


def raising(error):
    def raises(*arguments):
        raise error

    return raises


def refusal(model, settings, kind=ModelNotLoaded):
    with pytest.raises(kind) as refused:
        TensorRtBackend(model, settings)
    return str(refused.value)


# --- build and keep


def test_the_first_start_builds_the_engine_and_the_second_loads_it(trt, model, settings):
    first = TensorRtBackend(model, settings)
    second = TensorRtBackend(model, settings)
    assert (len(trt.builds), trt.loads) == (1, 2)
    for backend in (first, second):
        assert backend.run({"image": grey(51)[None]})["score"].tolist() == pytest.approx([0.8])
    (engine,) = kept(settings)
    assert (engine.head.model_name, engine.head.key.gpu, engine.head.key.cuda) == ("bottle", "Fake GPU", "12.6")


def test_an_engine_is_built_as_the_settings_say(trt, model, settings):
    TensorRtBackend(model, settings)
    (built,) = trt.builds
    assert built["workspace"] == 1 << 28
    assert built["fp16"] is True
    assert built["shapes"] == {"image": SHAPE}
    assert built["level"] == 3


def test_what_nobody_reads_is_not_computed(trt, model, settings):
    TensorRtBackend(replace(model, outputs=("score",)), settings)
    (engine,) = kept(settings)
    content = EngineCache(Path(settings.engine_cache), 1 << 30).find(engine.head.key)
    built = onnx.load_from_string(bytes(content).partition(b"\n")[2])
    assert [output.name for output in built.graph.output] == ["score"]


def test_progress_is_told_while_it_is_built_and_not_when_it_is_loaded(trt, model, settings):
    said = []
    watched = replace(model, on_progress=lambda *told: said.append(told))
    TensorRtBackend(watched, settings)
    assert said[0] == ("building a TensorRT engine in fp16: this takes minutes, once", "building")
    said.clear()
    TensorRtBackend(watched, settings)
    assert said == []


def test_a_tensorrt_that_tells_of_no_progress_builds_all_the_same(gpu_without_tensorrt, monkeypatch, model, settings):
    trt = FakeTensorRt(gpu_without_tensorrt, "8.6.2", tells_progress=False)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    said = []
    backend = TensorRtBackend(replace(model, on_progress=lambda text, stage: said.append(text)), settings)
    assert said == ["building a TensorRT engine in fp16: this takes minutes, once"]
    assert backend.run({"image": grey(51)[None]})["score"].tolist() == pytest.approx([0.8])


def test_timings_of_one_build_serve_the_next(trt, model, settings):
    TensorRtBackend(model, settings)
    TensorRtBackend(replace(model, outputs=("score",)), settings)
    assert [built["timing"] for built in trt.builds] == [b"", b"measured;"]


def test_who_waits_for_another_build_says_so_and_loads_what_was_built(trt, model, settings):
    waits, said, opened = threading.Event(), [], []

    def tell(text, stage):
        said.append((text, stage))
        waits.set()

    waiting = threading.Thread(
        target=lambda: opened.append(TensorRtBackend(replace(model, on_progress=tell), settings))
    )
    with EngineCache(Path(settings.engine_cache), 1 << 30).turn_to_build():
        waiting.start()
        assert waits.wait(30)
        (finished,) = said
        assert finished == ("waiting: another TensorRT engine is being built on this device", "waiting")
        # The other one's engine: here without the lock, which is held.
        others = replace(settings, engine_cache=settings.engine_cache + "-of-another")
        TensorRtBackend(model, others)
        (engine,) = kept(others)
        (Path(others.engine_cache) / engine.file).rename(Path(settings.engine_cache) / engine.file)
    waiting.join(30)
    assert len(trt.builds) == 1
    assert opened[0].run({"image": grey(0)[None]})["score"][0] == 1


def test_another_tensorrt_gpu_or_model_has_an_engine_of_its_own(trt, model, settings, monkeypatch):
    TensorRtBackend(model, settings)
    trt.__version__ = "10.7.0"
    TensorRtBackend(model, settings)
    other = cuda_runtime.Gpu("NVIDIA L4", "8.9", is_integrated=False)
    monkeypatch.setattr(cuda_runtime.CudaRuntime, "gpu", other)
    TensorRtBackend(model, settings)
    graph = darkness_model()
    graph.graph.doc_string = "trained again"
    model.path.write_bytes(graph.SerializeToString())
    TensorRtBackend(model, settings)
    assert (len(trt.builds), len(kept(settings))) == (4, 4)


# --- what goes wrong with what was kept: row E7


@pytest.mark.parametrize("content", [b"", bytes(5000), b"random" * 999, None], ids=["empty", "zeros", "text", "cut"])
def test_a_damaged_engine_is_put_aside_and_built_again_once(trt, model, settings, content):
    TensorRtBackend(model, settings)
    path = Path(settings.engine_cache) / kept(settings)[0].file
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    backend = TensorRtBackend(model, settings)
    assert backend.run({"image": grey(51)[None]})["score"].tolist() == pytest.approx([0.8])
    TensorRtBackend(model, settings)
    assert len(trt.builds) == 2


@pytest.mark.parametrize("head", [{"version": "9.0.0"}, {"gpu": "8.9"}, {"size": 3}])
def test_an_engine_that_tensorrt_refuses_is_put_aside_and_built_again_once(trt, model, settings, head, caplog):
    TensorRtBackend(model, settings)
    cache, key = EngineCache(Path(settings.engine_cache), 1 << 30), kept(settings)[0].head.key
    content = engine_bytes(trt, **head)
    cache.store(key, memoryview(content), "bottle", 0.0)
    backend = TensorRtBackend(model, settings)
    assert len(trt.builds) == 2
    assert backend.run({"image": grey(51)[None]})["score"].tolist() == pytest.approx([0.8])
    assert "put aside: TensorRT 10.3.0 does not load it: IRuntime::deserializeCudaEngine" in caplog.text


@pytest.mark.parametrize(
    "said", ["Error Code 1: Cuda Runtime (out of memory)", "Error Code 2: OutOfMemory (Requested size was 123 bytes.)"]
)
def test_a_gpu_that_is_full_is_no_reason_to_build_again(trt, model, settings, said):
    TensorRtBackend(model, settings)
    trt.gpu_trouble = said
    assert "the GPU's memory is full" in refusal(model, settings, NoGpuMemoryToLoad)
    trt.gpu_trouble = "Error Code 1: Cuda Runtime (unspecified launch failure)"
    assert f"the GPU does not take the engine: {trt.gpu_trouble}" in refusal(model, settings)
    trt.gpu_trouble = ""
    TensorRtBackend(model, settings)
    assert len(trt.builds) == 1


def engine_bytes(trt, **head):
    made_for = {"version": trt.__version__, "gpu": trt.gpu, "fp16": False, "shapes": {"image": SHAPE}}
    content = fake_engine({**made_for, **head}, darkness_model())
    if "size" in head:  # the maker wrote the right one
        content = content.replace(b'"size": ', b'"size": 1', 1)
    return content


def test_an_engine_that_is_refused_right_after_its_build_is_no_reason_to_build_for_ever(
    trt, model, settings, monkeypatch
):
    monkeypatch.setattr(FakeTensorRt, "gpu", property(lambda self: f"changed {len(self.builds)}"))
    said = refusal(model, settings)
    assert "it does not load what it has just built: IRuntime::deserializeCudaEngine" in said
    assert len(trt.builds) == 1
    assert kept(settings) == []


def test_a_cache_that_cannot_be_used_costs_a_build_at_every_start_and_nothing_else(trt, model, settings, caplog):
    Path(settings.engine_cache).write_text("a file where the folder should be")
    for _ in range(2):
        backend = TensorRtBackend(model, settings)
        assert backend.run({"image": grey(51)[None]})["score"].tolist() == pytest.approx([0.8])
    assert len(trt.builds) == 2
    assert "cannot be used" in caplog.text
    assert "name another folder as engine_cache" in caplog.text


def test_a_full_disk_costs_the_next_start_a_build_and_nothing_else(trt, model, settings, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.atomic_file.os.write", full)
    backend = TensorRtBackend(model, settings)
    assert backend.run({"image": grey(51)[None]})["score"].tolist() == pytest.approx([0.8])
    assert "could not be kept: [Errno 28] No space left on device" in caplog.text


def test_without_a_cache_nothing_is_kept_and_builds_count_as_loading(trt, model):
    """Nothing else would keep them apart."""
    stages = []
    watched = replace(model, on_progress=lambda text, stage="loading": stages.append(stage))
    TensorRtBackend(watched, BackendSettings())
    TensorRtBackend(watched, BackendSettings())
    assert len(trt.builds) == 2
    assert set(stages) == {"loading"}


# --- precision


def test_fp32_is_built_where_it_is_wanted(trt, model, settings):
    backend = TensorRtBackend(model, replace(settings, precision="fp32"))
    assert (backend.precision, backend.lowered_to, trt.builds[0]["fp16"]) == ("fp32", "", False)


def test_fp32_is_no_tf32(trt, model, settings):
    TensorRtBackend(model, settings)
    TensorRtBackend(model, replace(settings, precision="fp32"))
    assert [built["tf32"] for built in trt.builds] == [True, False]


def test_fp16_and_fp32_are_two_engines(trt, model, settings):
    TensorRtBackend(model, settings)
    TensorRtBackend(model, replace(settings, precision="fp32"))
    TensorRtBackend(model, settings)
    assert [built["fp16"] for built in trt.builds] == [True, False]


def test_a_strongly_typed_tensorrt_does_what_the_graph_says(gpu_without_tensorrt, monkeypatch, model, settings):
    trt = FakeTensorRt(gpu_without_tensorrt, "11.0.0", strongly_typed=True)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    backend = TensorRtBackend(model, settings)
    assert (backend.precision, backend.lowered_to, trt.builds[0]["fp16"]) == ("fp32", "TF32", False)
    TensorRtBackend(model, replace(settings, precision="fp32"))
    assert [built["tf32"] for built in trt.builds] == [True, False], "these are two engines"


def test_a_graph_in_half_precision_is_not_lowered(trt, tmp_path, settings):
    (tmp_path / "half.onnx").write_bytes(first_channel_model(dtype=TensorProto.FLOAT16).SerializeToString())
    half = ModelToOpen(tmp_path / "half.onnx", "input", (1, 3, 8, 12), "float16", ("score",))
    backend = TensorRtBackend(half, settings)
    assert (backend.precision, backend.lowered_to) == ("fp16", "")


# --- a run


def test_a_run_copies_there_runs_copies_back_and_waits_once(trt, model, settings, fake_cuda):
    backend = TensorRtBackend(model, settings)
    before = len(fake_cuda.history)
    backend.run({"image": grey(0)[None]})
    copies = ["cudaMemcpyAsync"] * 3
    assert fake_cuda.history[before:] == [*copies, "cudaStreamSynchronize"]


def test_an_input_of_another_shape_is_no_input(trt, model, settings):
    backend = TensorRtBackend(model, settings)
    with pytest.raises(ValueError, match=r"is not the shape of 'image'"):
        backend.run({"image": np.zeros((1, 1, 1, 3), np.uint8)})


def test_all_memory_is_given_back(trt, model, settings, fake_cuda):
    backend = TensorRtBackend(model, settings)
    assert fake_cuda.blocks == 7  # three tensors on both sides, and the stream
    del backend
    gc.collect()
    assert fake_cuda.blocks == 0


def test_a_gpu_that_fails_for_good_is_told_so(trt, model, settings, fake_cuda):
    backend = TensorRtBackend(model, settings)
    fake_cuda.fail("cudaStreamSynchronize", 700)
    with pytest.raises(GpuFailed, match="CUDA failure 700"):
        backend.run({"image": grey(0)[None]})


def test_a_run_that_tensorrt_does_not_accept_is_no_answer(trt, model, settings, fake_cuda):
    backend = TensorRtBackend(model, settings)
    trt.refuses_runs = True
    with pytest.raises(RunFailed):
        backend.run({"image": grey(0)[None]})
    fake_cuda.fail("cudaStreamSynchronize", 700)
    with pytest.raises(GpuFailed):
        backend.run({"image": grey(0)[None]})


def test_full_gpu_memory_refuses_a_call_and_no_more(trt, model, settings, fake_cuda):
    backend = TensorRtBackend(model, settings)
    fake_cuda.fail("cudaStreamSynchronize", 2)
    with pytest.raises(GpuMemoryFull):
        backend.run({"image": grey(51)[None]})
    fake_cuda.fail("", 0)
    assert backend.run({"image": grey(51)[None]})["score"].tolist() == pytest.approx([0.8])


def test_a_first_run_without_room_on_the_gpu_is_told(trt, model, settings, fake_cuda):
    fake_cuda.fail("cudaStreamSynchronize", 2)
    assert "could not load the model: the GPU's memory is full. Stop" in refusal(model, settings, NoGpuMemoryToLoad)


# --- refusals


def test_a_model_that_cannot_be_built_says_what_to_do(trt, model, settings):
    trt.build_fails = f"Could not find any implementation for node /layer ({model.path})"
    assert refusal(model, settings) == (
        "TensorRT 10.3.0 could not load the model: no engine can be built of it; run the model with device cpu or "
        "cuda: Could not find any implementation for node /layer (model.onnx)"
    )


def test_a_build_that_takes_more_memory_than_it_may_is_told_so(trt, model, settings):
    trt.build_fails = "[executionContext.cpp::allocate::1] Error Code 1: Myelin (std::bad_alloc)"
    assert "needs more memory than is free on this device" in refusal(model, settings, NoMemoryToLoad)


def test_an_engine_for_which_there_is_no_memory_is_told_so(trt, model, settings, monkeypatch):
    monkeypatch.setattr(fakes.Network, "get_output", raising(MemoryError()))
    assert "needs more memory than is free on this device" in refusal(model, settings, NoMemoryToLoad)


def test_a_name_that_is_not_utf_8_is_told(trt, model, settings, monkeypatch):
    monkeypatch.setattr(fakes.Network, "get_output", raising(UnicodeDecodeError("utf-8", b"\xbc", 0, 1, "start")))
    assert refusal(model, settings).endswith("could not load the model: a name in the graph is not UTF-8")


def test_a_first_run_that_fails_is_told(trt, model, settings):
    trt.refuses_runs = True
    assert "its first run failed: TensorRT did not accept the run" in refusal(model, settings)


def test_images_of_any_size_are_not_for_an_engine(trt, model, settings):
    said = refusal(replace(model, any_size=True), settings)
    assert "takes images of any size, and an engine is built for one; package it for the size" in said
    assert trt.builds == []


def test_a_gpu_without_enough_memory_is_told_and_nothing_stays_behind(trt, model, settings, fake_cuda):
    fake_cuda.fail("cudaMalloc", 2)
    said = refusal(model, settings, NoGpuMemoryToLoad)
    assert said.startswith("TensorRT 10.3.0 could not load the model: the GPU's memory is full. Stop a model")
    gc.collect()
    assert fake_cuda.blocks == 0


@pytest.mark.parametrize(
    ("code", "expected"),
    [(35, "there is no NVIDIA driver"), (100, "CUDA finds no GPU"), (999, "CUDA failure 999")],
)
def test_a_device_without_a_gpu_that_works_says_so(trt, model, settings, fake_cuda, code, expected):
    fake_cuda.fail("cudaGetDeviceCount", code)
    assert expected in refusal(model, settings, DeviceNotUsable)


def test_without_tensorrt_it_is_told_how_to_install_it(gpu_without_tensorrt, monkeypatch, model, settings):
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    said = refusal(model, settings, DeviceNotUsable)
    assert "it is not installed; on a Jetson it comes with JetPack" in said


def test_a_tensorrt_that_does_not_load_is_told_without_its_paths(
    gpu_without_tensorrt, monkeypatch, model, settings, tmp_path, caplog
):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open /opt/x')")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "broken")
    said = refusal(model, settings, DeviceNotUsable)
    assert "TensorRT cannot be used here: it is installed and does not load (the agent's log says why)" in said
    assert "libnvinfer.so.10" in caplog.text
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)


def test_outputs_whose_size_depends_on_the_image_are_refused(trt, model, settings, monkeypatch):
    monkeypatch.setattr(fakes.Context, "get_tensor_shape", lambda self, name: (1, -1))
    said = refusal(model, settings, ModelDoesNotFit)
    assert "depends on the image, which an engine cannot serve; run it with device cpu or cuda" in said


def test_outputs_that_are_no_plain_arrays_are_refused(trt, model, settings, monkeypatch):
    monkeypatch.setattr(fakes.Engine, "get_tensor_format", lambda self, name: trt.TensorFormat.CHW16)
    assert "of its engine is no plain array" in refusal(model, settings, ModelDoesNotFit)


# --- engines of a package: row E7


@pytest.fixture
def prebuilt(trt, tmp_path):
    """Writes an engine, built for this device unless told else, and gives what a backend is to know of it."""

    def written(content=None, **head):
        path = tmp_path / "model.engine"
        path.write_bytes(engine_bytes(trt, **head) if content is None else content)
        engine = TensorRtEngine("8.7", "10.3.0", "int8")
        return ModelToOpen(path, "image", SHAPE, "uint8", ("score",), engine=engine)

    return written


def test_an_engine_of_the_package_is_loaded_and_none_is_built(trt, prebuilt, settings):
    backend = TensorRtBackend(prebuilt(), settings)
    assert (trt.builds, backend.precision, backend.lowered_to) == ([], "int8", "")
    assert backend.run({"image": grey(51)[None]})["score"].tolist() == pytest.approx([0.8])
    assert not Path(settings.engine_cache).exists()


@pytest.mark.parametrize(
    ("content", "head"),
    [
        (b"", {}),
        (b"\0" * 4096, {}),
        (np.random.default_rng(1).bytes(4096), {}),
        (None, {"size": 1}),
        (None, {"version": "10.2.0"}),
        (None, {"gpu": "8.6"}),
    ],
    ids=["zero length", "zeros", "random", "truncated", "another version", "another GPU"],
)
def test_an_engine_of_the_package_that_is_not_taken_says_what_to_do(trt, prebuilt, settings, content, head):
    said = refusal(prebuilt(content, **head), settings)
    assert (
        "does not take the package's prebuilt engine; build it on a device like this one, or package the ONNX" in said
    )
    assert trt.builds == []


def test_an_engine_of_the_package_that_does_not_run_is_told_apart_from_a_model_that_does_not(trt, prebuilt, settings):
    trt.refuses_runs = True
    assert "its first run failed" in refusal(prebuilt(), settings, EngineNotTaken)


def test_a_full_gpu_is_no_fault_of_the_packages_engine(trt, prebuilt, settings):
    trt.gpu_trouble = "IRuntime::deserializeCudaEngine: Error Code 2: OutOfMemory"
    assert "the GPU's memory is full" in refusal(prebuilt(), settings, NoGpuMemoryToLoad)


def test_an_engine_for_another_size_of_image_is_refused(prebuilt, settings):
    said = refusal(prebuilt(shapes={"image": [1, 32, 32, 3]}), settings, ModelDoesNotFit)
    assert "its engine does not take 'image' of the shape (1, 64, 96, 3)" in said


# --- which file of a package

ONNX = PackageFile("model.onnx", 1, "0" * 64, OnnxModel())
IMAGE = PackageFile("good.rgb", 1, "0" * 64)


def engine_for(compute_capability, version, precision="fp16"):
    return PackageFile("model.engine", 1, "0" * 64, TensorRtEngine(compute_capability, version, precision))


@pytest.mark.parametrize("version", ["10.3", "10.3.0", "10.3.0.26"])
def test_an_engine_for_this_device_is_preferred(trt, version):
    fitting = engine_for("8.7", version)
    assert file_for_tensorrt([ONNX, IMAGE, engine_for("8.6", version), fitting]) is fitting


@pytest.mark.parametrize(("compute_capability", "version"), [("8.6", "10.3.0"), ("8.7", "10.2.0"), ("8.7", "10.30.0")])
def test_an_engine_for_another_device_is_left_for_the_onnx_model(trt, compute_capability, version):
    assert file_for_tensorrt([engine_for(compute_capability, version), ONNX]) is ONNX


def test_a_package_of_engines_for_other_devices_says_for_which(trt):
    with pytest.raises(NoRuntimeForPackage) as refused:
        file_for_tensorrt([engine_for("8.6", "10.3.0"), engine_for("7.2", "8.5.2")])
    assert (
        "its engines are for TensorRT 10.3.0 and 8.6 in fp16, TensorRT 8.5.2 and 7.2 in fp16, and this device has "
        "TensorRT 10.3.0 and compute capability 8.7; package the ONNX model too, of which an engine is built here."
    ) in str(refused.value)


@pytest.mark.parametrize(
    ("files", "lowest", "chosen"),
    [
        (["fp16", "onnx"], "fp16", 0),
        (["fp16", "onnx"], "fp32", 1),
        (["fp16", "fp32", "onnx"], "fp32", 1),
        (["fp16"], "fp32", 0),
    ],
)
def test_an_engine_is_as_precise_as_it_has_to_be_where_there_is_a_choice(trt, files, lowest, chosen):
    listed = [ONNX if kind == "onnx" else engine_for("8.7", "10.3.0", kind) for kind in files]
    assert file_for_tensorrt(listed, lowest) is listed[chosen]


def test_engines_are_not_for_a_device_without_a_gpu(trt, fake_cuda):
    fake_cuda.has_gpus(0)
    assert file_for_tensorrt([engine_for("8.7", "10.3.0"), ONNX]) is ONNX
