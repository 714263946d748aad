"""The shim over libcudart: against a library compiled here, and against a real one where there is one without a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from agent.backends.cuda_runtime import CudaError, CudaNotUsable, Gpu, libraries_of_device, open_cuda_runtime
from tests.support.fake_cuda import FakeCuda


@pytest.fixture
def cuda(fake_cuda):
    return open_cuda_runtime([str(fake_cuda.path)])


def test_what_the_gpu_is_is_told(cuda):
    assert cuda.gpu == Gpu("Fake GPU", "8.7", is_integrated=True)
    assert (cuda.release, cuda.driver_release) == ("12.6", "12.8")
    assert cuda.memory() == (6 << 30, 8 << 30)


@pytest.mark.parametrize(("compute_capability", "has"), [("7.2", False), ("7.5", False), ("8.0", True), ("12.0", True)])
def test_tf32_came_with_ampere(compute_capability, has):
    assert Gpu("a GPU", compute_capability, is_integrated=False).has_tf32 is has


def test_what_is_copied_there_comes_back(cuda):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    there, back = cuda.pinned_array((3, 4), np.float32), cuda.pinned_array((3, 4), "float32")
    there.values[:] = values
    stream, device = cuda.stream(), cuda.device_memory(values.nbytes)
    stream.copy_to_device(device, there)
    stream.copy_to_host(back, device)
    assert not np.array_equal(back.values, values), "the fake works only when it is waited for, as a GPU may"
    stream.synchronize()
    np.testing.assert_array_equal(back.values, values)


def test_everything_is_given_back_with_its_object(cuda, fake_cuda):
    held = [cuda.device_memory(10), cuda.pinned_array((5,), np.uint8), cuda.stream()]
    assert fake_cuda.blocks == 3
    del held
    assert fake_cuda.blocks == 0
    assert sorted(fake_cuda.history[-3:]) == ["cudaFree", "cudaFreeHost", "cudaStreamDestroy"]


def test_an_empty_array_is_one_too(cuda):
    assert cuda.pinned_array((0, 6), np.float32).values.shape == (0, 6)
    assert cuda.device_memory(0).address


def test_a_call_that_fails_is_named_with_the_error(cuda, fake_cuda):
    stream = cuda.stream()
    fake_cuda.fail("cudaStreamSynchronize", 700)
    with pytest.raises(CudaError) as error:
        stream.synchronize()
    assert str(error.value) == "CUDA failure 700: cudaErrorIllegalAddress in cudaStreamSynchronize"
    assert (error.value.code, error.value.name) == (700, "cudaErrorIllegalAddress")


def test_memory_that_is_not_there_is_refused(cuda, fake_cuda):
    fake_cuda.fail("cudaMalloc", 2)
    with pytest.raises(CudaError, match="cudaErrorMemoryAllocation"):
        cuda.device_memory(1 << 40)
    assert fake_cuda.blocks == 0


@pytest.mark.parametrize(
    ("call", "code", "expected"),
    [
        ("cudaGetDeviceCount", 35, "no NVIDIA driver on this device, or one older than its CUDA runtime; install"),
        ("cudaGetDeviceCount", 100, "CUDA finds no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES"),
        ("cudaGetDeviceCount", 999, "CUDA failure 999: cudaErrorUnknown in cudaGetDeviceCount; check the driver"),
    ],
)
def test_a_device_without_a_usable_gpu_says_what_to_do(fake_cuda, call, code, expected):
    fake_cuda.fail(call, code)
    with pytest.raises(CudaNotUsable) as refusal:
        open_cuda_runtime([str(fake_cuda.path)])
    assert expected in str(refusal.value)


def test_no_gpu_at_all_is_said_even_where_cuda_does_not_mind(fake_cuda):
    fake_cuda.has_gpus(0)
    with pytest.raises(CudaNotUsable, match="CUDA finds no GPU"):
        open_cuda_runtime([str(fake_cuda.path)])


def test_no_library_is_said_with_what_to_install(tmp_path):
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(CudaNotUsable, match=r"there is no CUDA runtime \(libcudart\) on this device; install CUDA"):
        open_cuda_runtime([str(tmp_path / "missing.so"), str(tmp_path / "text.so")])


def test_another_library_under_its_name_is_none():
    with pytest.raises(CudaNotUsable, match=r"is no CUDA runtime .*install CUDA again"):
        open_cuda_runtime(["libc.so.6"])


def test_an_older_runtime_that_works_is_taken_where_the_newest_does_not(fake_cuda):
    opened = open_cuda_runtime(["missing.so", "libc.so.6", str(fake_cuda.path)])
    assert opened.release == "12.6"


def test_the_devices_own_libraries_come_before_those_of_wheels():
    places = list(libraries_of_device())
    assert places[0] == "libcudart.so.13"
    assert places.index("/usr/local/cuda/lib64/libcudart.so.12") < next(
        index for index, place in enumerate(places) if "nvidia/" in place
    )


def test_the_fake_refuses_what_cuda_refuses(cuda, fake_cuda: FakeCuda):
    """Else tests against it would show nothing."""
    stream, small, large = cuda.stream(), cuda.device_memory(8), cuda.pinned_array((16,), np.uint8)
    with pytest.raises(CudaError, match="cudaErrorInvalidValue"):
        stream.copy_to_device(small, large)
    large.address = large.values.copy().ctypes.data  # not pinned
    with pytest.raises(CudaError, match="cudaErrorInvalidValue"):
        stream.copy_to_host(large, cuda.device_memory(16))
