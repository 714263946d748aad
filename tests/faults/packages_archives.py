"""Row E9: ZIPs that want to write elsewhere, or more than they say."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.cli import main
from agent.errors import BadPackage
from agent.models.registry import Registry
from agent.packages.archive import MAX_ENTRIES, unpack
from agent.packages.package import read_package, verify_files
from tests.faults.packages_support import check_refusal, check_sentence
from tests.faults.row import Run, row
from tests.support.packages import make_package, zip_package

COMPONENT = "from-zip"
BOMB = 64 << 20
"""Bytes that shrink to a thousandth."""
MANY = 100_000
"""Entries."""
SPARE = 1 << 20
"""Bytes on disk beside what the manifest lists: folders, records, the manifest itself."""
MUTANTS = 20
"""Damaged ZIPs between two ZIPs of the list."""
PLAIN = stat.S_IFREG | 0o644

Pack = Callable[[Path, Path], None]
"""Makes an archive, the second path, of a package."""


def _with(*names: str, content: bytes = b"slipped", mode: int = PLAIN) -> Pack:
    """The package, and entries that are not listed."""

    def pack(package: Path, archive: Path) -> None:
        zip_package(package, archive)
        for name in names:
            _add(archive, name, content, mode)

    return pack


def _add(archive: Path, name: str, content: bytes, mode: int = PLAIN) -> None:
    entry = zipfile.ZipInfo(name)
    entry.external_attr, entry.compress_type = mode << 16, zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(archive, "a") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand there twice
        opened.writestr(entry, content)


def _instead_of_the_model(content: bytes, mode: int = PLAIN) -> Pack:
    """What stands at the model's name is something else; the manifest is the same."""

    def pack(package: Path, archive: Path) -> None:
        for file in sorted(path for path in package.rglob("*") if path.is_file()):
            name = file.relative_to(package).as_posix()
            is_model = name == "model.onnx"
            _add(archive, name, content if is_model else file.read_bytes(), mode if is_model else PLAIN)

    return pack


def _other_bytes(package: Path, archive: Path) -> None:
    """As many as the manifest says, and others."""
    model = bytearray((package / "model.onnx").read_bytes())
    model[-1] ^= 1
    _instead_of_the_model(bytes(model))(package, archive)


def _all_setuid(package: Path, archive: Path) -> None:
    for file in package.rglob("*"):
        if file.is_file():
            _add(archive, file.relative_to(package).as_posix(), file.read_bytes(), stat.S_IFREG | 0o6777)


def _patched(flag: int = 0, size: int | None = None, method: int | None = None) -> Pack:
    """The headers of the model's entry say something else; a bomb stands there where they lie about its size."""

    def pack(package: Path, archive: Path) -> None:
        (_instead_of_the_model(bytes(BOMB)) if size is not None else zip_package)(package, archive)
        content = bytearray(archive.read_bytes())
        for signature, flags_at, size_at, name_at in ((b"PK\3\4", 6, 22, 30), (b"PK\1\2", 8, 24, 46)):
            header = content.find(signature)
            while content[header + name_at :][:10] != b"model.onnx":
                header = content.find(signature, header + 4)
            content[header + flags_at] |= flag
            if method is not None:
                struct.pack_into("<H", content, header + flags_at + 2, method)
            if size is not None:
                struct.pack_into("<I", content, header + size_at, (package / "model.onnx").stat().st_size)
        archive.write_bytes(content)

    return pack


def _many(package: Path, archive: Path) -> None:
    zip_package(package, archive)
    with zipfile.ZipFile(archive, "a") as opened:
        for number in range(MANY):
            opened.writestr(f"many/{number}", b"")


def _nested(package: Path, archive: Path) -> None:
    inner = archive.with_suffix(".inner")
    zip_package(package, inner)
    _add(archive, "package.zip", inner.read_bytes())


def _wide(package: Path, archive: Path) -> None:
    """All entries share the bytes of one: the sum is far more than the file."""
    zip_package(package, archive)
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("shared", bytes(BOMB), zipfile.ZIP_DEFLATED)
        shared = opened.getinfo("shared")
        for number in range(1000):
            again = zipfile.ZipInfo(f"shared-{number}")
            again.header_offset, again.CRC = shared.header_offset, shared.CRC
            again.compress_size, again.file_size = shared.compress_size, shared.file_size
            again.compress_type = shared.compress_type
            opened.filelist.append(again)
            opened.NameToInfo[again.filename] = again


