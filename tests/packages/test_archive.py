"""Packages as ZIP files: only what the manifest lists is unpacked, to the size it says, whole or not at all."""

import stat
import struct
import warnings
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import BadArchive, BadManifest, BadPackage
from agent.packages import archive as archive_module
from agent.packages.archive import MAX_ENTRIES, opened_package, unpack
from agent.packages.package import read_package, verify_files
from tests.support.packages import changed, make_package, rewrite_manifest, zip_package

FILES = ["manifest.json", "model.onnx", "self-test/good.rgb"]


@pytest.fixture
def folder(tmp_path):
    return make_package(tmp_path / "made" / "package")


@pytest.fixture
def zipped(folder, tmp_path):
    return zip_package(folder, tmp_path / "package.zip")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "registry" / "unpacked"


def add(path, name, content=b"x", mode=stat.S_IFREG | 0o644):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "a") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of duplicates
        opened.writestr(entry, content)


def patch_headers(path, name, *, flag=0, size=None):
    """Changes an entry's flags or its size as both its headers state it; the data stay."""
    content = bytearray(path.read_bytes())
    for signature, flags_at, size_at, name_at in ((b"PK\3\4", 6, 22, 30), (b"PK\1\2", 8, 24, 46)):
        start = content.find(signature)
        while content[start + name_at :][: len(name)] != name.encode():
            start = content.find(signature, start + 4)
            assert start >= 0
        content[start + flags_at] |= flag
        if size is not None:
            content[start + size_at : start + size_at + 4] = struct.pack("<I", size)
    path.write_bytes(content)


def relative_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refused(archive, target, kind=BadArchive):
    """The sentence with which `archive` is refused; nothing is left behind."""
    with pytest.raises(kind) as refusal:
        unpack(archive, target)
    assert list(target.parent.iterdir()) == []
    assert str(target.parent) not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("top", ["", "tiny-1.0.0/"])
def test_a_package_is_unpacked_from_the_top_or_from_the_one_folder_that_was_zipped(folder, tmp_path, target, top):
    unpack(zip_package(folder, tmp_path / "package.zip", top), target)
    assert relative_files(target) == FILES
    verify_files(read_package(target))
    assert list(target.parent.iterdir()) == [target]


def test_a_package_can_be_used_from_its_zip_and_is_gone_afterwards(zipped, folder):
    with opened_package(zipped) as package:
        verify_files(package)
        unpacked = package.folder
    assert not unpacked.exists()
    with opened_package(folder) as package:
        assert package.folder == folder


@pytest.mark.parametrize(
    "name", ["../slipped", "/tmp/slipped", "a/../../slipped", "..\\slipped", "self-test/../../slipped", "C:/slipped"]
)
def test_an_entry_that_is_not_listed_is_never_written_whatever_its_name(zipped, target, name):
    add(zipped, name)
    unpack(zipped, target)
    assert relative_files(target) == FILES
    assert [path for path in target.parent.parent.rglob("*slipped*")] == []


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/model.onnx", "a\\model.onnx", "https://host/model.onnx", "m\0.onnx"]
)
def test_a_manifest_that_lists_a_slipping_path_is_refused(folder, tmp_path, target, name):
    manifest = read_package(folder).manifest
    rewrite_manifest(folder, changed(manifest, files=[changed(manifest.files[0], path=name), manifest.files[1]]))
    said = refused(zip_package(folder, tmp_path / "slip.zip"), target, BadManifest)
    assert "field 'files[0].path'" in said


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
@pytest.mark.parametrize("name", ["link", "self-test/link"])
def test_an_entry_that_is_no_plain_file_is_refused(zipped, target, kind, name):
    add(zipped, name, b"/etc/passwd", kind | 0o777)
    assert refused(zipped, target) == f'The archive at entry "{name}": it is no plain file.'


