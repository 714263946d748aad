"""Threads of their own for some methods of a service."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

Behaviour = Callable[[Any, grpc.ServicerContext], Any]


class ThreadPool(ThreadPoolExecutor):
    """A pool that goes on with the threads it has where the device gives it no more (no memory, too many processes).

    gRPC hands calls out in the one thread that takes them in. An exception there ends it, and nothing would ever be
    answered again.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, thread_name_prefix=name)
        self.submit(lambda: None).result()  # so that there is one, always

    def _adjust_thread_count(self) -> None:
        # Called once the work is in the queue: a thread that is there will do it.
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise


def answered_in_pool(behaviour: Behaviour, pool: ThreadPoolExecutor) -> Behaviour:
    """`behaviour`, run by `pool`: gRPC runs a handler in the pool that its function names.

    (The attribute is marked experimental; it is the same in grpcio 1.66 and 1.85.)
    """

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        return behaviour(request, context)

    answer.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return answer
