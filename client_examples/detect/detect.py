#!/usr/bin/env python3
"""Inspect pictures with the edge agent, from the command line.

    detect.py --list                              which models are there, and what they are doing
    detect.py SolderJoints --describe             one of them
    detect.py SolderJoints board.png              inspect a picture; the model is started where it is not running
    detect.py SolderJoints pictures/ --overlays found/ --json found.jsonl
    detect.py SolderJoints pictures/ --every 5    again and again, whatever happens to the agent meanwhile

What talks to the agent is in edge_agent_client.py, ready to be copied into your own program.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

import grpc
import numpy as np
from edge_agent_client import DEFAULT_SOCKET, EdgeAgentClient, Model, ModelCannotStart, Result
from numpy.typing import NDArray
from overlay import areas, overlay
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def main() -> int:
    """Exit code 0 when everything asked for was answered, 1 otherwise, 2 for a wrong command line."""
    arguments = _arguments()
    # Ended like this, Python still runs the clean-up of `with` blocks: nothing stays in /dev/shm.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    with EdgeAgentClient(arguments.socket) as agent:
        try:
            return _run(agent, arguments)
        except (grpc.RpcError, ModelCannotStart, OSError) as error:
            _print_failure(error, agent)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
    return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Inspect pictures with the edge agent.")
    parser.add_argument("component", nargs="?", metavar="COMPONENT", help="name of the model, as --list shows it")
    parser.add_argument(
        "images", nargs="*", type=Path, metavar="IMAGE_OR_FOLDER", help="pictures, or folders of pictures"
    )
    parser.add_argument("--socket", default=DEFAULT_SOCKET, help="where the agent listens (%(default)s)")
    parser.add_argument("--list", action="store_true", help="show all models and end")
    parser.add_argument("--describe", action="store_true", help="show one model and end")
    parser.add_argument(
        "--shared-memory", action="store_true", help="send pixels and fetch masks through shared memory"
    )
    parser.add_argument(
        "--overlays", type=Path, metavar="DIR", help="write each picture with what was found drawn over it"
    )
    parser.add_argument("--masks", type=Path, metavar="DIR", help="write the masks as PNG files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answers, one JSON object a line")
    parser.add_argument(
        "--start-timeout", type=float, default=180, metavar="S", help="seconds to wait for RUNNING (%(default)g)"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show what answered, and the milliseconds that each step took"
    )
    parser.add_argument("--stop", action="store_true", help="stop the model at the end")
    parser.add_argument(
        "--every",
        type=float,
        metavar="S",
        help="inspect what is there every S seconds, until interrupted; what fails is shown, and tried again",
    )
    arguments = parser.parse_intermixed_args()  # options may stand between the pictures
    if not arguments.list and arguments.component is None:
        parser.error("name a model, or ask for --list")
    if not (arguments.list or arguments.describe or arguments.stop or arguments.images):
        parser.error("name a picture or a folder, or ask for --describe or --stop")
    if arguments.every is not None and (arguments.every < 0.1 or not arguments.images):
        parser.error("--every takes 0.1 seconds or more, and pictures or folders to look for")
    return arguments


def _run(agent: EdgeAgentClient, arguments: argparse.Namespace) -> int:
    if arguments.list:
        _print_models(agent.models())
        return 0
    if arguments.describe:
        _print_models([agent.describe(arguments.component)])
        return 0
    progress = Progress()
    while arguments.every is not None:
        _inspect_whatever_happens(agent, arguments, progress)
    all_answered = _inspect(agent, arguments, progress) if arguments.images else True
    if arguments.stop:
        agent.stop(arguments.component)
        print(f"{arguments.component} STOPPED", file=sys.stderr)
    return 0 if all_answered else 1


def _inspect_whatever_happens(agent: EdgeAgentClient, arguments: argparse.Namespace, progress: Progress) -> None:
    """Once; returns when it is time for the next. An agent or a camera that is away comes back some time."""
    next_time = time.monotonic() + arguments.every
    try:
        _inspect(agent, arguments, progress)
    except (grpc.RpcError, ModelCannotStart, OSError) as error:
        _print_failure(error, agent)
    time.sleep(max(0.0, next_time - time.monotonic()))


def _inspect(agent: EdgeAgentClient, arguments: argparse.Namespace, progress: Progress) -> bool:
    """Start the model where it is not running, and ask about each picture; whether all were answered."""
    pictures = list(_pictures(arguments.images))
    agent.start(arguments.component, arguments.start_timeout, on_progress=progress.show)
    table = Table([path.name for path in pictures])
    with contextlib.ExitStack() as stack:
        segment = stack.enter_context(agent.shared_segment()) if arguments.shared_memory else None
        json_lines = (
            stack.enter_context(arguments.json.open("w" if arguments.every is None else "a"))
            if arguments.json
            else None
        )
        overlay_names, mask_names = FreeNames(arguments.overlays), FreeNames(arguments.masks)
        table.print_head()
        stack.callback(table.print_summary)  # also of what there is when something ends the run
        for path in pictures:
            try:
                pixels = _pixels(path)
                result = agent.detect(arguments.component, pixels, segment)
            except (UnidentifiedImageError, OSError, ValueError) as error:
                table.print_failure(path.name, f"cannot be read as a picture: {error}")
                continue
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                # This picture is refused; the next may be fine.
                table.print_failure(path.name, f"{_code(error)}: {error.details()}")
                continue
            table.print_result(path.name, result)
            if arguments.verbose:
                table.print_details(result)
            overlay_path = overlay_names.take(path)
            if overlay_path:
                overlay(pixels, result).save(overlay_path)
            mask_path = None
            if result.mask is not None:
                mask_path = mask_names.take(path)
                if mask_path:
                    Image.fromarray(result.mask).save(mask_path)
            if json_lines:
                _write_json(json_lines, path, result, overlay_path, mask_path)
    return table.failures == 0


def _pictures(given: list[Path]) -> Iterator[Path]:
    """Files as given, folders by the names in them, numbers counted: 2 before 10."""
    for path in given:
        if not path.is_dir():
            yield path
            continue
        inside = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
        if not inside:
            raise FileNotFoundError(f"{path} holds no pictures ({' '.join(sorted(IMAGE_SUFFIXES))})")
        yield from sorted(inside, key=_counting)


def _counting(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", path.name)]


def _pixels(path: Path) -> NDArray[np.uint8]:
    """The picture's pixels, (height, width, 3) RGB.

    A camera's note that the picture should be shown turned (EXIF orientation) is left alone: models are trained on the
    pixels as they are stored.
    """
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _write_json(lines: TextIO, path: Path, result: Result, overlay_path: Path | None, mask_path: Path | None) -> None:
    record = {
        "image": str(path),
        "is_anomalous": result.is_anomalous,
        "confidence": round(result.confidence, 4),
        "anomaly_score": round(result.anomaly_score, 4),
        "anomaly_threshold": round(result.anomaly_threshold, 4),
        "anomalies": [asdict(anomaly) for anomaly in result.anomalies],
        "milliseconds": round(result.milliseconds, 2),
        "details": result.details,
        "overlay": str(overlay_path) if overlay_path else None,
        "mask": str(mask_path) if mask_path else None,
    }
    lines.write(json.dumps(record) + "\n")
    lines.flush()  # whoever follows the file sees each answer when it comes


class FreeNames:
    """Names for the files of one output folder. Equal names from two folders get a number: nothing is overwritten."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._taken: set[str] = set()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def take(self, picture: Path) -> Path | None:
        """Where to write for this picture; None where nothing is to be written."""
        if self._folder is None:
            return None
        name, number = picture.stem, 1
        while name in self._taken:
            number += 1
            name = f"{picture.stem}-{number}"
        self._taken.add(name)
        return self._folder / f"{name}.png"


