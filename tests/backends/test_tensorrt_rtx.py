"""Engines built by a real TensorRT: TensorRT-RTX builds without a GPU, and refuses to load without one.

Runs where it is installed (`make engine-check` does that); it has wheels for x86 only.
"""

from __future__ import annotations

import random
from dataclasses import replace
from importlib.util import find_spec
from itertools import count

import pytest
from onnx import TensorProto

from agent.backends import engine_builder
from agent.backends.base import BackendSettings, ModelToOpen
from agent.backends.build_progress import BuildProgress
from agent.backends.cuda_runtime import CudaNotUsable, open_cuda_runtime
from agent.backends.engine_builder import BuildOptions, build_engine
from agent.backends.engine_cache import EngineCache
from agent.backends.engine_source import EngineSource
from agent.backends.prebuilt import engines_of
from agent.backends.tensorrt_api import load_tensorrt
from agent.errors import ModelDoesNotFit, ModelNotLoaded
from agent.packages.package import read_package, verify_files
from agent.workbench.packaging import with_engine
from tests.support import fake_tensorrt as fakes
from tests.support.fake_tensorrt import FakeTensorRt
from tests.support.packages import HEIGHT, WIDTH, darkness_model, first_channel_model, first_pixel_model, make_package

pytestmark = [
    pytest.mark.tensorrt_rtx,
    pytest.mark.skipif(
        find_spec("tensorrt_rtx_bindings") is None,
        reason="TensorRT-RTX is not installed; make engine-check installs it",
    ),
    # Raised while the module is imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorrt_rtx_bindings"),
]

SHAPE = (1, HEIGHT, WIDTH, 3)
OPTIONS = BuildOptions("fp32", True, 1 << 28)


@pytest.fixture
def trt(monkeypatch):
    monkeypatch.setattr("agent.backends.tensorrt_api.MODULES", {"tensorrt_rtx_bindings": "TensorRT-RTX"})
    return load_tensorrt()


@pytest.fixture
def write(tmp_path):
    def written(model, **fields):
        content = model if isinstance(model, bytes) else model.SerializeToString()
        (tmp_path / "model.onnx").write_bytes(content)
        known = {"input": "image", "input_shape": SHAPE, "input_dtype": "uint8", "outputs": ("score", "map"), **fields}
        return ModelToOpen(tmp_path / "model.onnx", **known)

    return written


@pytest.fixture
def build(trt):
    def built(model):
        return build_engine(trt, model, OPTIONS, b"").engine

    return built


def loaded(trt, content):
    trt.messages.forget()
    return trt.module.Runtime(trt.messages.logger).deserialize_cuda_engine(content)


# --- building


def test_a_graph_of_free_size_becomes_an_engine(build, write):
    assert build(write(darkness_model())).nbytes > 1000


@pytest.mark.parametrize(("batch", "dtype"), [(1, "float32"), (2, "float32"), ("N", "float32"), (1, "float16")])
def test_batches_and_precisions_become_engines(build, write, batch, dtype):
    kind = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT
    model = first_channel_model(batch=batch, dtype=kind)
    assert build(write(model, input="input", input_shape=(1, 3, 8, 12), input_dtype=dtype)).nbytes > 1000


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_on_unless_it_is_turned_off(trt, write, tf32):
    builder = trt.module.Builder(trt.messages.logger)
    config = engine_builder._config(trt, builder, replace(OPTIONS, tf32=tf32))
    assert config.get_flag(trt.module.BuilderFlag.TF32) is tf32
    assert build_engine(trt, write(darkness_model()), replace(OPTIONS, tf32=tf32), b"").engine.nbytes > 1000


def test_what_nobody_reads_is_left_out(build, write):
    both = build(write(darkness_model()))
    score = build(write(darkness_model(), outputs=("score",)))
    assert b"map" in bytes(both)
    assert bytes(score) != bytes(both)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (b"garbage" * 99, "it cannot read it; run the model with device cpu or cuda: Assertion failed: "),
        (first_pixel_model(), "Found unsupported input type of UINT8"),
    ],
    ids=["no model", "an operator it lacks"],
)
def test_what_cannot_be_read_says_why_and_what_to_do(build, write, model, expected, tmp_path):
    with pytest.raises(ModelNotLoaded) as refusal:
        build(write(model, outputs=("score",)))
    assert expected in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value)


def test_what_does_not_fit_is_refused_before_it_is_built(build, write):
    said = []
    with pytest.raises(ModelDoesNotFit, match="'image' is uint8; the manifest gives float32"):
        build(write(darkness_model(), input_dtype="float32", on_progress=lambda text, stage: said.append(text)))
    assert said == []


def test_its_phases_become_percents_that_only_rise(trt, write, monkeypatch):
    told, seconds = [], count()
    monkeypatch.setattr(
        "agent.backends.engine_builder.BuildProgress",
        lambda tell, what: BuildProgress(tell, what, lambda: next(seconds)),
    )
    build_engine(trt, write(darkness_model(), on_progress=lambda text, stage: told.append(text)), OPTIONS, b"")
    percents = [int(text.partition(": ")[2].partition(" %")[0]) for text in told[1:]]
    assert percents == sorted(percents)
    assert percents[0] < 20
    assert percents[-1] > 80
    assert told[-1].startswith("building a TensorRT engine in fp32: ")


def test_a_build_that_nobody_waits_for_any_more_ends(build, write, monkeypatch):
    """An exception out of a monitor would end the process."""
    monkeypatch.setattr("agent.backends.build_progress.STEP", 0.0)
    told = []

    def tell(text, stage):
        told.append(text)
        if len(told) > 1:
            raise BrokenPipeError

    with pytest.raises(ModelNotLoaded):
        build(write(darkness_model(), on_progress=tell))
    assert len(told) == 2


