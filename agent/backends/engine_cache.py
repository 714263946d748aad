"""TensorRT engines that were built on this device, kept so that a restart takes seconds instead of minutes.

An engine is machine code: only what this agent wrote itself is ever handed to TensorRT. The folder is its user's alone,
a file belongs to that user and has the SHA-256 that its own head states. What does not is put aside and built again.

A file is a line that names the format, a line of JSON (`Head`), and the engine. A runtime that keeps its engines itself
gets a folder for those of one model; it counts from the moment a file with its head lies in it, written last.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import mmap
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from agent.atomic_file import replace_file, sync_file, sync_folder
from agent.errors import BadPackageFile, Refusal
from agent.packages.onnx_external_data import external_data_files

log = logging.getLogger(__name__)

ENGINE, FOLDER, ASIDE, TIMING, LOCK = ".engine", ".engines", ".bad", ".timing", "build.lock"
"""Names: engines by key, folders of engines by key, files that were put aside, timing caches by GPU and TensorRT, and
who builds now."""
HEAD = "head.json"
"""In a folder of engines."""
FORMAT = b"edge-agent engine 1\n"
MAX_HEAD = 1 << 16
"""Bytes."""
CHUNK = 1 << 20
"""Bytes hashed at a time."""


class EngineKey(msgspec.Struct, frozen=True):
    """All that an engine depends on: where one of these differs, it is another engine."""

    model: str
    """SHA-256 of the ONNX model and its external data, see `model_sha256`."""
    runtime: str
    """`TensorRT 10.3.0`."""
    gpu: str
    compute_capability: str
    cuda: str
    """Release of the CUDA runtime: `12.6`."""
    precision: Literal["fp32", "fp16"]
    """The lowest that its layers may use."""
    tf32: bool
    """Whether layers in fp32 may use TF32."""
    input_shape: tuple[int, ...]
    outputs: tuple[str, ...]
    workspace: int
    """Bytes."""
    optimization_level: int

    @property
    def digest(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    @property
    def timing_digest(self) -> str:
        """Of the timing cache that this engine's build can use: what was measured holds for a GPU and a TensorRT."""
        measured_on = (self.runtime, self.gpu, self.compute_capability, self.cuda)
        return hashlib.sha256(msgspec.json.encode(measured_on)).hexdigest()


class Head(msgspec.Struct, frozen=True):
    """What a file says of the engine in it."""

    key: EngineKey | None
    """None: a timing cache."""
    model_name: str
    """For people."""
    build_seconds: float
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class KeptEngine:
    """A file of the cache, for people."""

    file: str
    size: int
    """Bytes."""
    used: float
    """When it was last loaded or written, seconds since 1970."""
    head: Head | None
    """None: it was put aside, or cannot be read."""


