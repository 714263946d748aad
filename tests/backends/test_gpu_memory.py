"""Whether a model has room on the GPU."""

from __future__ import annotations

import pytest

from agent.backends import gpu_memory
from agent.backends.cuda_runtime import Gpu
from agent.backends.gpu_memory import KERNELS, check_gpu_memory
from agent.errors import NotEnoughGpuMemory, NotEnoughMemory


class Cuda:
    """A GPU with so many bytes free."""

    def __init__(self, free: int, *, is_integrated: bool = False) -> None:
        self.gpu = Gpu("GPU", "8.7", is_integrated)
        self._free = free

    def memory(self) -> tuple[int, int]:
        return self._free, 8 << 30


def check(cuda: Cuda, model_size: int, limit: int = 0) -> None:
    check_gpu_memory(cuda, model_size, limit)  # type: ignore[arg-type]


def test_a_model_wants_room_for_kernels_and_its_weights_twice() -> None:
    check(Cuda(KERNELS + 200), 100)
    with pytest.raises(NotEnoughGpuMemory):
        check(Cuda(KERNELS + 199), 100)


def test_a_limit_counts_where_it_is_lower_than_what_is_free() -> None:
    check(Cuda(1 << 40), 100, KERNELS + 200)
    with pytest.raises(NotEnoughGpuMemory, match=r"256 MiB of GPU memory, and 100 MiB may be taken\."):
        check(Cuda(1 << 40), 0, 100 << 20)


def test_a_gpu_that_shares_the_memory_has_what_the_system_would_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "available_memory", lambda: KERNELS)
    check(Cuda(0, is_integrated=True), 0)
    with pytest.raises(NotEnoughGpuMemory):
        check(Cuda(1 << 40, is_integrated=True), 1)


def test_an_update_that_finds_too_little_is_tried_again_later_as_with_other_memory() -> None:
    assert issubclass(NotEnoughGpuMemory, NotEnoughMemory)
