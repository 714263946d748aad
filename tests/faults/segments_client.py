"""Clients to be killed in the middle of a call, forked from one process: importing gRPC for each takes longer.

    python segments_client.py SOCKET

For each line `NAME ANSWERS` on its input one client makes the segment NAME and inspects it over and over, several
calls at once; after ANSWERS answers it prints its process id. The next line is read when the client is gone.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from pathlib import Path

import grpc

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub

WIDTH = HEIGHT = 512
SIZE = WIDTH * HEIGHT * 3
PATIENCE = 20
"""Seconds after which a client that nobody kills ends itself."""


def inspect_for_ever(socket: str, name: str, answers: int) -> None:
    path = Path("/dev/shm") / name
    path.touch()
    os.truncate(path, 2 * SIZE)
    request = wire.DetectAnomaliesRequest(model_component="any-size")
    request.bitmap.width, request.bitmap.height = WIDTH, HEIGHT
    request.bitmap.shared_memory_handle.CopyFrom(wire.SharedMemoryHandle(name=name, size=SIZE))
    mask = wire.SharedMemoryHandle(name=name, size=SIZE, offset=SIZE)
    request.anomaly_mask_params.shared_memory_handle.CopyFrom(mask)
    stub = EdgeAgentStub(grpc.insecure_channel(f"unix:{socket}"))
    calls = deque(stub.DetectAnomalies.future(request) for _ in range(3))
    while True:
        calls.popleft().result()
        calls.append(stub.DetectAnomalies.future(request))
        answers -= 1
        if answers == 0:
            print(os.getpid(), flush=True)


def main() -> None:
    for line in sys.stdin:
        name, answers = line.split()
        client = os.fork()
        if client == 0:
            signal.alarm(PATIENCE)
            inspect_for_ever(sys.argv[1], name, int(answers))
        os.waitpid(client, 0)


if __name__ == "__main__":
    main()
