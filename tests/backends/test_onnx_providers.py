"""Execution providers: options, and why one does not load, told from its files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from agent.backends import onnx_providers
from agent.backends.base import BackendSettings, LowestPrecision, ModelToOpen
from agent.backends.onnx_providers import CPU, CUDA, TENSORRT, missing_library, provider_options, why_not_loaded


def model(**fields: object) -> ModelToOpen:
    known = {"path": Path("m.onnx"), "input": "image", "input_shape": (1, 3, 256, 320), "input_dtype": "float32"}
    return ModelToOpen(**{**known, "outputs": ("score",), **fields})  # type: ignore[arg-type]


def test_tensorrt_gets_the_shape_that_will_come_so_that_no_call_builds_an_engine() -> None:
    options = provider_options(TENSORRT, model(), BackendSettings())
    assert {options[f"trt_profile_{which}_shapes"] for which in ("min", "opt", "max")} == {"image:1x3x256x320"}


def test_tensorrt_gets_the_range_of_shapes_where_any_size_may_come() -> None:
    options = provider_options(TENSORRT, model(input_shape=(1, 64, 96, 3), any_size=True), BackendSettings())
    assert options["trt_profile_min_shapes"] == "image:1x64x64x3"
    assert options["trt_profile_opt_shapes"] == "image:1x64x96x3"
    assert options["trt_profile_max_shapes"] == "image:1x4096x4096x3"


def test_a_memory_limit_goes_to_cuda_and_the_cpu_has_no_options() -> None:
    limited = BackendSettings(gpu_memory_limit=1 << 30)
    assert provider_options(CUDA, model(), limited)["gpu_mem_limit"] == str(1 << 30)
    assert provider_options(CPU, model(), limited) == {}


def test_cuda_may_use_tf32_unless_fp32_is_wanted() -> None:
    assert "use_tf32" not in provider_options(CUDA, model(), BackendSettings())  # ONNX Runtime's default: 1
    assert provider_options(CUDA, model(), BackendSettings(precision="fp32"))["use_tf32"] == "0"


def test_tensorrt_builds_with_the_workspace_of_the_settings_and_keeps_engines_where_it_is_told() -> None:
    options = provider_options(TENSORRT, model(), BackendSettings(engine_workspace=1 << 28), Path("/engines/a"))
    assert {name: value for name, value in options.items() if "profile" not in name} == {
        "trt_max_workspace_size": str(1 << 28),
        "trt_builder_optimization_level": "3",
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/engines/a",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "/engines/a",
    }
    assert not any("cache" in name for name in provider_options(TENSORRT, model(), BackendSettings()))


@pytest.mark.parametrize(
    ("precision", "dtype", "expected"),
    [("fp16", "float32", "1"), ("fp32", "float32", "0"), ("fp32", "float16", "1"), ("fp16", "uint8", "1")],
)
def test_tensorrt_may_use_half_precision_where_the_settings_or_the_graph_do(
    precision: LowestPrecision, dtype: str, expected: str
) -> None:
    options = provider_options(TENSORRT, model(input_dtype=dtype), BackendSettings(precision=precision))
    assert options["trt_fp16_enable"] == expected


@pytest.fixture
def providers(tmp_path: Path) -> Path:
    """Provider libraries as ONNX Runtime's: the CUDA one wants a library that is not there."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make libraries with")
    (tmp_path / "empty.c").write_text("int nothing;")

    def compiled(name: str, *options: str) -> None:
        subprocess.run(
            [compiler, "-shared", "-fPIC", tmp_path / "empty.c", "-o", tmp_path / name, *options], check=True
        )

    compiled("libonnxruntime_providers_shared.so")
    compiled("libcudart.so.99", "-Wl,-soname,libcudart.so.99")
    compiled("libonnxruntime_providers_cuda.so", "-Wl,--no-as-needed", f"{tmp_path}/libcudart.so.99")
    return tmp_path


def test_the_library_a_provider_wants_in_vain_is_named(providers: Path) -> None:
    assert missing_library(TENSORRT, providers) is None  # it has no file: the runtime holds it itself
    (providers / "libcudart.so.99").unlink()
    assert missing_library(CUDA, providers) == "libcudart.so.99"


def test_a_provider_that_finds_its_libraries_loads(providers: Path, tmp_path: Path) -> None:
    shutil.copy(providers / "libonnxruntime_providers_shared.so", providers / "libonnxruntime_providers_cuda.so")
    assert missing_library(CUDA, providers) is None
    assert missing_library(CPU, providers) is None


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("libcuda.so.1", "there is no NVIDIA driver (libcuda.so.1 is missing); install the driver"),
        ("libnvinfer.so.10", "TensorRT is missing (libnvinfer.so.10); install the TensorRT"),
        ("libcudart.so.13", "libcudart.so.13 is missing; install CUDA 13 with cuDNN 9"),
    ],
)
def test_a_missing_library_is_told_with_what_to_install(
    library: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_providers, "CUDA_FOLDERS", ())
    assert why_not_loaded(library, "13.0").startswith(said)


def test_another_release_of_a_missing_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("libcudart.so", "libcudart.so.12", "libcudart.so.12.6.77", "libcublas.so.12"):
        (tmp_path / name).touch()
    monkeypatch.setattr(onnx_providers, "CUDA_FOLDERS", (str(tmp_path),))
    assert why_not_loaded("libcudart.so.13", "13.0").startswith(
        "libcudart.so.13 is missing; found libcudart.so.12, which is another release; install CUDA 13"
    )
