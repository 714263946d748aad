"""The few calls of the CUDA runtime that a backend needs, by ctypes on the device's own libcudart.

The device's own: Jetsons have a CUDA runtime that no wheel carries, and the wheels of cuda-python hold one for servers.

Source of names, argument types and error codes: the CUDA Runtime API reference,
https://docs.nvidia.com/cuda/cuda-runtime-api/ (modules Device, Error, Stream, Memory; enum cudaError).
"""

from __future__ import annotations

import ctypes
import sysconfig
import weakref
from collections.abc import Iterable, Iterator
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaRuntimeGetVersion": (POINTER(c_int),),
    "cudaDriverGetVersion": (POINTER(c_int),),
    "cudaGetDeviceCount": (POINTER(c_int),),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaGetDeviceProperties": (c_void_p, c_int),
    "cudaMemGetInfo": (POINTER(c_size_t), POINTER(c_size_t)),
    "cudaMalloc": (POINTER(c_void_p), c_size_t),
    "cudaFree": (c_void_p,),
    "cudaMallocHost": (POINTER(c_void_p), c_size_t),
    "cudaFreeHost": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreateWithFlags": (POINTER(c_void_p), c_uint),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamDestroy": (c_void_p,),
}
"""Argument types by call; each returns an error code, 0 for success."""

_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2  # enum cudaMemcpyKind
_NON_BLOCKING = 1  # cudaStreamNonBlocking: waits for nobody on the default stream
_INTEGRATED, _MAJOR, _MINOR = 18, 75, 76  # enum cudaDeviceAttr
_GPU = 0
"""The first that CUDA_VISIBLE_DEVICES leaves."""
_PROPERTIES_SIZE = 8192
"""Bytes: more than cudaDeviceProp has in any release (about 1,000). Only its first field is read, `char name[256]`."""

_NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
_FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/aarch64-linux/lib")
_WHEELS = ("nvidia/cu13/lib", "nvidia/cuda_runtime/lib")
"""Where NVIDIA's wheels keep libraries, below site-packages: CUDA 13, CUDA 12."""


class CudaError(Exception):
    """A call of the CUDA runtime failed: `code` and `name` of the error (`700`, `cudaErrorIllegalAddress`)."""

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"CUDA failure {code}: {name} in {call}")
        self.code, self.name = code, name


class CudaNotUsable(Exception):
    """There is no CUDA on this device that can be used; its text says why and what to do."""


@dataclass(frozen=True)
class Gpu:
    """What is known of a GPU."""

    name: str
    """`Orin`, `NVIDIA L4`."""
    compute_capability: str
    """`8.7`."""
    is_integrated: bool
    """Whether it shares its memory with the processor, as in a Jetson."""

    @property
    def has_tf32(self) -> bool:
        """Whether its runtimes take products of fp32 in TF32 where nobody says otherwise: Ampere and newer.

        Source: NVIDIA's CUDA C++ Programming Guide, compute capability 8.x.
        """
        return int(self.compute_capability.partition(".")[0]) >= 8


class CudaRuntime:
    """One libcudart on one GPU. From several threads at once."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises CudaNotUsable where the library lacks a call, CudaError where it finds no GPU it can use."""
        self._library = library
        try:
            for name, arguments in _SIGNATURES.items():
                getattr(library, name).argtypes = arguments
            library.cudaGetErrorName.argtypes, library.cudaGetErrorName.restype = (c_int,), c_char_p
        except AttributeError as error:
            raise CudaNotUsable(f"{library._name} is no CUDA runtime ({error}); install CUDA again") from None
        count = c_int()
        self._call("cudaGetDeviceCount", byref(count))
        if count.value == 0:
            raise CudaError("cudaGetDeviceCount", 100, "cudaErrorNoDevice")

    @property
    def release(self) -> str:
        """Of the runtime: `12.6`."""
        return _release(self._number("cudaRuntimeGetVersion"))

    @property
    def driver_release(self) -> str:
        """The newest CUDA that the driver serves: `12.8`."""
        return _release(self._number("cudaDriverGetVersion"))

    @property
    def gpu(self) -> Gpu:
        properties = ctypes.create_string_buffer(_PROPERTIES_SIZE)
        self._call("cudaGetDeviceProperties", properties, _GPU)
        major, minor, integrated = (
            self._number("cudaDeviceGetAttribute", attribute, _GPU) for attribute in (_MAJOR, _MINOR, _INTEGRATED)
        )
        name = properties.raw[:256].split(b"\0", 1)[0].decode(errors="replace")
        return Gpu(name, f"{major}.{minor}", bool(integrated))

    def memory(self) -> tuple[int, int]:
        """Bytes of the GPU's memory that are free, and all there are. Of an integrated GPU: of the memory it shares,
        without what the system would give back, so that MemAvailable tells more there."""
        free, total = c_size_t(), c_size_t()
        self._call("cudaMemGetInfo", byref(free), byref(total))
        return free.value, total.value

    def device_memory(self, size: int) -> DeviceMemory:
        return DeviceMemory(self._pointer("cudaMalloc", c_size_t(max(size, 1))), self)

    def pinned_array(self, shape: tuple[int, ...], dtype: DTypeLike) -> PinnedArray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return PinnedArray(self._pointer("cudaMallocHost", c_size_t(max(size, 1))), shape, np.dtype(dtype), self)

    def stream(self) -> Stream:
        return Stream(self._pointer("cudaStreamCreateWithFlags", c_uint(_NON_BLOCKING)), self)

    def _pointer(self, call: str, argument: object) -> int:
        pointer = c_void_p()
        self._call(call, byref(pointer), argument)
        return pointer.value or 0

    def _number(self, call: str, *arguments: int) -> int:
        number = c_int()
        self._call(call, byref(number), *arguments)
        return number.value

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise CudaError(name, code, self._library.cudaGetErrorName(code).decode(errors="replace"))

    def _give_back_with(self, owner: object, call: str, address: int) -> None:
        """Calls `call` on `address` when `owner` is gone, and not at the interpreter's end: the process gives all back,
        and CUDA may be gone before."""
        # Straight to the library: there is nobody left to tell of an error.
        weakref.finalize(owner, getattr(self._library, call), address).atexit = False


