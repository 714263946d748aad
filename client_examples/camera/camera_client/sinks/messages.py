"""Verdicts as messages: kept in an outbox until whoever takes them has said so."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from camera_client.complaint import Complaint
from camera_client.inspection import Inspection
from camera_client.settings import Messages
from camera_client.sinks.outbox import Message, Outbox

AT_ONCE = 20
"""Messages on the way at the same time: a distant broker takes as many more a second."""
LOOK_EVERY_S = 0.5
KEEP_EVERY_S = 0.5
AGAIN_AFTER_S = 1.0


class NotSent(Exception):
    """Nobody took the messages. Its text says why."""


class Transport(Protocol):
    """A way to send; connects by itself."""

    def send(self, messages: list[Message], stop: threading.Event) -> int:
        """Send them in order; return when they are acknowledged or `stop` is set.

        Returns how many are, counted from the first up to one that is not. Raises NotSent.
        """

    def close(self) -> None:
        """Hang up."""


class MessageSink:
    """Sends from a thread of its own. What is acknowledged is forgotten; everything else is sent (again) later.

    A second thread writes to disk what waits: neither a connection nor a disk that hangs keeps the line.
    """

    needs_pixels = False

    def __init__(self, name: str, settings: Messages, transport: Transport, outbox: Outbox) -> None:
        self.name = name
        self._settings, self._transport, self._outbox = settings, transport, outbox
        self._complaint = Complaint(name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        threading.Thread(target=self._keep, name=f"{name} to disk", daemon=True).start()

    def wants(self, inspection: Inspection) -> bool:
        return inspection.decision.verdict in self._settings.verdicts

    def put(self, inspection: Inspection) -> None:
        self._outbox.add(inspection.message())

    def close(self, deadline: float) -> None:
        while len(self._outbox) and not self._complaint.standing and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stop.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._outbox.to_disk()
        self._transport.close()

    def counts(self) -> str:
        return f"{self._outbox.acknowledged} sent, {len(self._outbox)} waiting, {self._outbox.dropped} dropped"

    def _run(self) -> None:
        while not self._stop.is_set():
            messages = self._outbox.first(AT_ONCE, LOOK_EVERY_S)
            if messages:
                try:
                    self._send(messages)
                except Exception:  # whatever it is: this sink tries again, and the line never notices
                    logging.getLogger(self.name).exception("an error nobody foresaw; messages wait")
                    self._stop.wait(AGAIN_AFTER_S)
            elif len(self._outbox):  # the disk they are on cannot be read
                self._stop.wait(AGAIN_AFTER_S)

    def _keep(self) -> None:
        while not self._stop.wait(KEEP_EVERY_S):
            self._outbox.keep()

    def _send(self, messages: list[Message]) -> None:
        try:
            count = self._transport.send(messages, self._stop)
        except NotSent as problem:
            self._complaint.say(f"{problem}; messages wait")
            self._stop.wait(AGAIN_AFTER_S)
            return
        self._complaint.is_over()
        if count:
            self._outbox.sent(messages[:count])
