"""`edge-agent engines list|clear|build PACKAGE`: the TensorRT engines that this device keeps.

Building before a model is started takes the minutes of a build out of the first start, at a time of one's choosing.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.device_flags import add_setting_flags, backend_settings, say_progress, settings_given

if TYPE_CHECKING:
    from agent.backends.base import BackendSettings
    from agent.backends.engine_cache import EngineCache, KeptEngine
    from agent.packages.package import Package

CACHE_FLAGS = ("engine_cache",)
BUILD_FLAGS = (*CACHE_FLAGS, "engine_cache_size", "engine_workspace", "precision")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    list_engines = actions.add_parser("list", help="show what is kept, last used first")
    clear = actions.add_parser(
        "clear", help="remove all; models that run are not disturbed, and build at their next start"
    )
    build = actions.add_parser("build", help="build the engine of a package now, and put it to the self-test")
    build.add_argument("package", type=Path, metavar="PACKAGE", help="a package: folder or ZIP")
    build.add_argument(
        "--device",
        choices=("tensorrt", "onnxruntime-tensorrt"),
        default="tensorrt",
        help="what builds it, and will run it: the TensorRT of the device, or ONNX Runtime's (default: tensorrt)",
    )
    build.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="write a new package here that brings the engine, for all devices with this GPU and TensorRT; engines for "
        "others that PACKAGE brings stay in it",
    )
    build.add_argument(
        "--version", metavar="X.Y.Z", help="of the new package (default: the next patch of PACKAGE's version)"
    )
    for action in (list_engines, clear):
        add_setting_flags(action, *CACHE_FLAGS)
    add_setting_flags(build, *BUILD_FLAGS)


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "build":
        return _build(arguments)
    from agent.backends.engine_cache import EngineCache, EngineCacheNotUsable

    settings = settings_given(arguments, *CACHE_FLAGS)
    folder = settings.engine_cache
    try:
        if not folder.exists():  # and is not made for being looked at
            print(f"No engines are kept in {folder}.")
            return 0
        cache = EngineCache(folder, settings.engine_cache_size << 20)
        return _list(cache, folder) if arguments.action == "list" else _clear(cache, folder)
    except OSError as error:
        raise EngineCacheNotUsable(folder, error.strerror or str(error)) from None


def _list(cache: EngineCache, folder: Path) -> int:
    from tabulate import tabulate

    engines = cache.engines()
    if not engines:
        print(f"No engines are kept in {folder}.")
        return 0
    headers = ["model", "precision", "GPU", "built with", "CUDA", "MiB", "built in s", "last used", "file"]
    print(tabulate([_row(engine) for engine in engines], headers=headers, floatfmt=".1f", disable_numparse=[4]))
    print(f"\n{sum(engine.size for engine in engines) / (1 << 20):.1f} MiB in {folder}")
    return 0


def _row(engine: KeptEngine) -> list[object]:
    from datetime import datetime

    used = datetime.fromtimestamp(engine.used).strftime("%Y-%m-%d %H:%M")
    size = engine.size / (1 << 20)
    # Enough of a name to tell files apart.
    file = engine.file[:12]
    if engine.head is None or engine.head.key is None:
        return ["(put aside: not usable)", "", "", "", "", size, "", used, file]
    key = engine.head.key
    gpu = f"{key.gpu} ({key.compute_capability})"
    return [
        engine.head.model_name,
        key.precision,
        gpu,
        key.runtime,
        key.cuda,
        size,
        engine.head.build_seconds,
        used,
        file,
    ]


def _clear(cache: EngineCache, folder: Path) -> int:
    print(f"{cache.clear() / (1 << 20):.1f} MiB were given back; no engine is left in {folder}.")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from agent.packages.archive import opened_package
    from agent.workbench.errors import SettingOutOfRange

    settings = settings_given(arguments, *BUILD_FLAGS)
    on_tensorrt = replace(backend_settings(settings), device=arguments.device, allows_fallback=False)
    with opened_package(arguments.package) as package:
        if arguments.into is not None:
            return _build_into(package, on_tensorrt, arguments)
        if arguments.version is not None:
            raise SettingOutOfRange("--version", arguments.version, "left out, or given with --into")
        return _build_here(package, on_tensorrt)


def _build_here(package: Package, settings: BackendSettings) -> int:
    from agent.backends.engine_cache import EngineCache
    from agent.pipeline import open_tested
    from agent.workbench.errors import EngineNotKept

    # Before the minutes of a build, not after them.
    cache = EngineCache(Path(settings.engine_cache), settings.engine_cache_size)
    runs_on = open_tested(package, settings, say_progress).runs_on
    print(f"{_named(package)}: {runs_on}; its self-test passes.")
    if settings.device == "tensorrt" and not runs_on.remark and _brings_engine(package, settings):
        print("The package brings its engine for this device: there is nothing to build.")
    elif cache.keys_of(_model_sha256(package), runs_on.runtime, runs_on.device):
        print(f"The engine is kept in {settings.engine_cache}: a model that starts on this device loads it.")
    else:
        raise EngineNotKept(settings.engine_cache)
    return 0


def _model_sha256(package: Package) -> str:
    """Of the ONNX model, of which there is one where an engine was built."""
    from agent.backends.engine_cache import model_sha256
    from agent.packages.manifest import onnx_file

    model = onnx_file(package.manifest.files)
    assert model is not None
    return model_sha256(package.path_of(model))


def _brings_engine(package: Package, settings: BackendSettings) -> bool:
    from agent.backends.prebuilt import file_for_tensorrt
    from agent.packages.manifest import TensorRtEngine

    return isinstance(file_for_tensorrt(package.manifest.files, settings.precision).runtime, TensorRtEngine)


def _build_into(package: Package, settings: BackendSettings, arguments: argparse.Namespace) -> int:
    from tabulate import tabulate

    from agent.backends.prebuilt import engines_of
    from agent.workbench.packaging.with_engine import write_with_engine

    made = write_with_engine(package, settings, arguments.version, arguments.into, say_progress)
    print(f"{_named(made)}: its self-test passes here with the engine it brings. Its engines:\n")
    rows = [
        (file.path, engine.tensorrt_version, engine.compute_capability, engine.precision, file.size / (1 << 20))
        for file, engine in engines_of(made.manifest.files)
    ]
    headers = ["file", "TensorRT", "compute capability", "precision", "MiB"]
    print(tabulate(rows, headers=headers, floatfmt=".1f", disable_numparse=[1, 2]))
    folder = shlex.quote(str(made.folder))
    print(f"\nWrote {made.folder}\nNext:")
    print(f"  edge-agent engines build {folder} --into ...    # on another kind of device, to add its engine")
    print(f"  edge-agent package fitted {folder} --component NAME    # at the bench: the component of it")
    return 0


def _named(package: Package) -> str:
    return f"{package.manifest.model.name} {package.manifest.model.version}"
