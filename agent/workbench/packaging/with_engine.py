"""A package gets a TensorRT engine, built on a device of the fleet, so that no other such device has to build it.

Runs on that device: needs nothing that the device half has not.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from agent.backends.base import BackendSettings, OnProgress
from agent.backends.engine_cache import EngineCache, EngineKey, model_sha256
from agent.backends.prebuilt import engines_of, fits, this_device
from agent.packages.manifest import MANIFEST_NAME, PackageFile, TensorRtEngine, onnx_file, write_manifest
from agent.packages.package import Package, describe_file, read_package
from agent.pipeline import open_tested
from agent.workbench.errors import EngineNotKept, EngineNotPacked, OutputNotWritable, SettingOutOfRange
from agent.workbench.packaging.naming import check_version
from agent.workbench.packaging.writer import new_folder_beside, refuse_existing


def write_with_engine(
    package: Package, settings: BackendSettings, version: str | None, output: Path, tell: OnProgress
) -> Package:
    """Writes to the new folder `output` what `package` holds and the engine that this device runs it with.

    The engine is the one that a worker would use: of the engine cache, or built now, in the precision that passes the
    self-test. It takes the place of one that `package` brings for the same kind of device; engines for others stay.
    The new package is put to its self-test with its engine, as such a device will do it, before it is there.

    Args:
        settings: of the device, with an engine cache.
        version: of the new package; None: the next patch of `package`'s.
        tell: told in words what takes long.

    Raises:
        OutputExists: something is at `output`.
        OutputNotWritable: no folder can be made there.
        SettingOutOfRange: `version` is no version.
        EngineCacheNotUsable: its folder is another user's, or none.
        EngineNotKept: the engine cache did not take it.
        EngineNotPacked: there is no engine that a package can bring.
        BadPackage: the package cannot be run here with TensorRT; the sentence says why.
    """
    if settings.device != "tensorrt":
        raise EngineNotPacked("ONNX Runtime keeps its engines in a form of its own", "Build it with --device tensorrt")
    refuse_existing(output)
    version = _new_version(package, version)
    bare = _without_engines_for_this_device(package)
    # Before the minutes of a build, not after them.
    cache = EngineCache(Path(settings.engine_cache), settings.engine_cache_size)
    key, engine = _engine_of(bare, cache, settings, tell)
    folder = new_folder_beside(output)
    try:
        folder.chmod(0o755)  # mkdtemp's is for one user; the agent may be another
        _fill(folder, bare, key, engine, version)
        _prove(read_package(folder), settings, tell)
        refuse_existing(output)  # a rename would replace an empty folder
        folder.rename(output)
    except OSError as error:  # a full disk
        shutil.rmtree(folder, ignore_errors=True)
        raise OutputNotWritable(output, error.strerror or str(error), "--into") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return read_package(output)


def next_patch(version: str) -> str:
    """`1.0.1` for `1.0.0`."""
    major, minor, patch = version.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"


def _new_version(package: Package, version: str | None) -> str:
    old = package.manifest.model.version
    if version is None:
        return next_patch(old)
    check_version(version)
    if version == old:
        raise SettingOutOfRange("--version", version, "another than the package's own, whose files stay as they are")
    return version


def _without_engines_for_this_device(package: Package) -> Package:
    """What a worker would build an engine of. Raises EngineNotPacked, DeviceNotUsable."""
    version, compute_capability = this_device()
    if not version:
        raise EngineNotPacked("TensorRT-RTX makes another format", "Build it on a device with TensorRT")
    fitting = [file for file, engine in engines_of(package.manifest.files) if fits(engine, version, compute_capability)]
    files = [file for file in package.manifest.files if file not in fitting]
    if onnx_file(files) is None:
        raise EngineNotPacked("the package holds no ONNX model to build it of", "Take the package that holds it")
    return Package(package.folder, msgspec.structs.replace(package.manifest, files=files))


def _engine_of(
    package: Package, cache: EngineCache, settings: BackendSettings, tell: OnProgress
) -> tuple[EngineKey, memoryview]:
    """The engine that a worker would run `package` with, checked, and what it was built for."""
    runs_on = open_tested(package, settings, tell).runs_on
    model = onnx_file(package.manifest.files)
    assert model is not None  # see _without_engines_for_this_device
    sha256 = model_sha256(package.path_of(model))
    # What was used last comes first: the one that has just passed the self-test.
    for key in cache.keys_of(sha256, runs_on.runtime, runs_on.device):
        engine = cache.find(key)
        if engine is not None:
            return key, engine
    raise EngineNotKept(settings.engine_cache)


def _fill(folder: Path, package: Package, key: EngineKey, engine: memoryview, version: str) -> None:
    """Writes the files of `package`, the engine and the new manifest."""
    manifest = package.manifest
    for file in manifest.files:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package.path_of(file), folder / file.path)
    built_for = TensorRtEngine(key.compute_capability, this_device()[0], key.precision)
    path = f"tensorrt-{built_for.tensorrt_version}-sm{key.compute_capability.replace('.', '')}.engine"
    (folder / path).write_bytes(engine)
    size, sha256 = describe_file(folder, path)
    created = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = msgspec.structs.replace(
        manifest,
        model=msgspec.structs.replace(manifest.model, version=version, created=created),
        files=[*manifest.files, PackageFile(path, size, sha256, built_for)],
    )
    (folder / MANIFEST_NAME).write_bytes(write_manifest(made))


def _prove(package: Package, settings: BackendSettings, tell: OnProgress) -> None:
    """Opens a package as a device like this one will. Raises EngineNotPacked, BadPackage."""
    # Without a cache, so that an engine of it cannot stand in.
    remark = open_tested(package, replace(settings, engine_cache=""), tell).runs_on.remark
    if remark:
        raise EngineNotPacked(f"a package with it was tried, and {remark}", "Let the devices build their own")
