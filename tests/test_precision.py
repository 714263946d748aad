"""fp16 and TF32 are for models that pass their self-test in them; the others run in fp32, and say so."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from agent.backends.base import BackendSettings, say_nothing
from agent.errors import SelfTestFailed
from agent.packages.package import read_package
from agent.pipeline import open_tested
from agent.workbench.packaging.with_engine import write_with_engine
from tests.support.fake_tensorrt import FakeTensorRt
from tests.support.packages import grey, make_package
from tests.support.pretended_gpu import pretend


@pytest.fixture
def package(tmp_path):
    return read_package(make_package(tmp_path / "package"))


@pytest.fixture
def settings(tmp_path):
    return BackendSettings(device="tensorrt", engine_cache=str(tmp_path / "engines"))


def precisions(trt: FakeTensorRt) -> list[str]:
    return ["fp16" if built["fp16"] else "fp32" for built in trt.builds]


def test_a_model_that_passes_in_fp16_runs_in_it(fake_tensorrt, package, settings):
    fake_tensorrt.fp16_error = 0.04  # the package allows 0.05 in fp16, 0.005 in fp32
    opened = open_tested(package, settings)
    assert precisions(fake_tensorrt) == ["fp16"]
    assert str(opened.runs_on) == "TensorRT 10.3.0 on Fake GPU"


@pytest.mark.parametrize("error", [0.06, float("nan"), float("inf")])
def test_a_model_that_deviates_in_fp16_runs_in_fp32_and_says_so(fake_tensorrt, package, settings, error):
    fake_tensorrt.fp16_error = error
    said = []
    opened = open_tested(package, settings, lambda text, stage="loading": said.append(text))
    assert precisions(fake_tensorrt) == ["fp16", "fp32"]
    assert str(opened.runs_on) == ("TensorRT 10.3.0 on Fake GPU; fp16 deviates in the self-test, so it runs in fp32")
    assert said == [
        "building a TensorRT engine in fp16: this takes minutes, once",
        "running the self-test",
        "fp16 deviates in the self-test, so it runs in fp32",
        "building a TensorRT engine in fp32: this takes minutes, once",
    ]
    assert opened.pipeline.detect(grey(51, 96, 64)).score == pytest.approx(0.8)
    assert [got.score for _, got in opened.self_test] == [0.0]


def test_the_model_in_fp16_gives_its_memory_back_first(fake_tensorrt, package, settings, fake_cuda):
    fake_tensorrt.fp16_error = 1.0
    opened = open_tested(package, settings)
    assert fake_cuda.blocks == 7
    del opened


def test_the_next_start_builds_nothing(fake_tensorrt, package, settings):
    fake_tensorrt.fp16_error = 1.0
    open_tested(package, settings)
    opened = open_tested(package, settings)
    assert precisions(fake_tensorrt) == ["fp16", "fp32"]
    assert "so it runs in fp32" in str(opened.runs_on)


def test_fp32_that_deviates_is_a_failed_self_test_and_not_tried_for_ever(fake_tensorrt, settings, tmp_path):
    def wrong(manifest):
        test = msgspec.structs.replace(manifest.self_test[0], score=0.4)
        return msgspec.structs.replace(manifest, self_test=[test])

    package = read_package(make_package(Path(tmp_path, "wrong"), change=wrong))
    with pytest.raises(SelfTestFailed):
        open_tested(package, settings)
    assert precisions(fake_tensorrt) == ["fp16", "fp32"]


@pytest.fixture
def with_engine(fake_tensorrt, package, settings, tmp_path):
    """A package that brings an engine in fp16 for this device."""
    return write_with_engine(package, settings, None, tmp_path / "with-engine", say_nothing)


def test_an_engine_of_the_package_that_deviates_here_gives_way_too(fake_tensorrt, with_engine, tmp_path):
    fake_tensorrt.fp16_error = 0.2  # as on a GPU of the same name that computes otherwise
    opened = open_tested(with_engine, BackendSettings(device="tensorrt", engine_cache=str(tmp_path / "others")))
    assert precisions(fake_tensorrt) == ["fp16", "fp32"]
    assert str(opened.runs_on) == "TensorRT 10.3.0 on Fake GPU; fp16 deviates in the self-test, so it runs in fp32"


def test_an_engine_of_the_package_in_fp16_is_not_for_those_who_want_fp32(fake_tensorrt, with_engine):
    opened = open_tested(with_engine, BackendSettings(device="tensorrt", precision="fp32"))
    assert precisions(fake_tensorrt) == ["fp16", "fp32"]
    assert (
        opened.runs_on.remark == "the package's engines are for TensorRT 10.3.0 and 8.7 in fp16, so one was built here"
    )


def test_a_model_that_deviates_in_tf32_runs_in_fp32_and_says_so(gpu_without_tensorrt, package, settings, monkeypatch):
    """A strongly typed TensorRT computes in fp32 what the graph has in fp32, unless it takes TF32 for that."""
    trt = FakeTensorRt(gpu_without_tensorrt, "11.0.0", strongly_typed=True)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    trt.tf32_error = 0.01  # the package allows 0.005 in fp32
    opened = open_tested(package, settings)
    assert [built["tf32"] for built in trt.builds] == [True, False]
    assert str(opened.runs_on).endswith("on Fake GPU; TF32 deviates in the self-test, so it runs in fp32")


@pytest.mark.parametrize(("error", "deviates"), [(0.004, False), (0.01, True)])
def test_cuda_runs_in_tf32_unless_the_self_test_fails_in_it(package, monkeypatch, error, deviates):
    pretend("working", monkeypatch.setattr)
    sessions = []

    class WithTf32(onnxruntime.InferenceSession):
        def io_binding(self):
            binding = super().io_binding()
            copied = binding.copy_outputs_to_cpu
            off = 0.0 if sessions[-1] == "0" else error
            binding.copy_outputs_to_cpu = lambda: [values + np.float32(off) for values in copied()]
            return binding

        def __init__(self, path, **options):
            super().__init__(path, **options)
            sessions.append(self.asked_for["CUDAExecutionProvider"].get("use_tf32"))

    monkeypatch.setattr(onnxruntime, "InferenceSession", WithTf32)
    opened = open_tested(package, BackendSettings(device="cuda"))
    assert sessions == ([None, "0"] if deviates else [None])
    assert opened.runs_on.remark == ("TF32 deviates in the self-test, so it runs in fp32" if deviates else "")


def test_where_fp32_was_wanted_nothing_is_tried_in_its_place(fake_tensorrt, package, tmp_path):
    open_tested(package, BackendSettings(device="tensorrt", precision="fp32"))
    assert precisions(fake_tensorrt) == ["fp32"]
