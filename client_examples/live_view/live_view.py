#!/usr/bin/env python3
"""A page for the person at the line: what the cameras see, what became of it, and how the models are.

    live_view.py --results /var/line/verdicts.jsonl --overlays /var/line/found
    live_view.py --greengrass                 the settings are the Greengrass component's configuration

It reads what the camera client writes and asks the agent for its models. It changes nothing, anywhere.
What it is made of is in dashboard/, a file for each duty; edge_agent_client.py is all that talks to the agent.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import waitress
from dashboard.agent_watch import AgentWatch
from dashboard.following import Following
from dashboard.settings import Settings, WrongSetting, settings_from
from dashboard.web import create_app

AGAIN_AFTER_S = 2.0
PATIENCE_S = 2.0
"""At the end. A Greengrass nucleus kills whatever is still there after five seconds."""


def main() -> int:
    """Exit code 0 when it was asked to stop, 2 for wrong settings (not with --greengrass)."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    logging.getLogger("waitress").setLevel(logging.ERROR)  # it tells of each browser that has gone
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(0))
    arguments = _arguments()
    while True:
        try:
            run(settings_from(_values(arguments)))
            return 0
        except WrongSetting as problem:
            if not arguments.greengrass:
                print(problem, file=sys.stderr)
                return 2
            # Greengrass gives up for good on a component that fails three times; the next deployment may put it right.
            logging.error(f"{problem}; tried again in {AGAIN_AFTER_S:g} s")
            time.sleep(AGAIN_AFTER_S)


def run(settings: Settings) -> None:
    """Serve the page until the process is asked to end. Raises WrongSetting."""
    door = _door(settings)
    following = Following(settings.results_paths, Path(settings.store))
    agent = AgentWatch(settings.socket)
    server = waitress.create_server(create_app(settings, following, agent), sockets=[door], ident=None)
    following.start()
    agent.start()
    logging.info(f"the page: {_address(settings, door)}")
    if settings.is_open_to_others:
        logging.warning(f"host is {settings.host}: everybody on its networks can see the page and its pictures")
    try:
        server.run()
    finally:
        server.close()
        agent.stop(PATIENCE_S)
        following.stop(PATIENCE_S)


def _door(settings: Settings) -> socket.socket:
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise WrongSetting(f"host: {settings.host} is no address of this device: {error.strerror}") from None
    door = socket.socket(family, kind, protocol)
    try:
        # The page is back at once after a restart, although connections of the one before may linger.
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
    except OSError as error:
        door.close()
        raise WrongSetting(f"port: {settings.host}:{settings.port}: {error.strerror}; choose another") from None
    return door


def _address(settings: Settings, door: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{door.getsockname()[1]}/"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A page for the person at the line.")
    parser.add_argument("--greengrass", action="store_true", help="the settings are the component's configuration")
    parser.add_argument("--results", nargs="+", metavar="FILE", help="what camera clients write (json_lines.path)")
    parser.add_argument("--overlays", nargs="+", metavar="DIR", help="their pictures (overlays.folder)")
    parser.add_argument("--socket", metavar="ADDRESS", help="where the agent listens")
    parser.add_argument("--host", metavar="ADDRESS", help="serve other devices, too: 0.0.0.0 (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="N", help="of the page (default: 8420)")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what browsers may call this device besides")
    parser.add_argument("--store", metavar="FILE", help="where results are kept (default: live_view.sqlite)")
    return parser.parse_args()


def _values(arguments: argparse.Namespace) -> dict[str, Any]:
    """What Greengrass says, overridden by flags."""
    flags = {name: value for name, value in vars(arguments).items() if name != "greengrass" and value is not None}
    return (_greengrass_configuration() if arguments.greengrass else {}) | flags


def _greengrass_configuration() -> dict[str, Any]:
    try:
        from dashboard.greengrass_configuration import greengrass_configuration
    except ImportError as error:
        raise WrongSetting(f"--greengrass needs awsiotsdk (requirements-greengrass.txt): {error}") from None
    return greengrass_configuration()


if __name__ == "__main__":
    sys.exit(main())