@dataclass
class Table:
    """Prints a line per answer as it comes, and a summary."""

    names: list[str]  # of all pictures that will come, for the width of the first column
    failures: int = 0
    anomalous: int = 0
    milliseconds: list[float] = field(default_factory=list)
    begin: float = field(default_factory=time.perf_counter)

    @property
    def _width(self) -> int:
        return max([len("picture"), *map(len, self.names)])

    def print_head(self) -> None:
        """The columns' names."""
        print(
            f"{'picture':{self._width}}  verdict    confidence  score  threshold       ms  types and areas", flush=True
        )

    def print_result(self, name: str, result: Result) -> None:
        """The line of one answer."""
        self.milliseconds.append(result.milliseconds)
        self.anomalous += result.is_anomalous
        verdict = "ANOMALOUS" if result.is_anomalous else "normal"
        comparison = ">=" if result.anomaly_score >= result.anomaly_threshold else "< "
        line = (
            f"{name:{self._width}}  {verdict:9}  {result.confidence:10.3f}  {result.anomaly_score:5.3f} {comparison} "
            f"{result.anomaly_threshold:7.3f} {result.milliseconds:8.1f}  {areas(result)}"
        )
        print(line.rstrip(), flush=True)

    def print_details(self, result: Result) -> None:
        """How the answer came about, below its line."""
        told = dict(result.details)
        steps = [f"{key.removesuffix('-ms')} {told.pop(key)}" for key in list(told) if key.endswith("-ms")]
        by = ", ".join(f"{key.replace('-', ' ')} {value}" for key, value in told.items())
        print(
            f"{'':{self._width}}  {by}; {', '.join(steps)} ms" if told else "  (this agent tells no more)", flush=True
        )

    def print_failure(self, name: str, reason: str) -> None:
        """The line of a picture without an answer."""
        self.failures += 1
        print(f"{name:{self._width}}  no answer  {reason}", flush=True)

    def print_summary(self) -> None:
        """How many, and how fast."""
        answered = len(self.milliseconds)
        parts = [f"{answered} of {len(self.names)} answered", f"{self.anomalous} anomalous"]
        if answered:
            seconds = time.perf_counter() - self.begin
            parts.append(f"median {statistics.median(self.milliseconds):.1f} ms")
            parts.append(f"{answered / seconds:.1f} images/s with reading and writing files")
        print(", ".join(parts), flush=True)