class EngineCacheNotUsable(Refusal):
    """The folder cannot hold engines."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"The engine cache {folder} cannot be used: {reason}; name another folder as engine_cache.")


class EngineTooLarge(Refusal):
    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"The engine has {_mib(size)} MiB, and the engine cache may take {_mib(limit)}: it is not kept, and built "
            "again at every start; raise engine_cache_size."
        )


class EngineCache:
    """The engines in a folder. Several processes may use it at once."""

    def __init__(self, folder: Path, limit: int) -> None:
        """`limit`: bytes that all files together may take.

        Raises:
            EngineCacheNotUsable: it cannot be made, or belongs to somebody else.
        """
        self._folder, self._limit = folder, limit
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode):
                raise EngineCacheNotUsable(folder, "it is a link, or no folder")
            if status.st_uid != os.geteuid():
                raise EngineCacheNotUsable(folder, "it belongs to another user, who could put code into it")
            if stat.S_IMODE(status.st_mode) != 0o700:
                folder.chmod(0o700)
        except OSError as error:
            raise EngineCacheNotUsable(folder, str(error.strerror)) from None

    @contextmanager
    def turn_to_build(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Held by one process at a time: two builds at once measure each other, and take the memory of two.

        `on_wait` is called where another one builds. Whoever gets the turn looks again whether its engine is there now.
        """
        try:
            descriptor = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:  # a full disk: rather two builds at once than none
            log.warning("nobody knows who builds an engine now: %s", error.strerror)
            yield
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._remove_unfinished()
            yield
        finally:
            os.close(descriptor)

    def find(self, key: EngineKey) -> memoryview | None:
        """The engine, checked, as bytes of the file; None where there is none. A bad file is put aside."""
        content = self._checked(key.digest + ENGINE, key)
        if content is not None:
            with suppress(OSError):  # the time of use only decides what goes first
                os.utime(self._folder / (key.digest + ENGINE))
        return content

    def store(self, key: EngineKey, engine: memoryview, model_name: str, build_seconds: float) -> None:
        """Keeps `engine`; makes room by removing bad files, then what was not used for longest.

        Raises:
            EngineTooLarge: it is larger than all there may be.
            OSError: it could not be written; the cache is as before, or has more room.
        """
        if engine.nbytes > self._limit:
            raise EngineTooLarge(engine.nbytes, self._limit)
        self._make_room(engine.nbytes)
        self._write(key.digest + ENGINE, engine, Head(key, model_name, build_seconds, engine.nbytes, _sha256(engine)))

    def folder_of(self, key: EngineKey) -> Path:
        """Where a runtime keeps the engines of `key` itself; it need not be there, or be whole."""
        return self._folder / (key.digest + FOLDER)

    def has_folder(self, key: EngineKey) -> bool:
        """Whether that folder is there and as it was when it was kept."""
        folder = self.folder_of(key)
        head = _head_of(folder)
        try:
            if head is None or (head.key, head.size, head.sha256) != (key, *_size_and_sha256(folder)):
                return False
            os.utime(folder)
        except OSError:
            return False
        return True

    def empty_folder(self, key: EngineKey) -> Path:
        """The same folder, new. Raises OSError."""
        self.remove_folder(key)
        folder = self.folder_of(key)
        folder.mkdir(mode=0o700)
        return folder

    def remove_folder(self, key: EngineKey) -> None:
        self._remove(self.folder_of(key))

    def keep_folder(self, key: EngineKey, model_name: str, build_seconds: float) -> None:
        """What the runtime has written there is whole: it counts from now on. Makes room as `store` does.

        Raises:
            EngineTooLarge: it is larger than all there may be, and has been removed.
            OSError: it could not be written.
        """
        folder = self.folder_of(key)
        for path in folder.iterdir():
            path.chmod(0o600)  # whatever the umask
            sync_file(path)
        size, sha256 = _size_and_sha256(folder)
        if size > self._limit:
            self._remove(folder)
            raise EngineTooLarge(size, self._limit)
        replace_file(folder / HEAD, msgspec.json.encode(Head(key, model_name, build_seconds, size, sha256)), 0o600)
        sync_folder(self._folder)
        self._make_room(0)

    def timing(self, key: EngineKey) -> bytes:
        """What builds for this GPU have measured so far; empty where nothing is known."""
        content = self._checked(key.timing_digest + TIMING, None)
        return b"" if content is None else bytes(content)

    def store_timing(self, key: EngineKey, timing: memoryview) -> None:
        """Raises OSError."""
        self._write(key.timing_digest + TIMING, timing, Head(None, "", 0.0, timing.nbytes, _sha256(timing)))

    def put_aside(self, key: EngineKey, reason: str) -> None:
        """TensorRT does not load this engine: it is not used again, and stays to be looked at until room is needed."""
        self._put_aside(key.digest + ENGINE, reason)

    def engines(self) -> list[KeptEngine]:
        """What there is, last used first."""
        kept = []
        for path in self._files(ENGINE, FOLDER, ASIDE):
            with suppress(FileNotFoundError):
                kept.append(KeptEngine(path.name, size_of(path), path.stat().st_mtime, _head_of(path)))
        return sorted(kept, key=lambda engine: -engine.used)

    def keys_of(self, model: str, runtime: str, gpu: str) -> list[EngineKey]:
        """Of what is kept for a model (see `model_sha256`) by a runtime for a GPU, last used first."""
        keys = [engine.head.key for engine in self.engines() if engine.head is not None]
        return [key for key in keys if key is not None and (key.model, key.runtime, key.gpu) == (model, runtime, gpu)]

    def clear(self) -> int:
        """Removes everything; bytes that were given back. Models that run keep theirs, and build anew at their next
        start."""
        freed = sum(self._remove(path) for path in self._files(ENGINE, FOLDER, ASIDE, TIMING))
        sync_folder(self._folder)
        return freed

    # --- files ---

    def _checked(self, name: str, key: EngineKey | None) -> memoryview | None:
        try:
            content = _map(self._folder / name)
            return _body(content, key)
        except FileNotFoundError:
            return None
        except _Unusable as reason:
            self._put_aside(name, str(reason))
            return None
        except OSError as error:
            log.warning("an engine of the cache cannot be read (%s); it is built again", error.strerror)
            return None

    def _write(self, name: str, content: memoryview, head: Head) -> None:
        line = msgspec.json.encode(head) + b"\n"
        replace_file(self._folder / name, [FORMAT, line, content], 0o600)

    def _put_aside(self, name: str, reason: str) -> None:
        log.warning("an engine of the cache is not used and put aside: %s", reason)
        path = self._folder / name
        try:
            path.replace(path.with_suffix(ASIDE))
        except FileNotFoundError:  # another process was quicker
            pass
        except OSError:
            self._remove(path)

    def _make_room(self, size: int) -> None:
        bad = self._files(ASIDE)
        engines = sorted(self._files(ENGINE, FOLDER), key=lambda path: path.stat().st_mtime)
        taken = sum(size_of(path) for path in [*bad, *engines])
        for path in [*bad, *engines]:
            if taken + size <= self._limit:
                return
            log.info("the engine cache is full: %s is removed", path.name)
            taken -= self._remove(path)

    def _remove_unfinished(self) -> None:
        """What builds that were killed have left: files are written by whose turn it is."""
        unfinished = [folder for folder in self._files(FOLDER) if not (folder / HEAD).exists()]
        for path in [*self._folder.glob(".*"), *unfinished]:
            self._remove(path)

    def _files(self, *suffixes: str) -> list[Path]:
        return sorted(path for path in self._folder.iterdir() if path.suffix in suffixes)

    def _remove(self, path: Path) -> int:
        """The bytes that were given back."""
        try:
            size = size_of(path)
            if path.suffix == FOLDER and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError:  # gone already, or a folder: nothing of ours
            return 0
        return size


