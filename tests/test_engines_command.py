"""`edge-agent engines`: what is kept on a device, and building it before it is needed."""

from __future__ import annotations

import os
from zipfile import ZipFile

import pytest

from agent.cli import main
from tests.support.packages import make_package, zip_package
from tests.support.pretended_gpu import pretend


@pytest.fixture
def package(tmp_path):
    return make_package(tmp_path / "package")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_AGENT_ENGINE_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


def test_an_engine_is_built_and_listed_and_cleared(fake_tensorrt, package, cache, capsys):
    assert main(["engines", "build", str(package)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("tiny 1.0.0: TensorRT 10.3.0 on Fake GPU; its self-test passes.\n")
    assert "building a TensorRT engine in fp16" in err

    assert main(["engines", "list"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tiny")]
    assert "fp16" in row and "Fake GPU (8.7)" in row and "TensorRT 10.3.0" in row and "12.6" in row

    assert main(["engines", "clear"]) == 0
    assert "no engine is left" in capsys.readouterr().out
    assert list(cache.glob("*.engine")) == []


@pytest.mark.parametrize("flags", [[], ["--into", "new"]])
def test_an_engine_that_cannot_be_kept_is_no_success(
    fake_tensorrt, package, cache, capsys, monkeypatch, tmp_path, flags
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agent.atomic_file.os.write", full)
    assert main(["engines", "build", str(package), *flags]) == 1
    out, err = capsys.readouterr()
    assert "is kept in" not in out
    assert f"The engine could not be kept in {cache} (a line above says why). Mend that, or name" in err


def test_a_cache_that_cannot_be_used_is_told_before_the_build(fake_tensorrt, package, cache, capsys):
    cache.write_text("a file")
    assert main(["engines", "build", str(package)]) == 1
    assert "cannot be used" in capsys.readouterr().err
    assert fake_tensorrt.builds == []


def test_onnx_runtimes_engines_are_built_and_listed_too(package, cache, capsys, monkeypatch):
    pretend("with TensorRT", monkeypatch.setattr)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert main(["engines", "build", str(package), "--device", "onnxruntime-tensorrt"]) == 0
    out, err = capsys.readouterr()
    assert "with TensorRT on NVIDIA Pretended; its self-test passes.\nThe engine is kept in" in out
    assert "building TensorRT engines in fp16" in err
    assert main(["engines", "list"]) == 0
    assert "with TensorRT" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["cpu", "cuda", "auto"])
def test_other_devices_have_no_engines(package, cache, capsys, device):
    with pytest.raises(SystemExit):
        main(["engines", "build", str(package), "--device", device])
    assert "argument --device: invalid choice" in capsys.readouterr().err


def test_onnx_runtimes_engines_go_into_no_package(package, cache, capsys, tmp_path):
    command = ["engines", "build", str(package), "--device", "onnxruntime-tensorrt", "--into", str(tmp_path / "new")]
    assert main(command) == 1
    err = capsys.readouterr().err
    assert "ONNX Runtime keeps its engines in a form of its own. Build it with --device tensorrt." in err
    assert not (tmp_path / "new").exists()


def test_a_zip_has_the_engine_of_its_folder(fake_tensorrt, package, cache, tmp_path):
    main(["engines", "build", str(package)])
    main(["engines", "build", str(zip_package(package, tmp_path / "package.zip"))])
    assert len(fake_tensorrt.builds) == 1


def test_engines_are_built_as_the_flags_say(fake_tensorrt, package, tmp_path, cache):
    flags = ["--precision", "fp32", "--engine-workspace", "64", "--engine-cache", str(tmp_path / "elsewhere")]
    assert main(["engines", "build", str(package), *flags]) == 0
    assert fake_tensorrt.builds[0]["workspace"] == 64 << 20
    assert fake_tensorrt.builds[0]["fp16"] is False
    assert len(list((tmp_path / "elsewhere").glob("*.engine"))) == 1
    assert not cache.exists()


def test_what_was_put_aside_is_listed_as_such(fake_tensorrt, package, cache, capsys):
    main(["engines", "build", str(package)])
    (engine,) = cache.glob("*.engine")
    os.truncate(engine, 100)
    main(["engines", "build", str(package)])
    capsys.readouterr()
    main(["engines", "list"])
    assert "(put aside: not usable)" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["list", "clear"])
def test_looking_makes_no_folder(cache, capsys, action):
    assert main(["engines", action]) == 0
    assert capsys.readouterr().out == f"No engines are kept in {cache}.\n"
    assert not cache.exists()


def test_a_folder_that_cannot_be_used_is_told(cache, capsys):
    cache.write_text("a file")
    assert main(["engines", "list"]) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_without_a_gpu_nothing_is_built_and_it_is_told_why(package, cache, capsys, fake_tensorrt, fake_cuda):
    fake_cuda.has_gpus(0)
    assert main(["engines", "build", str(package)]) == 1
    assert (
        "edge-agent engines: TensorRT cannot be used here: CUDA finds no GPU; check nvidia-smi"
        in capsys.readouterr().err
    )


# --- engines for others


def test_a_package_with_an_engine_is_written_and_needs_no_build_elsewhere(
    fake_tensorrt, package, cache, tmp_path, capsys, monkeypatch
):
    assert main(["engines", "build", str(package), "--into", str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny 1.0.1: its self-test passes here with the engine it brings. Its engines:\n")
    row = next(line.split() for line in out.splitlines() if line.startswith("tensorrt-"))
    assert row == ["tensorrt-10.3.0-sm87.engine", "10.3.0", "8.7", "fp16", "0.0"]
    assert f"edge-agent package fitted {tmp_path / 'new'} --component NAME" in out

    monkeypatch.setenv("EDGE_AGENT_ENGINE_CACHE", str(tmp_path / "of-another-device"))
    assert main(["engines", "build", str(tmp_path / "new")]) == 0
    assert "The package brings its engine for this device: there is nothing to build." in capsys.readouterr().out
    assert len(fake_tensorrt.builds) == 1


def test_an_engine_that_is_not_the_package_s_is_said_to_be_kept(fake_tensorrt, package, cache, tmp_path, capsys):
    main(["engines", "build", str(package), "--into", str(tmp_path / "new")])
    fake_tensorrt.__version__ = "10.16.1"
    capsys.readouterr()
    assert main(["engines", "build", str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert "the package's engines are for TensorRT 10.3.0 and 8.7 in fp16, so one was built here" in out
    assert f"The engine is kept in {cache}" in out


def test_a_component_of_a_package_brings_its_engine(fake_tensorrt, package, cache, tmp_path, capsys):
    main(["engines", "build", str(package), "--into", str(tmp_path / "new")])
    command = ["package", "fitted", str(tmp_path / "new"), "--component", "front", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    archive = tmp_path / "out/artifacts/front/1.0.1/model.zip"
    with ZipFile(archive) as opened:
        assert "tensorrt-10.3.0-sm87.engine" in opened.namelist()


def test_a_version_without_a_new_package_is_refused(fake_tensorrt, package, cache, capsys):
    assert main(["engines", "build", str(package), "--version", "2.0.0"]) == 2
    assert "--version is 2.0.0, but must be left out, or given with --into" in capsys.readouterr().err
