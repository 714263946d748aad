"""Whether the camera client keeps the model busy: verdicts a second from a video, against the model alone.

    python -m benchmarks.camera_client [--size 1280x960] [--model fitted] [--threads 1] [--rounds 20]

Two contenders take turns of a second or two, on the same agent with the same model, so that what else the machine does
meets both: the model alone (a picture that is in its segment already, as many calls at a time as the client makes), and
the camera client (a video is decoded, converted into shared memory, inspected frame by frame, each verdict written to a
file). Needs OpenCV.

Where agent and client share cores that are all busy, decoding costs the model time: how much that weighs depends on the
model's size, so there is the small graph of the other benchmarks and one of `edge-agent fit` for pictures of this size.
There the rates can be no nearer to each other than the processor time that a picture costs, agent and client together;
it is told, too, for it depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from tabulate import tabulate

from agent.workbench.part_pictures import draw_part
from benchmarks.serving.clients import segment_client
from benchmarks.serving.model import Package, make_packages, picture
from benchmarks.serving.orders import Order
from benchmarks.serving.processes import processor_seconds
from benchmarks.serving.servers import COMPONENT, agent

CAMERA = Path(__file__).parents[1] / "client_examples/camera/camera.py"
SETTLE_S = 0.3
"""Do not count: threads and buffers have to come into being, what stood still has to come up to speed."""
GOOD_PARTS = 10


def main() -> int:
    arguments = _arguments()
    width, height = arguments.size
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="camera-")))
        package = make_package(arguments.model, folder / "packages", width, height)
        video = folder / "line.avi"
        frames = make_video(video, arguments.codec, width, height)
        os.environ["EDGE_AGENT_THREADS"] = str(arguments.threads)
        server = stack.enter_context(agent(folder / "agent", package))
        order = Order(
            contender="segment",
            clients=arguments.in_flight,
            width=width,
            height=height,
            address=server.address,
            component=COMPONENT,
        )
        model = stack.enter_context(ModelAlone(order))
        client = stack.enter_context(CameraClient(folder, video, server.address, arguments.in_flight))
        served_by = [server.pid, *server.workers]
        rounds = [_round(number, model, client, served_by, arguments.seconds) for number in range(arguments.rounds)]
    print(f"{width} x {height}, {arguments.model} model, {frames} frames of {arguments.codec} over and over")
    print(f"{os.cpu_count()} cores, {arguments.threads or 'all'} threads for the graph", end="")
    print(f", {arguments.in_flight} calls at a time, {arguments.rounds} rounds")
    rates = [[each[index].per_second for each in rounds] for index in range(2)]
    prices = [sum(each[index].processor for each in rounds) for index in range(2)]
    pictures = [sum(each[index].pictures for each in rounds) for index in range(2)]
    alone, inspected = (
        [name, statistics.median(rate), 1000 * price / count]
        for name, rate, price, count in zip(("model alone", "camera client"), rates, prices, pictures, strict=True)
    )
    print(tabulate([alone, inspected], headers=["", "pictures/s", "processor ms"], floatfmt=".1f"))
    ratios = statistics.quantiles((after / before for before, after in zip(*rates, strict=True)), n=4)
    print(f"pictures/s, ratio of the medians: {inspected[1] / alone[1]:.3f}", end="")
    print(f" (quartiles of the rounds: {ratios[0]:.3f} and {ratios[2]:.3f})")
    print(f"processor time a picture, model alone to camera client: {alone[2] / inspected[2]:.3f}")
    return 0


class Turn(NamedTuple):
    """What came of one turn of a contender."""

    pictures: int
    seconds: float
    processor: float
    """Seconds of processor time, of agent and contender together."""

    @property
    def per_second(self) -> float:
        """Pictures."""
        return self.pictures / self.seconds


def _round(
    number: int, model: ModelAlone, client: CameraClient, served_by: list[int], seconds: float
) -> tuple[Turn, Turn]:
    """A turn of both; now the one is first, now the other."""
    if number % 2:
        inspected = client.turn(served_by, seconds)
        return model.turn(served_by, seconds), inspected
    return model.turn(served_by, seconds), client.turn(served_by, seconds)


def make_package(model: str, folder: Path, width: int, height: int) -> Package:
    """The small graph's, or one that `edge-agent fit` makes of drawn parts."""
    if model == "small":
        return make_packages(folder)["classification"]
    photographs, package = folder / "photographs", folder / "fitted"
    photographs.mkdir(parents=True)
    for seed in range(GOOD_PARTS):
        Image.fromarray(draw_part(seed, width=width, height=height).pixels).save(photographs / f"{seed}.png")
    command = [sys.executable, "-m", "agent", "fit", str(photographs), "--output", str(package)]
    subprocess.run(command, check=True, capture_output=True)
    return Package(package, "segmentation")


