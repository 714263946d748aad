"""Rows A: bytes that are no message, and connections that are no HTTP/2."""

from __future__ import annotations

import random
import socket
import time
from collections import deque
from pathlib import Path

import grpc

from tests.faults.inputs_encoding import bitmap, block, byte_data, detect_bytes, raw_calls, sides
from tests.faults.inputs_http2 import JUNK
from tests.faults.inputs_log import LogReader
from tests.faults.row import CLASSIFIER, Run, row
from tests.support.agent_process import PATIENCE, inline_request, wait_for
from tests.support.packages import HEIGHT, WIDTH, grey

# --- A7: payloads ---

TOGETHER = 50
"""Calls that are under way at the same time."""
NO_MESSAGE = "Exception deserializing request!"
"""What gRPC says where its protobuf parser refuses the bytes."""
NOBODY = block(1, b"no-such-model")


@row(
    "A7",
    "random bytes in place of a message: INVALID_ARGUMENT, or gRPC's INTERNAL for what is no protobuf",
    unit="payloads",
    full=1_000_000,
    short=500,
)
def random_payloads(run: Run) -> None:
    image = bitmap(sides(WIDTH, HEIGHT), byte_data(bytes(WIDTH * HEIGHT * 3)))
    # (No model of ours behind StartModel and StopModel: chance would stop it.)
    real = {"DetectAnomalies": detect_bytes(CLASSIFIER, image), "ListModels": b""}
    log, lines, refused = LogReader(run.agent), 0, 0
    with raw_calls(run.agent) as calls:
        for _ in run.steps(each=TOGETHER):
            method = run.random.choice(sorted(calls))
            payloads = [_spoilt(real.get(method, NOBODY), run.random) for _ in range(TOGETHER)]
            under_way = [calls[method].future(payload, timeout=PATIENCE) for payload in payloads]
            outcomes = [_outcome(call) for call in under_way]
            for outcome in outcomes:
                run.saw(outcome)
            lines += len(log.new_lines())
            refused += len(outcomes) - outcomes.count("OK")
            assert lines <= refused
    assert set(run.outcomes) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "no protobuf: INTERNAL"}, run.outcomes
    assert {"OK", "INVALID_ARGUMENT", "no protobuf: INTERNAL"} <= set(run.outcomes), run.outcomes


def _spoilt(content: bytes, chance: random.Random) -> bytes:
    """Noise, or a message with something cut, changed or put into it, mostly near its beginning."""
    if chance.random() < 0.5:
        return chance.randbytes(chance.choice((1, 2, 3, 5, 10, 30, 100, 1000)))
    place = chance.randrange(min(len(content), 50) + 1)
    way = chance.randrange(4)
    if way == 0:
        return content[:place]
    if way == 1:
        return content[:place] + chance.randbytes(chance.randint(1, 10)) + content[place:]
    if way == 2:
        return content[:place] + content[place + chance.randint(1, 10) :]
    return content[:place] + chance.randbytes(1) + content[place + 1 :]


def _outcome(call: grpc.Future) -> str:
    error = call.exception()
    if error is None:
        return "OK"
    assert isinstance(error, grpc.RpcError)
    if error.code() is grpc.StatusCode.INTERNAL:
        assert error.details() == NO_MESSAGE, error.details()
        return "no protobuf: INTERNAL"
    return error.code().name


# --- A8: connections ---

BATCH = 20
HELD = 30
"""Spoilt connections that are left open beside the present one."""


@row(
    "A8",
    "connections with random, cut and malicious HTTP/2, closed, half-closed or left open: nobody else is affected",
    unit="connections",
    full=100_000,
    short=300,
)
def spoilt_connections(run: Run) -> None:
    held, taken, log = deque[socket.socket](), list[float](), LogReader(run.agent)
    stub, request = run.agent.stub(), inline_request(CLASSIFIER, grey(51))
    for _ in run.steps(each=BATCH):
        # Another client's call goes along with each batch. (So connections never come faster than it is answered: a
        # flood of calls that are taken back would have gRPC refuse calls of everybody.)
        began = time.monotonic()
        call = stub.DetectAnomalies.future(request, timeout=PATIENCE)
        call.add_done_callback(lambda _, began=began: taken.append(time.monotonic() - began))
        for _ in range(BATCH):
            kind = run.random.choice(sorted(JUNK))
            _spoil(run.agent.socket, JUNK[kind](run.random), run.random, held)
            run.saw(kind)
        assert round(call.result().detect_anomaly_result.anomaly_score, 4) == 0.2
        while len(held) > HELD:
            held.popleft().close()
        log.new_lines()
    for client in held:
        client.close()
    # gRPC calls back a little after the result is there.
    wait_for("all times to be known", lambda: len(taken) * BATCH == run.reached)
    taken.sort()
    for name, part in (("p50", 0.5), ("p99", 0.99), ("slowest", 1.0)):
        run.figures[f"other client's {name}"] = f"{taken[int(part * (len(taken) - 1))] * 1000:.1f} ms"


def _spoil(path: Path, junk: bytes, chance: random.Random, held: deque[socket.socket]) -> None:
    """One connection, from beginning to end or to where it is left open."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(path))
    ending = chance.choice(("close", "half-close", "leave open"))
    try:
        client.sendall(junk)
        if ending == "half-close":
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):  # what the agent still says; then it hangs up, else this times out
                pass
    except (BrokenPipeError, ConnectionResetError):  # the agent has hung up already
        pass
    if ending == "leave open":
        held.append(client)
    else:
        client.close()
