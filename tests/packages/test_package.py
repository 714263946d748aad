"""A package's files: what the manifest lists is checked byte for byte, what it does not list is never touched."""

import os
import pickle
import socket
import sys

import numpy as np
import pytest

from agent.backends.base import BackendSettings
from agent.errors import BadManifest, BadPackageFile
from agent.packages.package import describe_file, read_package, verify_files
from agent.pipeline import Pipeline
from tests.support.packages import HEIGHT, WIDTH, add_file, changed, grey, make_package, rewrite_manifest


@pytest.fixture
def folder(tmp_path):
    return make_package(tmp_path / "package")


def sentence(folder):
    with pytest.raises(BadPackageFile) as refusal:
        verify_files(read_package(folder))
    assert str(folder) not in str(refusal.value)
    return str(refusal.value)


def test_a_package_as_it_was_written_passes(folder):
    verify_files(read_package(folder))


def test_a_file_of_another_size_is_refused_with_both_sizes(folder):
    size = (folder / "model.onnx").stat().st_size
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert sentence(folder) == f'"model.onnx" in the package: it has {size + 1} bytes; the manifest says {size}.'


def test_one_changed_bit_is_refused_with_both_hashes(folder):
    model = folder / "model.onnx"
    _, listed = describe_file(folder, "model.onnx")
    content = bytearray(model.read_bytes())
    content[100] ^= 1
    model.write_bytes(content)
    _, found = describe_file(folder, "model.onnx")
    assert sentence(folder) == f'"model.onnx" in the package: its SHA-256 is {found}; the manifest says {listed}.'


def test_a_file_changed_after_the_manifest_was_read_is_refused(folder):
    package = read_package(folder)
    verify_files(package)
    (folder / "model.onnx").write_bytes(bytes((folder / "model.onnx").stat().st_size))
    with pytest.raises(BadPackageFile, match="SHA-256"):
        verify_files(package)
    with pytest.raises(BadPackageFile, match="SHA-256"):
        Pipeline(package, BackendSettings())


def test_a_missing_file_is_refused(folder):
    (folder / "model.onnx").unlink()
    assert sentence(folder) == '"model.onnx" in the package: there is no such file.'


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(BadPackageFile, match=r'"manifest\.json" in the package: there is no such file\.'):
        read_package(tmp_path)
    with pytest.raises(BadPackageFile, match="there is no such file"):
        read_package(tmp_path / "absent")


def test_a_manifest_of_any_size_is_read_to_its_limit_only(folder):
    with (folder / "manifest.json").open("r+b") as manifest:
        manifest.truncate(1 << 40)  # sparse
    with pytest.raises(BadManifest, match="at most 1048576 are read"):
        read_package(folder)


def make_symlink(path):
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def make_fifo(path):
    path.unlink()
    os.mkfifo(path)


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_socket(path):
    path.unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        before = os.open(".", os.O_RDONLY)
        try:
            os.chdir(path.parent)  # socket paths end at 107 bytes
            bound.bind(path.name)
        finally:
            os.fchdir(before)
            os.close(before)


def make_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_symlink, make_fifo, make_folder, make_socket, make_device])
@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_what_is_no_plain_file_is_refused_at_once(folder, make, name):
    make(folder / name)
    said = sentence(folder)
    assert said.startswith(f'"{name}" in the package: it ')
    assert "no plain file" in said or "links are not followed" in said


def test_a_file_below_a_symlinked_folder_is_refused(folder):
    (folder / "self-test").rename(folder / "elsewhere")
    (folder / "self-test").symlink_to("elsewhere")
    assert (
        sentence(folder)
        == "\"self-test/good.rgb\" in the package: 'self-test' is no plain folder; links are not followed."
    )


