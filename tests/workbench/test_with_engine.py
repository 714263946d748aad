"""`edge-agent engines build --into`: what one device has built, others like it load."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.backends.base import BackendSettings, say_nothing
from agent.backends.engine_cache import EngineCacheNotUsable, EngineKey
from agent.backends.prebuilt import engines_of
from agent.errors import DeviceNotUsable, SelfTestFailed
from agent.packages.manifest import Manifest, TensorRtEngine
from agent.packages.package import Package, read_package, verify_files
from agent.pipeline import open_tested
from agent.workbench.errors import EngineNotKept, EngineNotPacked, OutputExists, OutputNotWritable, SettingOutOfRange
from agent.workbench.importers.fitted import fitted_draft
from agent.workbench.packaging import with_engine
from agent.workbench.packaging.draft import with_engines_that_fit
from agent.workbench.packaging.with_engine import write_with_engine
from agent.workbench.packaging.writer import Evidence, write_package
from tests.support.fake_tensorrt import FakeTensorRt
from tests.support.packages import changed, make_package

JETPACK_6, JETPACK_7 = "10.3.0", "10.16.1"


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return read_package(make_package(tmp_path / "package"))


def on_device(number: int, tmp_path: Path) -> BackendSettings:
    """Settings of a device that has an engine cache of its own."""
    return BackendSettings(device="tensorrt", engine_cache=str(tmp_path / f"engines-{number}"))


def built_into(package: Package, output: Path, settings: BackendSettings, version: str | None = None) -> Package:
    return write_with_engine(package, settings, version, output, say_nothing)


def engines(package: Package) -> list[tuple[str, str, str]]:
    return [(e.compute_capability, e.tensorrt_version, e.precision) for _, e in engines_of(package.manifest.files)]


def test_other_devices_load_what_one_has_built(fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path) -> None:
    made = built_into(package, tmp_path / "new", on_device(1, tmp_path))
    verify_files(made)
    assert (made.manifest.model.version, engines(made)) == ("1.0.1", [("8.7", JETPACK_6, "fp16")])
    assert len(fake_tensorrt.builds) == 1

    said: list[str] = []
    opened = open_tested(made, on_device(2, tmp_path), lambda text, *stage: said.append(text))
    assert len(fake_tensorrt.builds) == 1
    assert (str(opened.runs_on), said) == ("TensorRT 10.3.0 on Fake GPU", ["running the self-test"])


def test_the_source_stays_as_it_is(fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in package.folder.rglob("*") if path.is_file()}
    built_into(package, tmp_path / "new", on_device(1, tmp_path))
    assert {path: path.read_bytes() for path in package.folder.rglob("*") if path.is_file()} == before


def test_all_but_version_engine_and_date_is_the_same(
    fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path
) -> None:
    made = built_into(package, tmp_path / "new", on_device(1, tmp_path)).manifest
    model = msgspec.structs.replace(made.model, version="1.0.0", created=package.manifest.model.created)
    assert changed(made, model=model, files=made.files[:-1]) == package.manifest


def test_another_kind_of_device_adds_its_own(fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path) -> None:
    first = built_into(package, tmp_path / "first", on_device(1, tmp_path))
    fake_tensorrt.__version__ = JETPACK_7
    second = built_into(first, tmp_path / "second", on_device(2, tmp_path), "2.0.0")
    assert second.manifest.model.version == "2.0.0"
    assert engines(second) == [("8.7", JETPACK_6, "fp16"), ("8.7", JETPACK_7, "fp16")]
    for version in (JETPACK_6, JETPACK_7):
        fake_tensorrt.__version__ = version
        opened = open_tested(second, on_device(3, tmp_path))
        assert str(opened.runs_on) == f"TensorRT {version} on Fake GPU"
    assert len(fake_tensorrt.builds) == 2


def test_a_device_like_one_before_takes_that_ones_place(
    fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path
) -> None:
    first = built_into(package, tmp_path / "first", on_device(1, tmp_path))
    in_fp32 = dataclasses.replace(on_device(2, tmp_path), precision="fp32")
    second = built_into(first, tmp_path / "second", in_fp32)
    assert engines(second) == [("8.7", JETPACK_6, "fp32")]


def test_what_runs_in_fp32_is_packed_in_fp32(fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path) -> None:
    fake_tensorrt.fp16_error = 0.2
    made = built_into(package, tmp_path / "new", on_device(1, tmp_path))
    assert engines(made) == [("8.7", JETPACK_6, "fp32")]
    assert str(open_tested(made, on_device(2, tmp_path)).runs_on) == "TensorRT 10.3.0 on Fake GPU"


def test_an_engine_that_is_kept_already_is_not_built_again(
    fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path
) -> None:
    open_tested(package, on_device(1, tmp_path))
    built_into(package, tmp_path / "new", on_device(1, tmp_path))
    assert len(fake_tensorrt.builds) == 1


# --- refusals: nothing is left behind


def refused(refusal: type[Exception], tmp_path: Path, package: Package, settings: BackendSettings, **given: str) -> str:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(refusal) as said:
        built_into(package, tmp_path / "new", settings, **given)
    left = [path for path in sorted(tmp_path.iterdir()) if path not in before and not path.name.startswith("engines")]
    assert left == []
    return str(said.value)


def test_without_tensorrt_nothing_is_made(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the TensorRT-RTX that `make engine-check` has put into the environment.
    monkeypatch.setattr("agent.backends.tensorrt_api.MODULES", {"tensorrt": "TensorRT"})
    assert "is not installed" in refused(DeviceNotUsable, tmp_path, package, on_device(1, tmp_path))


def test_an_engine_that_could_not_be_kept_is_not_packed(
    fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path
) -> None:
    settings = dataclasses.replace(on_device(1, tmp_path), engine_cache_size=100)
    said = refused(EngineNotKept, tmp_path, package, settings)
    assert "could not be kept in" in said and "name another folder as --engine-cache" in said


def test_without_a_place_for_the_engine_nothing_is_built(
    fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path
) -> None:
    (tmp_path / "engines-1").write_text("no folder")
    refused(EngineCacheNotUsable, tmp_path, package, on_device(1, tmp_path))
    assert fake_tensorrt.builds == []


def test_a_package_without_its_model_gets_no_engine(fake_tensorrt: FakeTensorRt, tmp_path: Path) -> None:
    def engine_alone(manifest: Manifest) -> Manifest:
        engine = msgspec.structs.replace(manifest.files[0], runtime=TensorRtEngine("8.6", "10.3.0", "fp16"))
        return changed(manifest, files=[engine, *manifest.files[1:]])

    package = read_package(make_package(tmp_path / "package", change=engine_alone))
    assert "holds no ONNX model" in refused(EngineNotPacked, tmp_path, package, on_device(1, tmp_path))


def test_engines_of_tensorrt_rtx_are_for_no_package(
    fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.backends.tensorrt_api.MODULES", {"tensorrt": "TensorRT-RTX"})
    assert "another format" in refused(EngineNotPacked, tmp_path, package, on_device(1, tmp_path))


def test_a_model_that_fails_its_self_test_is_not_packed(fake_tensorrt: FakeTensorRt, tmp_path: Path) -> None:
    def wrong(manifest: Manifest) -> Manifest:
        return changed(manifest, self_test=[msgspec.structs.replace(manifest.self_test[0], score=0.4)])

    package = read_package(make_package(tmp_path / "package", change=wrong))
    refused(SelfTestFailed, tmp_path, package, on_device(1, tmp_path))


def test_an_engine_that_does_not_load_from_a_package_is_not_packed(
    fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_of = with_engine._engine_of

    def cut(*given: Any) -> tuple[EngineKey, memoryview]:
        key, engine = engine_of(*given)
        return key, engine[:-1]

    monkeypatch.setattr(with_engine, "_engine_of", cut)
    said = refused(EngineNotPacked, tmp_path, package, on_device(1, tmp_path))
    assert "TensorRT does not take the package's engine" in said


@pytest.mark.parametrize(("version", "says"), [("1.0.0", "another than the package's own"), ("1.0", "three numbers")])
def test_a_version_that_cannot_be_is_refused_before_anything_is_built(
    fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path, version: str, says: str
) -> None:
    assert says in refused(SettingOutOfRange, tmp_path, package, on_device(1, tmp_path), version=version)
    assert fake_tensorrt.builds == []


def test_what_is_there_is_never_overwritten(fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path) -> None:
    with pytest.raises(OutputExists):
        built_into(package, package.folder, on_device(1, tmp_path))
    assert fake_tensorrt.builds == []


def test_a_full_disk_leaves_nothing(
    fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*paths: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(with_engine.shutil, "copyfile", full)
    assert "No space left on device" in refused(OutputNotWritable, tmp_path, package, on_device(1, tmp_path))


# --- the component of it


def test_packaged_again_it_brings_its_engines(fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path) -> None:
    made = built_into(package, tmp_path / "new", on_device(1, tmp_path))
    draft = with_engines_that_fit(fitted_draft(made.folder), made.manifest.image)
    evidence = Evidence(draft.tests, draft.reference)
    again = write_package(draft, made.manifest.model, made.manifest.image, lambda answer: evidence, tmp_path / "again")
    assert engines(again) == engines(made)
    assert str(open_tested(again, on_device(2, tmp_path)).runs_on) == "TensorRT 10.3.0 on Fake GPU"
    assert len(fake_tensorrt.builds) == 1


@pytest.mark.parametrize("image", [{"width": 100}, {"any_size": True}])
def test_packaged_again_for_other_images_it_leaves_them_out_and_says_so(
    fake_tensorrt: FakeTensorRt, package: Package, tmp_path: Path, image: dict[str, int]
) -> None:
    made = built_into(package, tmp_path / "new", on_device(1, tmp_path))
    draft = with_engines_that_fit(fitted_draft(made.folder), msgspec.structs.replace(made.manifest.image, **image))
    assert draft.engines == {}
    assert "The source's engines are left out" in draft.notes[-1]
