#!/usr/bin/env python3
"""Inspect what a camera sees with the edge agent, day and night: frames in, verdicts out.

    camera.py --model Plates --source camera:/dev/video0 --json-lines verdicts.jsonl
    camera.py --config line.json                  everything else is in a file; the README lists it
    camera.py --greengrass                        or in the Greengrass component's configuration

What it is made of is in camera_client/, a file for each duty; edge_agent_client.py is all that talks to the agent.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from camera_client.capturing import Capturing
from camera_client.frame_ring import FrameRing
from camera_client.inspecting import Inspecting
from camera_client.model_keeper import ModelKeeper
from camera_client.rates import Rates
from camera_client.settings import Settings, WrongSetting, read_file, settings_from
from camera_client.sinks import Sinks
from camera_client.sinks.opening import open_sinks
from camera_client.sources import open_source
from camera_client.triggers import OnMessage, Trigger, trigger_for
from edge_agent_client import EdgeAgentClient, remove_abandoned_segments

LOOK_EVERY_S = 0.2
SINKS_MAY_TAKE_S = 2.5
"""At the end. A Greengrass nucleus kills whatever is still there after five seconds."""


def main() -> int:
    """Exit code 0 when it was asked to stop or a recording has ended, 2 for wrong settings (a component waits)."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    arguments = _arguments()
    try:
        if arguments.greengrass:
            _run_component(arguments, stop)
        else:
            run(settings_from(_overridden(read_file(arguments.config) if arguments.config else {}, arguments)), stop)
    except WrongSetting as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


def _run_component(arguments: argparse.Namespace, stop: threading.Event) -> None:
    try:
        from camera_client.component import run_component
    except ImportError as error:
        raise WrongSetting(f"--greengrass needs awsiotsdk (requirements-greengrass.txt): {error}") from None
    run_component(lambda values: settings_from(_overridden(values, arguments)), run, stop)


def run(settings: Settings, stop: threading.Event) -> None:
    """Inspect until `stop` is set or a recording has ended. Raises WrongSetting."""
    source, trigger = open_source(settings), trigger_for(settings.trigger)
    remove_abandoned_segments()
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(EdgeAgentClient(settings.socket, settings.patience_s, starts_again=True))
        segments = [stack.enter_context(agent.shared_segment()) for _ in range(settings.in_flight + 2)]
        ring = FrameRing(segments, settings.source.skips_frames)
        sinks = Sinks(open_sinks(settings))
        stack.callback(sinks.close, 0.0)  # for what follows may fail
        _subscribe(settings, trigger)
        keeper = ModelKeeper(agent, settings.model, ring)
        capturing = Capturing(settings, source, trigger, ring)
        rates = Rates(lambda: (capturing.read, ring.offered, ring.replaced, trigger.missed), sinks.counts)
        inspecting = Inspecting(settings, ring, agent, keeper, sinks, rates)
        for part in (keeper, inspecting, capturing):
            part.start()
        _wait(settings, inspecting, rates, stop)
        capturing.stop(patience=0.5)
        inspecting.stop(patience=1.0)
        keeper.stop()
        sinks.close(SINKS_MAY_TAKE_S)
        rates.summary()


def _wait(settings: Settings, inspecting: Inspecting, rates: Rates, stop: threading.Event) -> None:
    """Until there is nothing more to do; a report now and then."""
    next_report = time.monotonic() + settings.report_every_s
    while not stop.is_set() and not inspecting.is_done(LOOK_EVERY_S):
        if time.monotonic() >= next_report:
            next_report += settings.report_every_s
            rates.report()


def _subscribe(settings: Settings, trigger: Trigger) -> None:
    """Connects a trigger on messages with whoever brings them."""
    if not isinstance(trigger, OnMessage):
        return
    topic, on_message = settings.trigger.topic, trigger.came
    try:
        if settings.trigger.kind == "mqtt":
            from camera_client.mqtt_trigger import subscribe

            subscribe(settings.broker, topic, on_message)
        else:
            from camera_client.greengrass_ipc import Nucleus
            from camera_client.greengrass_trigger import keep_subscribed

            keep_subscribed(Nucleus(), topic, on_message)
    except ImportError as error:
        raise WrongSetting(f"trigger.kind: {settings.trigger.kind} needs a library: {error}") from None


def _arguments() -> argparse.Namespace:
    """`config` and `greengrass`; everything else is named by the path of the setting that it gives."""
    parser = argparse.ArgumentParser(description="Inspect what a camera sees with the edge agent.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, metavar="FILE", help="the settings, a JSON object (README: Settings)")
    where.add_argument("--greengrass", action="store_true", help="they are the Greengrass component's configuration")
    flags = parser.add_argument_group("settings, in place of those in the configuration")
    flags.add_argument("--model", metavar="COMPONENT", help="name of the model component")
    flags.add_argument("--socket", metavar="ADDRESS", help="where the agent listens")
    flags.add_argument(
        "--source",
        dest="source.address",
        metavar="ADDRESS",
        help="camera:/dev/video0, rtsp://..., gstreamer:PIPELINE, video:FILE or folder:FOLDER",
    )
    flags.add_argument(
        "--reader", dest="source.reader", choices=["opencv", "gstreamer"], help="what reads cameras, RTSP and videos"
    )
    flags.add_argument(
        "--json-lines", dest="json_lines.path", metavar="FILE", help="write each verdict as a line of JSON"
    )
    flags.add_argument(
        "--overlays", dest="overlays.folder", metavar="DIR", help="draw what was found on pictures that did not pass"
    )
    flags.add_argument("--capture", dest="capture.folder", metavar="DIR", help="keep pictures for the next model")
    flags.add_argument(
        "--report-every", dest="report_every_s", type=float, metavar="S", help="seconds between two lines about rates"
    )
    return parser.parse_args()


def _overridden(values: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of file or Greengrass, with what the flags say."""
    for path, value in vars(arguments).items():
        if path in ("config", "greengrass") or value is None:
            continue
        *parents, key = path.split(".")
        part = values
        for parent in parents:
            part = part.setdefault(parent, {})
            if not isinstance(part, dict):
                raise WrongSetting(f"{parent}: Expected `object`, got `{part!r}`")
        part[key] = value
    return values


if __name__ == "__main__":
    sys.exit(main())
