"""Threads of their own for some methods of a service."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


def answer_in_pool(servicer: Any, method: str, pool: ThreadPoolExecutor) -> None:
    """Has `servicer`'s `method` answered by `pool`: gRPC runs a handler in the pool that its function names.

    (The attribute is marked experimental; it is the same in grpcio 1.66 and 1.85.)
    """
    behaviour = getattr(servicer, method)

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        return behaviour(request, context)

    answer.experimental_thread_pool = pool  # type: ignore[attr-defined]
    setattr(servicer, method, answer)
