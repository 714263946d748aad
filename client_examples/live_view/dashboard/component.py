"""The configuration of the Greengrass component: read, and followed while we run.

It is asked for again and again, and not subscribed to: nucleus lite forgets subscriptions when a component is updated
(https://github.com/aws-greengrass/aws-greengrass-lite/issues/1016), and a nucleus that restarts forgets them all.

The same file in the camera client and the live view, which stand alone.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .complaint import Complaint
from .greengrass_ipc import Nucleus, NucleusFailed
from .settings import Settings, WrongSetting

LOOK_EVERY_S = 2.0
NOT_OURS = ("accessControl", "PythonPath")
"""Keys that the nucleus and the install step read."""


def run_component(
    settings_from: Callable[[dict[str, Any]], Settings],
    run: Callable[[Settings, threading.Event], None],
    stop: threading.Event,
) -> None:
    """Run as the component's configuration says, and anew when that has changed; a wrong one is waited out.

    `settings_from`: what a configuration means; raises WrongSetting. `run`: until its event is set; may raise it, too.
    Greengrass gives up for good on a component that fails three times; the next deployment may put it right.
    """
    nucleus, complaint = Nucleus(), Complaint("configuration")

    def configured() -> Settings:
        return settings_from(_configuration(nucleus))

    while not stop.is_set():
        try:
            settings = configured()
            with _following(settings, configured, stop) as end:
                run(settings, end)
            return
        except WrongSetting as problem:
            complaint.say(f"{problem}; tried again every {LOOK_EVERY_S:g} s")
            stop.wait(LOOK_EVERY_S)


def _configuration(nucleus: Nucleus) -> dict[str, Any]:
    try:
        configuration = nucleus.configuration()
    except NucleusFailed as problem:
        raise WrongSetting(f"the component's configuration cannot be read: {problem}") from None
    return {key: value for key, value in configuration.items() if key not in NOT_OURS}


@contextmanager
def _following(settings: Settings, read: Callable[[], Settings], stop: threading.Event) -> Iterator[threading.Event]:
    """An event that is set with `stop`, and when `read` gives other settings; wrong ones are told, and wait.

    When the block has ended because of other settings, the process begins anew, as if just started: nothing is left of
    those before, and the nucleus sees nothing of it.
    """
    end = threading.Event()
    complaint = Complaint("configuration")

    def look() -> None:
        while not stop.wait(LOOK_EVERY_S) and not end.is_set():
            try:
                if read() != settings:
                    break
            except WrongSetting as problem:
                complaint.say(f"{problem}; the last good one stays in force")
            else:
                complaint.is_over()
        end.set()

    threading.Thread(target=look, name="configuration", daemon=True).start()
    try:
        yield end
        if end.is_set() and not stop.is_set():
            logging.getLogger("configuration").info("it has changed; beginning anew")
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    finally:
        end.set()
