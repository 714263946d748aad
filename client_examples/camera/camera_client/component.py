"""The configuration of the Greengrass component: read, and followed while we run.

It is asked for again and again, and not subscribed to: nucleus lite forgets subscriptions when a component is updated
(https://github.com/aws-greengrass/aws-greengrass-lite/issues/1016), and a nucleus that restarts forgets them all.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from camera_client.complaint import Complaint
from camera_client.greengrass_ipc import Nucleus, NucleusFailed
from camera_client.settings import Settings, WrongSetting

LOOK_EVERY_S = 2.0
NOT_OURS = ("accessControl", "PythonPath")
"""Keys that the nucleus and the install step read."""


class Component:
    """What the nucleus knows of us."""

    def __init__(self) -> None:
        self._nucleus = Nucleus()

    def configuration(self) -> dict[str, Any]:
        """The settings in it. Raises WrongSetting where it cannot be read."""
        try:
            configuration = self._nucleus.configuration()
        except NucleusFailed as problem:
            raise WrongSetting(f"the component's configuration cannot be read: {problem}") from None
        return {key: value for key, value in configuration.items() if key not in NOT_OURS}


@contextmanager
def following(settings: Settings, read: Callable[[], Settings], stop: threading.Event) -> Iterator[threading.Event]:
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
