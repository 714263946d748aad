"""A CUDA runtime without a GPU, compiled from `cudart.c` in the test: real addresses, real C calls."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "cudart.c"
_WORK = ctypes.CFUNCTYPE(None)


class FakeCuda:
    """The library, and what tests do with it that no CUDA offers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.library = ctypes.CDLL(str(path))
        self.library.fake_history.restype = ctypes.c_char_p
        self.library.fake_enqueue.argtypes = (ctypes.c_void_p, _WORK)
        self.library.fake_is_device_memory.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        self._kept: list[object] = []
        self.library.fake_reset()

    def fail(self, call: str, code: int) -> None:
        """From now on `call` returns `code`."""
        self.library.fake_fail(call.encode(), code)

    def has_gpus(self, count: int) -> None:
        self.library.fake_gpus(count)

    @property
    def history(self) -> list[str]:
        """Names of all calls."""
        return self.library.fake_history().decode().split()

    @property
    def blocks(self) -> int:
        """How many allocations and streams have not been given back."""
        return self.library.fake_blocks()

    def enqueue(self, stream: int, work: Callable[[], None]) -> int:
        """Puts `work` into a stream, as a kernel; an error code."""
        self._kept.append(_WORK(work))
        return self.library.fake_enqueue(stream, self._kept[-1])

    def is_device_memory(self, address: int, size: int) -> bool:
        return bool(self.library.fake_is_device_memory(address, size))


def compile_fake_cuda(folder: Path) -> Path:
    """The library, or a skip where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make the fake CUDA runtime with")
    library = folder / "libcudart.so.12"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
    return library