def model_sha256(model: Path) -> str:
    """SHA-256 over an ONNX model and the files that hold its weights, each with its name and size.

    Raises:
        BadPackageFile: the model is no ONNX model, or keeps weights outside its folder.
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for location in ["", *sorted(external_data_files(model))]:  # the model's own name says nothing
        path = model.parent / location if location else model
        if not path.resolve().is_relative_to(model.parent.resolve()):
            raise BadPackageFile(model.name, "it keeps weights outside its folder")
        digest.update(f"{location}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


class _Unusable(Exception):
    """Why a file is not handed to TensorRT."""


def _map(path: Path) -> memoryview:
    """The file's content, not read yet. Raises OSError, _Unusable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise _Unusable("others can write it, or it is no plain file")
        if status.st_size == 0:  # which cannot be mapped
            raise _Unusable("it is empty")
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)


def _body(content: memoryview, key: EngineKey | None) -> memoryview:
    """What the file is for. Raises _Unusable."""
    head, start = _read_head(content)
    body = content[start:]
    if head.key != key:
        raise _Unusable("it is an engine for something else")
    if body.nbytes != head.size:
        raise _Unusable(f"it has {body.nbytes} bytes of {head.size}")
    if _sha256(body) != head.sha256:
        raise _Unusable("its content has changed since it was written")
    return body


def _read_head(content: memoryview) -> tuple[Head, int]:
    """The head, and where the engine begins. Raises _Unusable."""
    first = bytes(content[: len(FORMAT) + MAX_HEAD])
    end = first.find(b"\n", len(FORMAT))
    if not first.startswith(FORMAT) or end < 0:
        raise _Unusable("it does not begin as an engine of this agent does")
    try:
        return msgspec.json.decode(first[len(FORMAT) : end], type=Head), end + 1
    except msgspec.DecodeError:
        raise _Unusable("its head cannot be read") from None


def _head_of(path: Path) -> Head | None:
    if path.suffix == ASIDE:
        return None
    try:
        if path.suffix == FOLDER:
            return msgspec.json.decode(_map(path / HEAD), type=Head)
        return _read_head(_map(path))[0]
    except (OSError, _Unusable, msgspec.DecodeError):
        return None


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.lstat().st_size


def _size_and_sha256(folder: Path) -> tuple[int, str]:
    """Of all files but the head, with their names. Raises OSError, also where one may not be used."""
    digest, size = hashlib.sha256(), 0
    for path in sorted(folder.iterdir()):
        if path.name != HEAD:
            try:
                content = _map(path)
            except _Unusable as reason:
                raise OSError(errno.EINVAL, str(reason)) from None
            digest.update(f"{path.name}\0{content.nbytes}\0".encode())
            digest.update(content)
            size += content.nbytes
    return size, digest.hexdigest()


def _sha256(content: memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _mib(size: int) -> int:
    return -(-size >> 20)