def _cut(package: Path, archive: Path) -> None:
    zip_package(package, archive)
    os.truncate(archive, archive.stat().st_size // 2)


def _after_junk(package: Path, archive: Path) -> None:
    """As self-extracting archives are; the ZIP's own rules allow it."""
    zip_package(package, archive)
    archive.write_bytes(b"#!/bin/sh\n" + bytes(1000) + archive.read_bytes())


PLAIN_ONLY, TWICE = "it is no plain file", "the name stands there twice"
SIZE = "bytes that the manifest says"
ARCHIVES: dict[str, tuple[Pack, str]] = {
    "as it should be": (lambda package, archive: zip_package(package, archive) and None, ""),
    "slip": (_with("../slipped", "a/../../slipped", "/tmp/slipped", "..\\slipped", "C:\\slipped"), ""),
    "slip over a listed file": (_with("self-test/../model.onnx", "./model.onnx"), ""),
    "link": (_with("a-link", content=b"/etc/passwd", mode=stat.S_IFLNK | 0o777), PLAIN_ONLY),
    "link for the model": (_instead_of_the_model(b"/etc/passwd", stat.S_IFLNK | 0o777), PLAIN_ONLY),
    "device": (_with("device", mode=stat.S_IFCHR | 0o666), PLAIN_ONLY),
    "setuid": (_all_setuid, ""),
    "name twice": (_with("model.onnx"), TWICE),
    "manifest twice": (_with("manifest.json"), TWICE),
    "100,000 entries": (_many, f"at most {MAX_ENTRIES}"),
    "bomb for the model": (_instead_of_the_model(bytes(BOMB)), SIZE),
    "bomb beside it": (_with("bomb", content=bytes(BOMB)), ""),
    "bomb for the manifest": (_with("x/manifest.json", content=b" " * BOMB), ""),
    "header that lies": (_patched(size=0), "Bad CRC-32"),
    "entries that share bytes": (_wide, ""),
    "encrypted": (_patched(flag=1), "it is encrypted"),
    "unknown compression": (_patched(method=98), "neither 'stored' nor 'deflated'"),
    "ZIP in a ZIP": (_nested, "no manifest.json at its top"),
    "other content": (_instead_of_the_model(b"x"), SIZE),
    "other content of the same size": (_other_bytes, "its SHA-256 is"),
    "cut": (_cut, "not a zip file"),
    "no ZIP": (lambda package, archive: archive.write_bytes(b"PK" * 1000) and None, "not a zip file"),
    "after junk": (_after_junk, ""),
}
"""How it is packed, and what the refusal says; nothing where it is registered."""


@row(
    "E9",
    "ZIPs that slip, link, lie, repeat, explode: registered without what is not listed, or refused with nothing left",
    unit="ZIPs",
    full=100_000,
    short=len(ARCHIVES) * (1 + MUTANTS),
    uses_shared_agent=False,
)
def archives(run: Run) -> None:
    """Those of the list through `edge-agent models register`, damaged ones through what unpacks for it."""
    package = make_package(run.folder / "package")
    listed = sum(file.size for file in read_package(package).manifest.files)
    good = zip_package(package, run.folder / "good.zip").read_bytes()
    names, most = list(ARCHIVES), 0
    for number in run.steps(each=1 + MUTANTS):
        index = number // (1 + MUTANTS) % len(names)
        archive = run.folder / f"{index}.zip"
        if not archive.exists():
            ARCHIVES[names[index]][0](package, archive)
        most = max(most, _register(run, archive, ARCHIVES[names[index]][1]))
        for _ in range(MUTANTS):
            _unpack_damaged(run, good)
        assert set(run.folder.iterdir()) <= {package, *run.folder.glob("*.zip"), *run.folder.glob("*.inner")}
    run.figures["most bytes on disk, beside those listed"] = f"{most - listed:,}"
    assert most <= listed + SPARE


def _register(run: Run, archive: Path, expected: str) -> int:
    """By the command, and removed again; bytes on disk in between."""
    registry, said = run.folder / "registry", io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), _small_files():
        code = main(["models", "register", str(archive), "--component", COMPONENT, "--registry", str(registry)])
    files = [path for path in registry.rglob("*") if not path.is_dir()]
    used = sum(path.lstat().st_size for path in files)
    if expected:
        assert code == 1 and expected in said.getvalue(), said.getvalue()
        check_sentence(said.getvalue().strip(), run.folder)
        assert files == [], files
    else:
        assert code == 0, said.getvalue()
        (record,) = Registry(registry).records().values()
        _check_plain(Path(record.path))
        assert main(["models", "remove", COMPONENT, "--registry", str(registry)]) == 0
    run.saw("refused" if expected else "registered")
    shutil.rmtree(registry, ignore_errors=True)  # where it came to that
    return used


@contextlib.contextmanager
def _small_files() -> Iterator[None]:
    """This process can write no file beyond SPARE, which is more than any of the package's; it would be an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SPARE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _check_plain(folder: Path) -> None:
    """The listed files, with their content, and nothing else."""
    package = read_package(folder)
    verify_files(package)
    listed = {"manifest.json", *(file.path for file in package.manifest.files)}
    there = {path.relative_to(folder).as_posix(): path.lstat().st_mode for path in folder.rglob("*")}
    assert {path for path, mode in there.items() if not stat.S_ISDIR(mode)} == listed
    assert not any(mode & (stat.S_ISUID | stat.S_ISGID) for path, mode in there.items() if path in listed)


def _unpack_damaged(run: Run, good: bytes) -> None:
    chance, content = run.random, bytearray(good)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(content))
        if chance.random() < 0.7:
            content[at] = chance.randrange(256)
        else:
            del content[at : at + chance.randrange(1, 100)]
    archive, target = run.folder / "damaged.zip", run.folder / "damaged" / "package"
    archive.write_bytes(content)
    try:
        with _small_files():
            unpack(archive, target)
    except BadPackage as refusal:
        check_refusal(refusal, run.folder)
        run.saw("refused")
    else:
        _check_plain(target)
        run.saw("unpacked")
        shutil.rmtree(target)
    assert list(target.parent.iterdir()) == []
    target.parent.rmdir()
