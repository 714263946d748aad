"""A model package: a folder with a manifest and the files it lists."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from agent.errors import BadPackageFile
from agent.packages.manifest import MANIFEST_NAME, MAX_BYTES, Manifest, OnnxModel, PackageFile, SelfTestImage
from agent.packages.manifest_reader import read_manifest
from agent.packages.onnx_external_data import external_data_files, leads_outside

CHUNK = 1 << 20
"""Bytes hashed at a time."""


@dataclass(frozen=True)
class Package:
    """A package whose manifest has been read; `verify_files` says whether its files are what the manifest lists."""

    folder: Path
    manifest: Manifest

    def path_of(self, file: PackageFile) -> Path:
        return self.folder / file.path

    def self_test_pixels(self, test: SelfTestImage) -> NDArray[np.uint8]:
        """The image of a self-test, uint8, (height, width, 3), RGB.

        Raises:
            BadPackageFile: the file is not there or of another size.
        """
        content = _read(self.folder, test.path, test.width * test.height * 3)
        return np.frombuffer(content, np.uint8).reshape(test.height, test.width, 3)

    def stamps_of_weights(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Device and inode of each file that may hold weights beside the model, to size and time of change.

        A runtime maps such files: who writes into one changes what the model answers, while a file that takes its name
        changes nothing.
        """
        own = {test.path for test in self.manifest.self_test} | {self.manifest.preprocessing.ignore_mask}
        stamps = {}
        for file in self.manifest.files:
            if file.runtime is None and file.path not in own:
                with suppress(OSError):  # it has gone
                    status = self.path_of(file).stat()
                    stamps[status.st_dev, status.st_ino] = (status.st_size, status.st_mtime_ns)
        return stamps

    def ignore_mask(self) -> NDArray[np.bool_] | None:
        """Where pixels are background whatever the model says, bool, (height, width); None without such a mask.

        Raises:
            BadPackageFile: the file is not there or of another size.
        """
        path, image = self.manifest.preprocessing.ignore_mask, self.manifest.image
        if path is None:
            return None
        content = _read(self.folder, path, image.width * image.height)
        return np.frombuffer(content, np.uint8).astype(np.bool_).reshape(image.height, image.width)


def read_package(folder: Path) -> Package:
    """The package in `folder`, its manifest checked, its files not yet.

    Raises:
        BadPackage: there is no manifest, or it breaks a rule.
    """
    with os.fdopen(_open(folder, MANIFEST_NAME), "rb") as file:
        return Package(folder, read_manifest(file.read(MAX_BYTES + 1)))


def verify_files(package: Package) -> None:
    """Reads every listed file and compares size and SHA-256 with the manifest.

    Raises:
        BadPackageFile: a file is missing, no plain file, or not what the manifest lists, or an ONNX model refers to a
            file that is not listed.
    """
    for file in package.manifest.files:
        descriptor = _open(package.folder, file.path)
        with os.fdopen(descriptor, "rb") as opened:
            size = os.fstat(descriptor).st_size
            if size != file.size:
                raise BadPackageFile(file.path, f"it has {size} bytes; the manifest says {file.size}")
            sha256 = _sha256(opened)
        if sha256 != file.sha256:
            raise BadPackageFile(file.path, f"its SHA-256 is {sha256}; the manifest says {file.sha256}")
        if isinstance(file.runtime, OnnxModel):
            _check_external_data(package, file)


def _check_external_data(package: Package, model: PackageFile) -> None:
    """Whatever the runtime would read beside the model is listed, and so hashed like any file."""
    listed = {file.path for file in package.manifest.files}
    for location in sorted(external_data_files(package.path_of(model), model.path)):
        # Locations come from the model: on one line, not endless.
        shown = json.dumps(location if len(location) <= 80 else location[:77] + "...")
        if leads_outside(location):
            raise BadPackageFile(model.path, f"it keeps weights in {shown}, which is no path inside the package")
        if str(PurePosixPath(model.path).parent / location) not in listed:
            raise BadPackageFile(model.path, f"it keeps weights in {shown}, which the manifest does not list")


def describe_file(folder: Path, path: str) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file, for writing a manifest."""
    content = folder / path
    with content.open("rb") as file:
        return content.stat().st_size, _sha256(file)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _open(folder: Path, path: str) -> int:
    """A descriptor of a plain file below `folder`, reached through no link."""
    current = folder
    try:
        for part in Path(path).parts[:-1]:
            current = current / part
            if not stat.S_ISDIR(current.lstat().st_mode):
                raise BadPackageFile(path, f"'{part}' is no plain folder; links are not followed")
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadPackageFile(path, _why(error)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadPackageFile(path, "it is no plain file")
    return descriptor


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, NotADirectoryError):
        return "a part of its path is no folder"
    if isinstance(error, PermissionError):
        return "the agent's user may not read it"
    return f"it cannot be opened ({error.strerror}); links are not followed"


def _read(folder: Path, path: str, size: int) -> bytes:
    with os.fdopen(_open(folder, path), "rb") as file:
        content = file.read(size + 1)
    if len(content) != size:
        raise BadPackageFile(path, f"it does not have the {size} bytes that the manifest says")
    return content
