"""The execution providers of ONNX Runtime that this agent uses: which, with which options, and whether they load.

Nothing here imports onnxruntime: a provider that is missing is told from its files before a session is tried, since
ONNX Runtime itself only writes a line and runs on the CPU.
"""

from __future__ import annotations

import ctypes
from glob import glob
from importlib import metadata
from pathlib import Path

from agent.backends.base import BackendSettings, Device, LowestPrecision, ModelToOpen
from agent.backends.device_engines import OPTIMIZATION_LEVEL

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
PROVIDERS: dict[Device, tuple[str, ...]] = {
    "cpu": (CPU,),
    "cuda": (CUDA, CPU),
    "onnxruntime-tensorrt": (TENSORRT, CUDA, CPU),
}
"""By device; the first is what is wanted, the others take the nodes that it does not know."""
_LIBRARIES = {CUDA: "libonnxruntime_providers_cuda.so", TENSORRT: "libonnxruntime_providers_tensorrt.so"}
_SHARED = "libonnxruntime_providers_shared.so"
"""What both are linked against without saying so."""
CUDA_FOLDERS = ("/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib")
"""Where NVIDIA's installers put CUDA, as patterns."""
_CPU_PACKAGE, _GPU_PACKAGE = "onnxruntime", "onnxruntime-gpu"


def provider_options(
    provider: str, model: ModelToOpen, settings: BackendSettings, engines: Path | None = None
) -> dict[str, str]:
    """Options of one provider, as ONNX Runtime spells them (its documentation of execution providers).

    `engines`: where TensorRT's engines are kept; None: nowhere.
    """
    if provider == CUDA:
        options = {
            # By default the arena doubles whenever it grows.
            "arena_extend_strategy": "kSameAsRequested",
            # By default every algorithm of every convolution is tried at the first run, each with its workspace.
            "cudnn_conv_algo_search": "HEURISTIC",
            "cudnn_conv_use_max_workspace": "0",
        }
        if settings.precision == "fp32":
            options["use_tf32"] = "0"
        return options | ({"gpu_mem_limit": str(settings.gpu_memory_limit)} if settings.gpu_memory_limit else {})
    if provider == TENSORRT:
        return _tensorrt_options(model, settings, engines)
    return {}


def provider_precision(model: ModelToOpen, settings: BackendSettings) -> LowestPrecision:
    """The lowest that TensorRT's engines may use."""
    return "fp16" if model.precision == "fp16" else settings.precision


def _tensorrt_options(model: ModelToOpen, settings: BackendSettings, engines: Path | None) -> dict[str, str]:
    # Without them the engine would be built once more for every shape that comes, in the middle of a call.
    shape = model.input_shape
    shapes = {"min": shape, "opt": shape, "max": shape}
    if model.any_size:  # 64 to 4096 pixels a side, by the wire contract
        shapes |= {"min": (1, 64, 64, 3), "max": (1, 4096, 4096, 3)}
    options = {f"trt_profile_{which}_shapes": f"{model.input}:{'x'.join(map(str, shapes[which]))}" for which in shapes}
    options |= {
        "trt_max_workspace_size": str(settings.engine_workspace),
        "trt_builder_optimization_level": str(OPTIMIZATION_LEVEL),
        "trt_fp16_enable": str(int(provider_precision(model, settings) == "fp16")),
    }
    if engines is not None:
        for kind in ("engine", "timing"):
            options |= {f"trt_{kind}_cache_enable": "1", f"trt_{kind}_cache_path": str(engines)}
    return options


def missing_library(provider: str, folder: Path) -> str | None:
    """The shared library for want of which a provider does not load, or what the loader says else; None: it loads.

    `folder`: where ONNX Runtime keeps its providers.
    """
    # Builds that hold the provider themselves have no file for it.
    if provider not in _LIBRARIES or not (folder / _LIBRARIES[provider]).exists():
        return None
    try:
        ctypes.CDLL(str(folder / _SHARED), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / _LIBRARIES[provider]))
    except OSError as error:
        # `libcudart.so.13: cannot open shared object file: No such file or directory`
        return str(error).partition(":")[0].rpartition("/")[2]
    return None


def why_not_loaded(library: str, cuda: str) -> str:
    """A sentence about a library that is missing, with what to do; `cuda`: the release ONNX Runtime was made with."""
    if library.startswith("libcuda.so"):
        return "there is no NVIDIA driver (libcuda.so.1 is missing); install the driver, on a Jetson JetPack"
    if library.startswith(("libnvinfer", "libnvonnxparser")):
        return f"TensorRT is missing ({library}); install the TensorRT that this ONNX Runtime was made with"
    found = _other_releases(library)
    other = f"; found {', '.join(found)}, which is another release" if found else ""
    return (
        f"{library} is missing{other}; install CUDA {cuda.partition('.')[0] or '(any)'} with cuDNN 9: "
        "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    )


def why_not_installed(provider: str) -> str:
    """A sentence about a provider that this ONNX Runtime was made without, with what to do."""
    if both_are_installed():
        return (
            f"{_CPU_PACKAGE} and {_GPU_PACKAGE} are both installed and overwrite each other's files; uninstall both, "
            f"then install {_GPU_PACKAGE} alone"
        )
    if provider == TENSORRT:
        return "this ONNX Runtime was made without TensorRT; choose cuda or tensorrt, or install one made with it"
    return (
        f"this ONNX Runtime was made without CUDA; pip uninstall {_CPU_PACKAGE}, then pip install "
        "'vision-edge-agent[gpu]' (on a Jetson: NVIDIA's own ONNX Runtime, or choose tensorrt)"
    )


def both_are_installed() -> bool:
    """Whether the CPU package and the GPU package lie in the same environment."""
    return _is_installed(_CPU_PACKAGE) and _is_installed(_GPU_PACKAGE)


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _other_releases(library: str) -> list[str]:
    """Libraries of the same name and another number where CUDA is usually kept: `libcudart.so.12` for `.13`."""
    stem = library.partition(".so")[0] + ".so."
    # Patterns from the root: Path.glob takes none.
    found = [path for folder in CUDA_FOLDERS for path in glob(f"{folder}/{stem}*")]  # noqa: PTH207
    names = {Path(path).name for path in found}
    # `libcudart.so.12` and not the files that it leads to.
    return sorted(name for name in names if name != library and name.count(".") == library.count("."))
