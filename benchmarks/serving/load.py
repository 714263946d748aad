"""A process that makes calls: clients of the agent or of a peer, or the floor's bare loop.

    python -m benchmarks.serving.load NICENESS

Clients live in processes of their own, so that none of them waits for the interpreter of another contender. The process
carries out orders that come, one a line, on standard input: it gets ready (connections, requests, one call that is not
counted), says so, is told a span of time, and gives back the calls it made.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import AbstractContextManager, ExitStack

import msgspec

from benchmarks.serving.orders import Call, MakeCall, Order, Span

READY = b"ready\n"


def main() -> None:
    os.nice(int(sys.argv[1]))
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        with ExitStack() as closed_after:
            clients = [closed_after.enter_context(client_for(order)) for _ in range(order.clients)]
            for call in clients:
                call()
            _say(READY)
            span = msgspec.json.decode(sys.stdin.buffer.readline(), type=Span)
            _say(msgspec.json.encode(make_calls(clients, span, order.interval)) + b"\n")


def client_for(order: Order) -> AbstractContextManager[MakeCall]:
    """A client as ordered. Imported late: the bare loop shares its process with nobody's library."""
    if order.contender == "floor":
        from benchmarks.serving import floor

        return floor.bare_loop(order)
    from benchmarks.serving import clients

    return clients.CLIENTS[order.contender](order)


def make_calls(clients: list[MakeCall], span: Span, interval: float = 0.0) -> list[Call]:
    """The calls of all `clients`, each in a thread of its own, that ended while they count; of each at least one."""
    calls: list[Call] = []
    failures: list[BaseException] = []

    def work(client: MakeCall, first: float) -> None:
        try:
            _call_repeatedly(client, span, first, interval, calls)
        except Exception as failure:
            failures.append(failure)

    firsts = [span.begin + interval * number / len(clients) for number in range(len(clients))]
    threads = [threading.Thread(target=work, args=pair) for pair in zip(clients, firsts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return calls


def _call_repeatedly(client: MakeCall, span: Span, due: float, interval: float, calls: list[Call]) -> None:
    counted = False
    while True:
        time.sleep(max(0.0, due - time.monotonic()))
        began = time.monotonic()
        verdict = client()
        ended = time.monotonic()
        if ended >= span.end and counted:
            return
        if ended >= span.counted_from:
            calls.append(Call(ended, ended - began, verdict))
            counted = True
        # Who is late calls at once, and does not make up for what was missed.
        due = max(due + interval, ended)


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