def _print_models(models: list[Model]) -> None:
    if not models:
        print("The agent has no models.")
        return
    width = max(len(model.component) for model in models)
    for model in models:
        print(f"{model.component:{width}}  {model.status:8}  {model.status_message}".rstrip())


class Progress:
    """Tells what the model is doing, each time that changes."""

    def __init__(self) -> None:
        self._last: Model | None = None

    def show(self, model: Model) -> None:
        if model != self._last:
            print(f"{model.component} {model.status}  {model.status_message}".rstrip(), file=sys.stderr)
            self._last = model


def _print_failure(error: Exception, agent: EdgeAgentClient) -> None:
    if isinstance(error, grpc.RpcError):
        print(f"{_code(error)}: {error.details()}", file=sys.stderr)
        print(_what_to_do(error, agent), file=sys.stderr)
    else:
        print(error, file=sys.stderr)


def _code(error: grpc.RpcError) -> str:
    return str(error.code().name)


def _what_to_do(error: grpc.RpcError, agent: EdgeAgentClient) -> str:
    """The next step for whoever reads the error."""
    code = error.code()
    if code is grpc.StatusCode.UNAVAILABLE:
        if agent.socket_path.exists() and not os.access(agent.socket_path, os.R_OK | os.W_OK):
            return f"Your user may not use {agent.socket_path}: join the group that owns it (ls -l shows it)."
        return (
            f"No agent answers at {agent.socket}. Start one with `edge-agent serve`, see the log of one that runs, "
            "or name another address with --socket."
        )
    if code is grpc.StatusCode.NOT_FOUND:
        with contextlib.suppress(grpc.RpcError):
            names = ", ".join(model.component for model in agent.models())
            return (
                f"Models on this device: {names}." if names else "The agent has no models yet: deploy or register one."
            )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return "Send fewer pictures at once, or stop a model that is not needed; --shared-memory keeps messages small."
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return "The model is in another state than this needs; --describe shows it."
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "The agent did not answer in time: --list shows whether it answers at all, its log what it is doing."
    return "The agent's log has the details."


if __name__ == "__main__":
    sys.exit(main())