def test_a_setuid_bit_is_not_unpacked(folder, tmp_path, target):
    archive = tmp_path / "setuid.zip"
    for name in FILES:
        add(archive, name, (folder / name).read_bytes(), stat.S_IFREG | 0o6777)
    unpack(archive, target)
    modes = [path.stat().st_mode for path in target.rglob("*") if path.is_file()]
    assert len(modes) == 3
    assert not any(mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR) for mode in modes)


@pytest.mark.parametrize("name", FILES)
def test_a_name_that_stands_there_twice_is_refused(zipped, target, name):
    add(zipped, name)
    assert refused(zipped, target) == f'The archive at entry "{name}": the name stands there twice.'


def test_an_entry_without_a_name_is_refused(zipped, target):
    add(zipped, "Xtra")
    zipped.write_bytes(zipped.read_bytes().replace(b"Xtra", b"\0tra"))  # zipfile ends names at a NUL
    assert "an entry has no name" in refused(zipped, target)


def test_an_encrypted_entry_is_refused(zipped, target):
    patch_headers(zipped, "model.onnx", flag=1)
    assert refused(zipped, target) == 'The archive at entry "model.onnx": it is encrypted.'


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_unusual_compression_is_refused(folder, tmp_path, target, method):
    with zipfile.ZipFile(tmp_path / "package.zip", "w", method) as opened:
        for name in FILES:
            opened.write(folder / name, name)
    assert "its compression is neither 'stored' nor 'deflated'" in refused(tmp_path / "package.zip", target)


def test_more_entries_than_a_package_has_are_refused(zipped, target):
    with zipfile.ZipFile(zipped, "a") as opened:
        for index in range(MAX_ENTRIES + 1 - len(FILES)):
            opened.writestr(f"{index}", b"")
    said = refused(zipped, target)
    assert said == f"The archive: it has {MAX_ENTRIES + 1} entries; a package has at most {MAX_ENTRIES}."


def test_a_bomb_ends_at_the_listed_size(folder, tmp_path, target, monkeypatch):
    size = (folder / "model.onnx").stat().st_size
    (folder / "model.onnx").write_bytes(bytes(64 << 20))
    archive = zip_package(folder, tmp_path / "bomb.zip")
    assert archive.stat().st_size < 1 << 20

    largest = 0

    def observed(*arguments):
        nonlocal largest
        for path in target.parent.rglob("model.onnx"):
            largest = max(largest, path.stat().st_size)
        return BadArchive(*arguments)

    monkeypatch.setattr(archive_module, "BadArchive", observed)
    said = refused(archive, target)
    assert said == f'The archive at entry "model.onnx": it does not have the {size} bytes that the manifest says.'
    assert largest <= size


def test_a_bomb_that_is_not_listed_is_not_unpacked(zipped, target):
    add(zipped, "bomb", bytes(64 << 20))
    unpack(zipped, target)
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) < 1 << 20


def test_a_header_that_lies_about_its_size_is_refused(folder, zipped, target):
    size = (folder / "model.onnx").stat().st_size
    (folder / "model.onnx").write_bytes(bytes(64 << 20))
    zip_package(folder, zipped)
    patch_headers(zipped, "model.onnx", size=size)
    assert "Bad CRC-32" in refused(zipped, target)


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("more", [-1, 1, 1000])
def test_a_listed_size_that_is_wrong_is_refused(folder, tmp_path, target, name, more):
    path = folder / name
    size, content = path.stat().st_size, path.read_bytes()
    path.write_bytes((content + bytes(1000))[: size + more])
    said = refused(zip_package(folder, tmp_path / "package.zip"), target)
    assert said == f'The archive at entry "{name}": it does not have the {size} bytes that the manifest says.'


def test_other_content_of_the_same_size_is_refused_and_the_right_one_can_follow(folder, tmp_path, target):
    path = folder / "model.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said = refused(zip_package(folder, tmp_path / "damaged.zip"), target)
    assert said.startswith('The archive at entry "model.onnx": its SHA-256 is ')
    path.write_bytes(content)
    unpack(zip_package(folder, tmp_path / "package.zip"), target)
    verify_files(read_package(target))


