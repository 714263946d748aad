"""`edge-agent engines list|clear|build PACKAGE`: the TensorRT engines that this device keeps.

Building before a model is started takes the minutes of a build out of the first start, at a time of one's choosing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.device_flags import add_setting_flags, backend_settings, say_progress, settings_given

if TYPE_CHECKING:
    from agent.backends.engine_cache import EngineCache, KeptEngine

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
    from agent.pipeline import open_tested

    settings = settings_given(arguments, *BUILD_FLAGS)
    with opened_package(arguments.package) as package:
        opened = open_tested(
            package,
            replace(backend_settings(settings), device="tensorrt", allows_fallback=False),
            say_progress,
        )
    print(f"{package.manifest.model.name} {package.manifest.model.version}: {opened.runs_on}; its self-test passes.")
    print(f"The engine is kept in {settings.engine_cache}: a model that starts on this device loads it.")
    return 0