def make_video(path: Path, codec: str, width: int, height: int, frames: int = 300) -> int:
    """A scene that moves; how many frames it has."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 30, (width, height))
    scene = picture(width, height)
    for number in range(frames):
        writer.write(np.ascontiguousarray(np.roll(scene, 8 * number, axis=1)[..., ::-1]))
    writer.release()
    return frames


class ModelAlone:
    """The agent when all pixels are ready, each caller with a segment of its own."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._stack = ExitStack()

    def __enter__(self) -> ModelAlone:
        self._calls = [self._stack.enter_context(segment_client(self._order)) for _ in range(self._order.clients)]
        self.turn([], SETTLE_S)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def turn(self, served_by: list[int], seconds: float) -> Turn:
        """As many answers as there are."""
        pids = [*served_by, os.getpid()]
        counts = [0] * len(self._calls)
        begin, processor = time.monotonic(), sum(map(processor_seconds, pids))

        def run(caller: int) -> None:
            while time.monotonic() < begin + seconds:
                self._calls[caller]()
                counts[caller] += 1

        threads = [threading.Thread(target=run, args=(caller,)) for caller in range(len(counts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Turn(sum(counts), time.monotonic() - begin, sum(map(processor_seconds, pids)) - processor)


class CameraClient:
    """The client as a process that stands still between its turns: each begins where the last one has ended."""

    def __init__(self, folder: Path, video: Path, address: str, in_flight: int) -> None:
        self._folder, self._verdicts = folder, folder / "verdicts.jsonl"
        self._settings = {
            "model": COMPONENT,
            "socket": f"unix:{address}",
            "source": {"address": f"video:{video}", "skip_frames": False, "at_end": "repeat"},
            "in_flight": in_flight,
            "json_lines": {"path": str(self._verdicts)},
        }

    def __enter__(self) -> CameraClient:
        settings = self._folder / "line.json"
        settings.write_text(json.dumps(self._settings))
        with (self._folder / "camera.log").open("w") as log:
            self._process = subprocess.Popen([sys.executable, str(CAMERA), "--config", str(settings)], stderr=log)
        while not _lines(self._verdicts) and self._process.poll() is None:
            time.sleep(0.02)
        self._process.send_signal(signal.SIGSTOP)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        self._process.wait()
        said = (self._folder / "camera.log").read_text()
        if " 0 without answer" not in said.rpartition("in all")[2]:
            raise RuntimeError(f"The camera client had frames without an answer; these rates mean nothing:\n{said}")

    def turn(self, served_by: list[int], seconds: float) -> Turn:
        """As many verdicts as there are."""
        pids = [*served_by, self._process.pid]
        self._process.send_signal(signal.SIGCONT)
        time.sleep(SETTLE_S)
        begin, processor, before = time.monotonic(), sum(map(processor_seconds, pids)), _lines(self._verdicts)
        time.sleep(seconds)
        told = _lines(self._verdicts) - before
        turn = Turn(told, time.monotonic() - begin, sum(map(processor_seconds, pids)) - processor)
        self._process.send_signal(signal.SIGSTOP)
        return turn


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def _arguments() -> argparse.Namespace:
    description, _, _ = __doc__.partition("\n")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.camera_client", description=description)
    parser.add_argument("--size", type=_size, default=(1280, 960), metavar="WIDTHxHEIGHT")
    parser.add_argument("--model", choices=["small", "fitted"], default="fitted")
    parser.add_argument("--codec", default="MJPG", help="of the video: MJPG (as cameras send it), mp4v, ...")
    parser.add_argument("--threads", type=int, default=1, help="of the graph; 0: as many as there are cores")
    parser.add_argument("--in-flight", type=int, default=3, help="calls at a time")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each turn")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
