"""Clients in a process of their own, niced: they share the processors with the agent, and must not slow it down.

    python -m tests.faults.load_generator SOCKET COMPONENT RED --clients N --seconds S [--rate R]

Prints `ready` when its clients begin, and at the end what they saw as one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.support.agent_process import PATIENCE, inline_request
from tests.support.checkout import ROOT
from tests.support.packages import grey

NICENESS = 10


Calls = dict[str, list[float]]
"""Seconds each call took that ended in time, by the name of its status code."""


class LoadGenerator:
    """A running generator; `red` is the value of its images."""

    def __init__(
        self, socket: Path, component: str, red: int, *, clients: int, seconds: float, rate: float = 0
    ) -> None:
        """`rate`: calls per second of all clients together, 0 for as many as they get answered."""
        command = [sys.executable, "-m", "tests.faults.load_generator", str(socket), component, str(red)]
        command += ["--clients", str(clients), "--seconds", str(seconds), "--rate", str(rate)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def calls(self) -> Calls:
        """What its clients saw, when they are done."""
        content, _ = self._process.communicate()
        assert self._process.returncode == 0
        calls: Calls = json.loads(content)
        return calls

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def load(socket: Path, component: str, red: int, *, clients: int) -> Iterator[None]:
    """Clients that call all the time; they may come and go within the block."""
    generator = LoadGenerator(socket, component, red, clients=clients, seconds=86_400)
    try:
        generator.wait_until_ready()
        yield
        assert generator.runs
    finally:
        generator.end()


def _client(stub: EdgeAgentStub, arguments: argparse.Namespace, end: float, calls: Calls) -> None:
    image = inline_request(arguments.component, grey(arguments.red))
    pause = arguments.clients / arguments.rate if arguments.rate else 0
    turn = time.monotonic()
    while turn < end:
        begin = time.monotonic()
        try:
            stub.DetectAnomalies(image, timeout=PATIENCE)
            code = "OK"
        except grpc.RpcError as error:
            code = error.code().name
        done = time.monotonic()
        if done < end:
            calls.setdefault(code, []).append(done - begin)
        # A call that took longer than its turn costs the turns it took.
        turn = max(turn + pause, done)
        time.sleep(turn - done)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("component")
    parser.add_argument("red", type=int)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, default=0)
    arguments = parser.parse_args()
    os.nice(NICENESS)
    with grpc.insecure_channel(f"unix:{arguments.socket}") as channel:
        grpc.channel_ready_future(channel).result(PATIENCE)
        print("ready", flush=True)
        end, stub = time.monotonic() + arguments.seconds, EdgeAgentStub(channel)
        # A list of calls for each, so that none waits for another.
        seen: list[Calls] = [{} for _ in range(arguments.clients)]
        threads = [threading.Thread(target=_client, args=(stub, arguments, end, calls)) for calls in seen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    codes = {code for calls in seen for code in calls}
    print(json.dumps({code: [seconds for calls in seen for seconds in calls.get(code, [])] for code in codes}))


if __name__ == "__main__":
    main()
