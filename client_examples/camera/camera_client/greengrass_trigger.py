"""Triggers on a local topic: a subscription that comes back with the nucleus."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

from camera_client.complaint import Complaint
from camera_client.greengrass_ipc import Nucleus, NucleusFailed

AGAIN_AFTER_S = 1.0


def keep_subscribed(nucleus: Nucleus, topic: str, on_message: Callable[[], None]) -> None:
    """Call `on_message` for each message on a local topic from now on, also after the nucleus has restarted."""
    complaint = Complaint("trigger")
    ended = threading.Event()

    def subscribe(client: GreengrassCoreIPCClientV2) -> Future[Any]:
        future, _ = client.subscribe_to_topic_async(
            topic=topic,
            on_stream_event=lambda event: on_message(),
            on_stream_error=lambda error: True,  # then the stream is closed
            on_stream_closed=ended.set,
        )
        return future

    def run() -> None:
        while True:
            ended.clear()
            try:
                list(nucleus.ask(subscribe))
            except NucleusFailed as problem:
                complaint.say(f"{problem}; no triggers until then")
            else:
                complaint.is_over()
                ended.wait()
            threading.Event().wait(AGAIN_AFTER_S)

    threading.Thread(target=run, name="trigger", daemon=True).start()
