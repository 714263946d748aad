"""Clients in a process of their own, niced: they share the processors with the agent, and must not slow it down.

    python -m tests.faults.load_generator SOCKET COMPONENT RED --clients N [--rate R]

Prints `ready` when its clients begin; where its input ends it ends, and prints what they saw as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc

from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.support.agent_process import PATIENCE, inline_request
from tests.support.checkout import ROOT
from tests.support.packages import grey

NICENESS = 10

Calls = dict[str, list[float]]
"""Seconds each call took, by the name of its status code."""


class LoadGenerator:
    """Clients that call within a `with` block; `red` is the value of their images."""

    def __init__(self, socket: Path, component: str, red: int, *, clients: int, rate: float = 0) -> None:
        """`rate`: calls per second of all clients together, 0 for as many as they get answered."""
        self._command = [sys.executable, "-m", "tests.faults.load_generator", str(socket), component, str(red)]
        self._command += ["--clients", str(clients), "--rate", str(rate)]

    def __enter__(self) -> LoadGenerator:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, text=True, env=os.environ | {"PYTHONPATH": path}
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> Calls:
        """The calls that have ended by now; no more are made."""
        content, _ = self._process.communicate()
        assert self._process.returncode == 0
        calls: Calls = json.loads(content)
        return calls


def _client(stub: EdgeAgentStub, arguments: argparse.Namespace, over: threading.Event, calls: Calls) -> None:
    image = inline_request(arguments.component, grey(arguments.red))
    pause = arguments.clients / arguments.rate if arguments.rate else 0
    turn = time.monotonic()
    while True:
        begin = time.monotonic()
        try:
            stub.DetectAnomalies(image, timeout=PATIENCE)
            code = "OK"
        except grpc.RpcError as error:
            code = error.code().name
        done = time.monotonic()
        if over.is_set():
            return
        calls.setdefault(code, []).append(round(done - begin, 6))
        # A call that took longer than its turn costs the turns it took.
        turn = max(turn + pause, done)
        if over.wait(turn - done):
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("component")
    parser.add_argument("red", type=int)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0)
    arguments = parser.parse_args()
    os.nice(NICENESS)
    with grpc.insecure_channel(f"unix:{arguments.socket}") as channel:
        grpc.channel_ready_future(channel).result(PATIENCE)
        stub, over = EdgeAgentStub(channel), threading.Event()
        # For each client its own, so that none waits for another.
        seen: list[Calls] = [{} for _ in range(arguments.clients)]
        threads = [threading.Thread(target=_client, args=(stub, arguments, over, calls)) for calls in seen]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.read()
        over.set()
        for thread in threads:
            thread.join()
    codes = {code for calls in seen for code in calls}
    print(json.dumps({code: [seconds for calls in seen for seconds in calls.get(code, [])] for code in codes}))


if __name__ == "__main__":
    main()
