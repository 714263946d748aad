"""Packages as ZIP files, as components carry them.

Only the manifest and the files it lists are unpacked, each to the size the manifest says and no byte more: an entry
that is not listed is never written, whatever its name, and a bomb or a lying header ends at the listed size. Names are
refused, not mended.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import BadArchive
from agent.packages.manifest import MANIFEST_NAME, MAX_BYTES, Manifest
from agent.packages.manifest_reader import read_manifest
from agent.packages.package import Package, read_package

MAX_ENTRIES = 10_000
CHUNK = 1 << 20
"""Bytes unpacked at a time."""


@contextmanager
def opened_package(path: Path) -> Iterator[Package]:
    """The package at `path`, a folder or a ZIP; a ZIP is unpacked for as long as the block lasts.

    Raises:
        BadPackage: it is no package (BadArchive: its ZIP is not unpacked).
    """
    if path.is_dir():
        yield read_package(path)
        return
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        unpacked = Path(folder) / "package"
        unpack(path, unpacked)
        yield read_package(unpacked)


def manifest_in(archive: Path) -> Manifest:
    """The manifest of a package's ZIP; nothing else is unpacked. Raises BadArchive or BadManifest."""
    with _opened(archive) as opened:
        return read_manifest(_manifest_of(opened, _entries(opened))[0])


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a package's ZIP into `folder`, which must not exist; it appears whole or not at all.

    Raises:
        BadArchive: it is no ZIP, or an entry breaks a rule or is not what the manifest lists.
        BadManifest: its manifest does.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        _opened(archive) as opened,
        tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as temporary,
    ):
        target = Path(temporary) / "package"
        target.mkdir()
        _unpack_into(opened, target)
        target.rename(folder)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """The ZIP; what goes wrong with it inside the block is a BadArchive too."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except FileNotFoundError:
        raise BadArchive(None, f"there is no file {archive.name!r}; name a package's folder or its ZIP") from None
    except OSError as error:  # not str(error), which names folders of this device
        raise BadArchive(None, f"it cannot be unpacked ({error.strerror or 'unreadable'})") from None
    # ValueError: names that are no UTF-8; RuntimeError: what zipfile does not implement.
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise BadArchive(None, f"it cannot be unpacked ({str(error)[:200]})") from None


def _unpack_into(archive: zipfile.ZipFile, target: Path) -> None:
    entries = _entries(archive)
    content, root = _manifest_of(archive, entries)
    manifest = read_manifest(content)
    (target / MANIFEST_NAME).write_bytes(content)

    needed, free = sum(file.size for file in manifest.files), shutil.disk_usage(target).free
    if needed > free:
        raise BadArchive(None, f"its files have {needed} bytes, and {free} are free on this device")
    for file in manifest.files:
        entry = entries.get(root + file.path)
        if entry is None:
            raise BadArchive(file.path, "the manifest lists it, and it is not there")
        path = target / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as unpacked, archive.open(entry) as packed:
            left, digest = file.size, hashlib.sha256()
            while left and (chunk := packed.read(min(CHUNK, left))):
                unpacked.write(chunk)
                digest.update(chunk)
                left -= len(chunk)
            if left or packed.read(1):
                raise BadArchive(file.path, f"it does not have the {file.size} bytes that the manifest says")
            # Here and not later: what lies unpacked is never unpacked again, a bad copy would stay for good.
            if digest.hexdigest() != file.sha256:
                raise BadArchive(file.path, f"its SHA-256 is {digest.hexdigest()}; the manifest says {file.sha256}")


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Name to entry, plain files only."""
    entries: dict[str, zipfile.ZipInfo] = {}
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise BadArchive(None, f"it has {len(infos)} entries; a package has at most {MAX_ENTRIES}")
    for info in infos:
        if not info.filename:  # zipfile itself stumbles over it
            raise BadArchive(None, "an entry has no name")
        if info.is_dir():
            continue
        if info.filename in entries:
            raise BadArchive(info.filename, "the name stands there twice")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise BadArchive(info.filename, "it is no plain file")
        if info.flag_bits & 0x1:
            raise BadArchive(info.filename, "it is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadArchive(info.filename, "its compression is neither 'stored' nor 'deflated'")
        entries[info.filename] = info
    return entries


def _manifest_of(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]) -> tuple[bytes, str]:
    """The manifest's bytes, and what stands before every name of the package."""
    root = _root_of(entries)
    return _bytes(archive, entries[root + MANIFEST_NAME], MAX_BYTES), root


def _root_of(entries: dict[str, zipfile.ZipInfo]) -> str:
    """Where the manifest lies: at the top, or in the one folder that was zipped."""
    if MANIFEST_NAME in entries:
        return ""
    roots = [name for name in entries if name.count("/") == 1 and name.endswith(f"/{MANIFEST_NAME}")]
    if len(roots) != 1:
        raise BadArchive(None, f"it has no {MANIFEST_NAME} at its top")
    return roots[0].removesuffix(MANIFEST_NAME)


def _bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    with archive.open(entry) as opened:
        content = opened.read(limit + 1)
    if len(content) > limit:
        raise BadArchive(entry.filename, f"it has more than {limit} bytes")
    return content
