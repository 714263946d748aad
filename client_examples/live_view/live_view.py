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
import sys
import threading
from pathlib import Path
from typing import Any

import waitress
from dashboard.agent_watch import AgentWatch
from dashboard.door import address_of, open_door
from dashboard.following import Following
from dashboard.settings import Settings, WrongSetting, settings_from
from dashboard.web import create_app

LOOK_EVERY_S = 2.0
PATIENCE_S = 2.0
"""At the end. A Greengrass nucleus kills whatever is still there after five seconds."""


def main() -> int:
    """Exit code 0 when it was asked to stop, 2 for wrong settings (a component waits)."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    logging.getLogger("waitress").setLevel(logging.ERROR)  # it tells of each browser that has gone
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    flags = {name: value for name, value in vars(_arguments()).items() if value is not None}
    is_component = flags.pop("greengrass")
    try:
        if is_component:
            _run_component(flags, stop)
        else:
            run(settings_from(flags), stop)
    except WrongSetting as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


def _run_component(flags: dict[str, Any], stop: threading.Event) -> None:
    try:
        from dashboard.component import run_component
    except ImportError as error:
        raise WrongSetting(f"--greengrass needs awsiotsdk (requirements-greengrass.txt): {error}") from None
    run_component(lambda values: settings_from(values | flags), run, stop)


def run(settings: Settings, stop: threading.Event) -> None:
    """Serve the page until `stop` is set. Raises WrongSetting."""
    door = open_door(settings)
    following = Following(settings.results_paths, Path(settings.store))
    agent = AgentWatch(settings.socket)
    server = waitress.create_server(create_app(settings, following, agent), sockets=[door], ident=None)
    # It has no way to be ended by another thread. It changes nothing, so the end of the process may end it.
    page = threading.Thread(target=server.run, name="page", daemon=True)
    for part in (following, agent, page):
        part.start()
    logging.info(f"the page: {address_of(settings, door)}")
    if settings.is_open_to_others:
        logging.warning(f"host is {settings.host}: everybody on its networks can see the page and its pictures")
    while not stop.wait(LOOK_EVERY_S):
        if not page.is_alive():
            raise RuntimeError("the page ended by itself; what was logged before says why")
    agent.stop(PATIENCE_S)
    following.stop(PATIENCE_S)


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


if __name__ == "__main__":
    sys.exit(main())
