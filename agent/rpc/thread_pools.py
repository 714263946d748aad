"""Threads of their own for some methods of a service."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

Behaviour = Callable[[Any, grpc.ServicerContext], Any]


def answered_in_pool(behaviour: Behaviour, pool: ThreadPoolExecutor) -> Behaviour:
    """`behaviour`, run by `pool`: gRPC runs a handler in the pool that its function names.

    (The attribute is marked experimental; it is the same in grpcio 1.66 and 1.85.)
    """

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        return behaviour(request, context)

    answer.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return answer