# --- keeping and loading


def without_gpu():
    try:
        open_cuda_runtime()
    except CudaNotUsable:
        return True
    return False


needs_no_gpu = pytest.mark.skipif(not without_gpu(), reason="there is a GPU, on which engines may load")


@needs_no_gpu
def test_an_engine_is_as_whole_from_the_cache_as_from_the_builder(trt, build, write, fake_cuda, tmp_path):
    model = write(darkness_model())
    engine = build(model)
    cache = EngineCache(tmp_path / "engines", 1 << 30)
    source = EngineSource(trt, open_cuda_runtime([str(fake_cuda.path)]), model, BackendSettings())
    key = source._key()
    cache.store(key, engine, "darkness", 0.1)
    for content in (engine, cache.find(key)):
        assert loaded(trt, content) is None
        # It got as far as the missing GPU: nothing is wrong with the engine itself.
        assert "CUDA driver version is insufficient" in trt.messages.cause


DAMAGES = {
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "random": lambda content: random.Random(1).randbytes(4096),
    "truncated": lambda content: content[:-9],
    "a beginning": lambda content: content[:64],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_whole_engine_is_refused_and_does_not_crash(trt, build, write, damage):
    content = bytes(build(write(darkness_model())))
    assert loaded(trt, DAMAGES[damage](content)) is None
    assert "insufficient" not in trt.messages.cause


@needs_no_gpu
def test_without_a_gpu_the_start_fails_with_the_reason_and_keeps_nothing(trt, write, fake_cuda, tmp_path):
    settings = BackendSettings(engine_cache=str(tmp_path / "engines"))
    source = EngineSource(trt, open_cuda_runtime([str(fake_cuda.path)]), write(darkness_model()), settings)
    assert (source.precision, source.lowered_to) == ("fp32", "TF32")
    with pytest.raises(ModelNotLoaded, match=r"does not load what it has just built: .*driver version is insufficient"):
        source.engine()
    assert EngineCache(tmp_path / "engines", 1 << 30).engines() == []


@needs_no_gpu
def test_an_engine_that_only_lacks_its_gpu_is_kept(trt, build, write, fake_cuda, tmp_path):
    model, settings = write(darkness_model()), BackendSettings(engine_cache=str(tmp_path / "engines"))
    source = EngineSource(trt, open_cuda_runtime([str(fake_cuda.path)]), model, settings)
    cache = EngineCache(tmp_path / "engines", 1 << 30)
    cache.store(source._key(), build(model), "darkness", 0.1)
    with pytest.raises(ModelNotLoaded, match="the GPU does not take the engine"):
        source.engine()
    assert cache.find(source._key()) is not None


@needs_no_gpu
def test_an_engine_is_as_whole_from_a_package_as_from_the_builder(trt, build, write, fake_cuda, tmp_path, monkeypatch):
    # Its own format is for no package; as bytes it is as good as any.
    monkeypatch.setattr("agent.backends.tensorrt_api.MODULES", {"tensorrt_rtx_bindings": "TensorRT"})
    model = write(darkness_model())
    key = EngineSource(trt, open_cuda_runtime([str(fake_cuda.path)]), model, BackendSettings())._key()
    (tmp_path / "new").mkdir()
    source = read_package(make_package(tmp_path / "package"))
    with_engine._fill(tmp_path / "new", source, key, build(model), "1.0.1")
    package = read_package(tmp_path / "new")
    verify_files(package)
    ((file, engine),) = engines_of(package.manifest.files)
    brought = replace(model, path=package.path_of(file), engine=engine)
    prebuilt = EngineSource(trt, open_cuda_runtime([str(fake_cuda.path)]), brought, BackendSettings())
    # Nothing is wrong with the engine itself, which would be EngineNotTaken.
    with pytest.raises(ModelNotLoaded, match=r"the GPU does not take the engine: .*driver version is insufficient"):
        prebuilt.engine()


# --- the fake


FAKES = {
    "Builder": fakes.Builder,
    "OnnxParser": fakes.OnnxParser,
    "Runtime": fakes.Runtime,
    "INetworkDefinition": fakes.Network,
    "IBuilderConfig": fakes.Config,
    "IOptimizationProfile": fakes.Profile,
    "ICudaEngine": fakes.Engine,
    "IExecutionContext": fakes.Context,
    "ITimingCache": fakes.TimingCache,
    "ITensor": fakes.Tensor,
    "ParserError": fakes.ParserError,
}


@pytest.mark.parametrize("name", FAKES)
def test_the_fake_has_no_call_that_the_real_one_lacks(trt, name):
    made_up = {call for call in vars(FAKES[name]) if not call.startswith("_")} - set(dir(getattr(trt.module, name)))
    assert made_up == set()


def test_the_fake_has_the_enumerations_of_the_real_one(trt, fake_cuda):
    fake = FakeTensorRt(fake_cuda, strongly_typed=True)
    for name in ("TensorIOMode", "TensorLocation", "TensorFormat", "MemoryPoolType", "DataType", "BuilderFlag"):
        assert set(getattr(fake, name).__members__) <= set(getattr(trt.module, name).__members__), name
    assert list(fake.NetworkDefinitionCreationFlag.__members__) == list(
        trt.module.NetworkDefinitionCreationFlag.__members__
    )
    assert list(fakes.Severity.__members__) == list(trt.module.ILogger.Severity.__members__)