def test_a_file_below_a_file_is_refused(folder):
    (folder / "self-test" / "good.rgb").unlink()
    (folder / "self-test").rmdir()
    (folder / "self-test").write_bytes(b"")
    assert "'self-test' is no plain folder" in sentence(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_refused(folder):
    (folder / "model.onnx").chmod(0)
    assert sentence(folder) == '"model.onnx" in the package: the agent\'s user may not read it.'


# --- files that are not listed

OPENED: list[str] = []
LISTENING = False


def _note_opened(event, arguments):
    if LISTENING and event == "open":
        OPENED.append(str(arguments[0]))


def test_files_that_are_not_listed_are_neither_executed_nor_read(folder, monkeypatch):
    marker = folder.parent / "marker"

    class Canary:
        def __reduce__(self):
            return (marker.write_text, ("executed",))

    code = f"open({str(marker)!r}, 'w').write('executed')\n"
    strangers = ["model.py", "__init__.py", "sitecustomize.py", "model.pkl", "model.pt", "weights.npy", "x.so"]
    for name in strangers:
        content = code.encode() if name.endswith(".py") else pickle.dumps(Canary())
        (folder / name).write_bytes(content)

    sys.addaudithook(_note_opened)  # stays for the life of the process, so it listens only here
    monkeypatch.setattr(sys.modules[__name__], "LISTENING", True)
    pipeline = Pipeline(read_package(folder), BackendSettings())
    pipeline.self_test()
    pipeline.detect(grey(0))
    monkeypatch.undo()

    assert not marker.exists()
    opened = {path.rpartition("/")[2] for path in OPENED if path.startswith(str(folder))}
    assert {"manifest.json", "model.onnx"} <= opened
    assert not opened & set(strangers)


# --- images and masks in the package


def test_self_test_pixels_are_the_file_row_by_row(folder):
    package = read_package(folder)
    pixels = np.arange(WIDTH * HEIGHT * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    (folder / "self-test/good.rgb").write_bytes(pixels.tobytes())
    np.testing.assert_array_equal(package.self_test_pixels(package.manifest.self_test[0]), pixels)


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_self_test_image_of_another_size_is_refused(folder, extra):
    package = read_package(folder)
    size = WIDTH * HEIGHT * 3
    (folder / "self-test/good.rgb").write_bytes(bytes(size + extra))
    with pytest.raises(BadPackageFile, match=f"it does not have the {size} bytes that the manifest says"):
        package.self_test_pixels(package.manifest.self_test[0])


def test_the_ignore_mask_is_every_byte_that_is_not_0(folder):
    content = np.zeros((HEIGHT, WIDTH), np.uint8)
    content[3, 5], content[7, 9] = 1, 255
    file = add_file(folder, "ignore.raw", content.tobytes())
    manifest = read_package(folder).manifest
    rewrite_manifest(
        folder,
        changed(
            manifest,
            files=[*manifest.files, file],
            preprocessing=changed(manifest.preprocessing, ignore_mask="ignore.raw"),
        ),
    )
    mask = read_package(folder).ignore_mask()
    assert mask.dtype == np.bool_
    assert np.argwhere(mask).tolist() == [[3, 5], [7, 9]]


def test_a_package_without_an_ignore_mask_has_none(folder):
    assert read_package(folder).ignore_mask() is None


def test_weights_are_told_apart_by_the_file_and_not_by_its_name(folder):
    manifest = read_package(folder).manifest
    rewrite_manifest(folder, changed(manifest, files=[*manifest.files, add_file(folder, "w.bin", b"weights")]))
    package = read_package(folder)
    before = package.stamps_of_weights()
    (folder / "model.onnx").touch()  # read once
    assert package.stamps_of_weights() == before
    (folder / "w.bin").write_bytes(b"in place")
    assert before.keys() == package.stamps_of_weights().keys()
    assert before != package.stamps_of_weights()
    (folder / "other").write_bytes(b"another file")
    (folder / "other").replace(folder / "w.bin")
    assert before.keys().isdisjoint(package.stamps_of_weights())
    (folder / "w.bin").unlink()
    assert package.stamps_of_weights() == {}
