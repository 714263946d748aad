"""Whether the camera client keeps the model busy: verdicts a second from a video, against the model alone.

    python -m benchmarks.camera_client [--size 1280x960] [--task classification] [--threads 1] [--rounds 5]

Three contenders, one after the other in each round: the graph alone (a tensor that is ready, run in a loop), the agent
(a picture that is in its segment already, as many calls at a time as the client makes), and the camera client (a video
is decoded, converted into shared memory, inspected frame by frame, each verdict written to a file). Needs OpenCV.
With `--threads 0` the graph takes all cores and leaves none to decode with: that is the other side of the truth.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import onnxruntime
from tabulate import tabulate

from benchmarks.serving.clients import segment_client
from benchmarks.serving.model import INPUT, SIDE, Package, make_packages, picture
from benchmarks.serving.orders import Order
from benchmarks.serving.processes import processor_seconds
from benchmarks.serving.servers import COMPONENT, agent

CAMERA = Path(__file__).parents[1] / "client_examples/camera/camera.py"
CONTENDERS = ("graph alone", "agent", "camera client")
PRICE = "milliseconds"
SETTLE = 10
"""Turns that do not count: threads and buffers have to come into being."""


def main() -> int:
    arguments = _arguments()
    width, height = arguments.size
    with tempfile.TemporaryDirectory(prefix="camera-") as name:
        folder = Path(name)
        package = make_packages(folder / "packages")[arguments.task]
        video = folder / "line.avi"
        frames = make_video(video, width, height)
        os.environ["EDGE_AGENT_THREADS"] = str(arguments.threads)
        with agent(folder / "agent", package) as server:
            order = Order(
                contender="segment",
                clients=arguments.in_flight,
                width=width,
                height=height,
                address=server.address,
                component=COMPONENT,
            )
            rounds = [_round(arguments, folder, package, video, order) for _ in range(arguments.rounds)]
    print(f"{width} x {height}, {arguments.task}, {frames} frames of video over and over, {os.cpu_count()} cores,")
    print(f"{arguments.threads or 'all'} threads for the graph, {arguments.in_flight} calls at a time")
    rows = [[one, statistics.median(each[one] for each in rounds)] for one in CONTENDERS]
    print(tabulate(rows, headers=["", "pictures/s"], floatfmt=".1f"))
    for other in CONTENDERS[:2]:
        ratios = sorted(each["camera client"] / each[other] for each in rounds)
        print(f"camera client / {other}: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    milliseconds = statistics.median(each[PRICE] for each in rounds)
    print(f"processor time of the camera client: {milliseconds:.1f} ms a picture")
    return 0


def _round(
    arguments: argparse.Namespace, folder: Path, package: Package, video: Path, order: Order
) -> dict[str, float]:
    client = camera_client(folder, video, order.address, arguments.in_flight, arguments.seconds)
    return {
        "graph alone": graph_alone(package, arguments.threads, arguments.seconds),
        "agent": served(order, arguments.seconds),
        "camera client": client.per_second,
        PRICE: client.milliseconds,
    }


def make_video(path: Path, width: int, height: int, frames: int = 60) -> int:
    """Motion JPEG, as cameras send it at this size; how many frames it has."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (width, height))
    scene = picture(width, height)
    for number in range(frames):
        writer.write(np.ascontiguousarray(np.roll(scene, 8 * number, axis=1)[..., ::-1]))
    writer.release()
    return frames


def graph_alone(package: Package, threads: int, seconds: float) -> float:
    """Runs a second, with the agent's own options of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(package.model, options, providers=["CPUExecutionProvider"])
    tensor = np.zeros((1, 3, SIDE, SIDE), np.float32)
    for _ in range(SETTLE):
        session.run(None, {INPUT: tensor})
    return _per_second(lambda: session.run(None, {INPUT: tensor}), 1, seconds)


def served(order: Order, seconds: float) -> float:
    """Answers a second of the agent alone."""
    with ExitStack() as stack:
        calls = [stack.enter_context(segment_client(order)) for _ in range(order.clients)]
        for call in calls:
            call()
        turns = iter(calls)
        local = threading.local()

        def turn() -> None:
            if not hasattr(local, "call"):
                local.call = next(turns)
            local.call()

        return _per_second(turn, order.clients, seconds)


def camera_client(folder: Path, video: Path, address: str, in_flight: int, seconds: float) -> Measured:
    """Verdicts a second, and their price; how long the process takes to start does not count."""
    verdicts = folder / "verdicts.jsonl"
    verdicts.unlink(missing_ok=True)
    settings = {
        "model": COMPONENT,
        "socket": f"unix:{address}",
        "source": {"address": f"video:{video}", "skip_frames": False, "at_end": "repeat"},
        "in_flight": in_flight,
        "json_lines": {"path": str(verdicts)},
    }
    (folder / "line.json").write_text(json.dumps(settings))
    command = [sys.executable, str(CAMERA), "--config", str(folder / "line.json")]
    with (folder / "camera.log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            while _lines(verdicts) < SETTLE and process.poll() is None:
                time.sleep(0.02)
            begin = _seen(process.pid, verdicts)
            time.sleep(seconds)
            end = _seen(process.pid, verdicts)
        finally:
            process.terminate()
    pictures = end.pictures - begin.pictures
    return Measured(pictures / (end.at - begin.at), 1000 * (end.processor - begin.processor) / pictures)


class Seen(NamedTuple):
    """What a running client has done so far."""

    at: float
    pictures: int
    processor: float
    """Seconds of processor time."""


class Measured(NamedTuple):
    """What a turn of the client came to."""

    per_second: float
    milliseconds: float
    """Of processor time for each picture, in the client."""


def _seen(pid: int, verdicts: Path) -> Seen:
    return Seen(time.monotonic(), _lines(verdicts), processor_seconds(pid))


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _per_second(turn: Callable[[], object], clients: int, seconds: float) -> float:
    counts = [0] * clients
    begin = time.monotonic()
    end = begin + seconds

    def run(client: int) -> None:
        while time.monotonic() < end:
            turn()
            counts[client] += 1

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - begin)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def _arguments() -> argparse.Namespace:
    description, _, _ = __doc__.partition("\n")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.camera_client", description=description)
    parser.add_argument("--size", type=_size, default=(1280, 960), metavar="WIDTHxHEIGHT")
    parser.add_argument("--task", choices=["classification", "segmentation"], default="classification")
    parser.add_argument("--threads", type=int, default=1, help="of the graph; 0: as many as there are cores")
    parser.add_argument("--in-flight", type=int, default=3, help="calls at a time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