class DeviceMemory:
    """Memory of the GPU, given back with this object."""

    def __init__(self, address: int, cuda: CudaRuntime) -> None:
        self.address = address
        cuda._give_back_with(self, "cudaFree", address)


class PinnedArray:
    """An array in memory that the GPU copies from and to by itself, given back with this object."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], cuda: CudaRuntime) -> None:
        self.address = address
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_uint8 * size).from_address(address)
        self.values: NDArray[Any] = np.frombuffer(memoryview(memory), dtype).reshape(shape)
        """Not to be used any more when this object is gone."""
        cuda._give_back_with(self, "cudaFreeHost", address)


class Stream:
    """Work that the GPU does in order, while the caller goes on; given back with this object."""

    def __init__(self, handle: int, cuda: CudaRuntime) -> None:
        self.handle, self._cuda = handle, cuda
        cuda._give_back_with(self, "cudaStreamDestroy", handle)

    def copy_to_device(self, to: DeviceMemory, source: PinnedArray) -> None:
        self._copy(to.address, source.address, source.values.nbytes, _HOST_TO_DEVICE)

    def copy_to_host(self, to: PinnedArray, source: DeviceMemory) -> None:
        self._copy(to.address, source.address, to.values.nbytes, _DEVICE_TO_HOST)

    def synchronize(self) -> None:
        """Returns when all of it is done; raises CudaError where any of it failed."""
        self._cuda._call("cudaStreamSynchronize", self.handle)

    def _copy(self, to: int, source: int, size: int, kind: int) -> None:
        self._cuda._call("cudaMemcpyAsync", to, source, size, kind, self.handle)


def open_cuda_runtime(libraries: Iterable[str] | None = None) -> CudaRuntime:
    """The first CUDA runtime of `libraries` (names or paths; None: wherever they lie on devices) that has a GPU.

    Raises:
        CudaNotUsable: there is none; the text says what to install.
    """
    failure: Exception | None = None
    for path in libraries_of_device() if libraries is None else libraries:
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        try:
            # One that is newer than the driver fails; an older one beside it may do.
            return CudaRuntime(library)
        except (CudaError, CudaNotUsable) as error:
            failure = failure or error
    raise CudaNotUsable(_why_not(failure))


def libraries_of_device() -> Iterator[str]:
    """Where a CUDA runtime may lie, the newest first: loader's places, CUDA's folders, NVIDIA's wheels."""
    yield from _NAMES
    packages = sysconfig.get_paths()["purelib"]
    for folder in (*_FOLDERS, *(f"{packages}/{wheel}" for wheel in _WHEELS)):
        yield from (str(Path(folder, name)) for name in _NAMES)


def _why_not(failure: Exception | None) -> str:
    if failure is None:
        return (
            "there is no CUDA runtime (libcudart) on this device; install CUDA, or JetPack's nvidia-jetpack on a Jetson"
        )
    if isinstance(failure, CudaError) and failure.code == 35:  # cudaErrorInsufficientDriver: or no driver at all
        return (
            "there is no NVIDIA driver on this device, or one older than its CUDA runtime; install or update the driver"
        )
    if isinstance(failure, CudaError) and failure.code == 100:
        return (
            "CUDA finds no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES, that a container was started with --gpus, and "
            "that the agent's user is in the group video"
        )
    return f"{failure}; check the driver with nvidia-smi"


def _release(version: int) -> str:
    """12060 is 12.6."""
    return f"{version // 1000}.{version % 1000 // 10}"