def test_a_manifest_over_its_limit_is_refused(folder, tmp_path, target):
    with (folder / "manifest.json").open("ab") as manifest:
        manifest.write(b" " * (1 << 20))
    said = refused(zip_package(folder, tmp_path / "package.zip"), target)
    assert said == 'The archive at entry "manifest.json": it has more than 1048576 bytes.'


def test_more_than_the_device_has_room_for_is_refused_before_unpacking(folder, tmp_path, target):
    manifest = read_package(folder).manifest
    rewrite_manifest(folder, changed(manifest, files=[changed(manifest.files[0], size=2**62), manifest.files[1]]))
    assert " are free on this device" in refused(zip_package(folder, tmp_path / "package.zip"), target)


def test_a_listed_file_that_is_not_there_is_refused(folder, tmp_path, target):
    (folder / "self-test/good.rgb").unlink()
    said = refused(zip_package(folder, tmp_path / "package.zip"), target)
    assert said == 'The archive at entry "self-test/good.rgb": the manifest lists it, and it is not there.'


def test_a_file_listed_below_another_file_is_refused(folder, tmp_path, target):
    manifest = read_package(folder).manifest
    rewrite_manifest(
        folder, changed(manifest, files=[*manifest.files, changed(manifest.files[1], path="model.onnx/good.rgb")])
    )
    archive = zip_package(folder, tmp_path / "package.zip")
    add(archive, "model.onnx/good.rgb", (folder / "self-test/good.rgb").read_bytes())
    assert refused(archive, target).startswith("The archive: it cannot be unpacked (")


def test_an_archive_without_one_manifest_is_refused(folder, tmp_path, target):
    archive = tmp_path / "none.zip"
    add(archive, "readme.txt")
    assert refused(archive, target) == "The archive: it has no manifest.json at its top."
    add(archive, "a/manifest.json")
    add(archive, "b/manifest.json")
    assert refused(archive, target) == "The archive: it has no manifest.json at its top."
    deep = zip_package(folder, tmp_path / "deep.zip", "a/b/")
    assert refused(deep, target) == "The archive: it has no manifest.json at its top."


def test_what_is_no_zip_is_refused(tmp_path, zipped, target):
    (tmp_path / "garbage.zip").write_bytes(b"garbage" * 100)
    assert "File is not a zip file" in refused(tmp_path / "garbage.zip", target)
    (tmp_path / "half.zip").write_bytes(zipped.read_bytes()[:500])
    refused(tmp_path / "half.zip", target)
    refused(tmp_path, target)
    assert refused(tmp_path / "absent.zip", target) == (
        "The archive: there is no file 'absent.zip'; name a package's folder or its ZIP."
    )


def test_a_package_appears_whole_or_not_at_all(zipped, target, monkeypatch):
    seen = []

    def spied(content):
        seen.append(target.exists())
        return archive_read(content)

    archive_read = archive_module.read_manifest
    monkeypatch.setattr(archive_module, "read_manifest", spied)
    unpack(zipped, target)
    assert seen == [False]
    assert relative_files(target) == FILES


def test_a_folder_that_is_there_already_is_kept_as_it_is(zipped, target):
    target.mkdir(parents=True)
    (target / "mine").write_text("kept")
    with pytest.raises(BadArchive) as refusal:
        unpack(zipped, target)
    assert str(target) not in str(refusal.value)
    assert relative_files(target.parent) == ["unpacked/mine"]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_archive_is_unpacked_or_refused_and_nothing_else(tmp_path_factory, data):
    made = tmp_path_factory.getbasetemp() / "damaged"
    if not made.exists():
        zip_package(make_package(made / "package"), made / "package.zip")
    damaged = bytearray((made / "package.zip").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (made / "damaged.zip").write_bytes(damaged)
    try:
        with opened_package(made / "damaged.zip") as package:
            assert relative_files(package.folder) == FILES
    except BadPackage as refusal:
        assert str(refusal).isprintable()
