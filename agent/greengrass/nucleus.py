"""The nucleus of this device: follows the component's configuration and reports its state, for as long as we run.

The SDK's client does not come back after a nucleus's restart; a thread of ours connects again. Nothing here raises into
the agent, and only `wait_for_configuration` waits. Without a nucleus, or without the SDK, the agent is a plain program.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping

from agent.greengrass.connection import Connection, NucleusGone, NucleusRefuses

log = logging.getLogger(__name__)

SOCKET = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"
TOKEN = "SVCUID"  # the variable's name
"""The environment of a Greengrass component: where its nucleus listens, and by what it knows the component."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds between two tries to connect: they double from one to the other."""
STEADY = 10.0
"""Seconds after which a connection counts as good: then the next pause is the first one again."""
LOOKING_STEP = 0.05
"""Seconds between two looks at whether somebody who waits should rather leave."""
CLOSE_LIMIT = 0.3
"""Seconds the end of the agent waits for the thread: it may be waiting for a nucleus that hangs."""

Connect = Callable[[Callable[[], None]], Connection]
"""Connects; raises NucleusGone or NucleusRefuses. Its argument is called when there is something new."""


def pause_after(failures: int) -> float:
    """Seconds before the next try; by chance, so that components do not come back to a nucleus all at once."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 16))
    return random.uniform(longest / 2, longest)


class Nucleus:
    """Keeps a connection up in a thread of its own, from `start` to `stop`."""

    def __init__(
        self,
        connect: Connect,
        on_configuration: Callable[[Mapping[str, object]], None],
        pause: Callable[[int], float] = pause_after,
    ) -> None:
        """`on_configuration` is told the component's whole configuration, again at each change and reconnection.

        `pause`: seconds before the next try after so many failures in a row.
        """
        self._connect, self._on_configuration, self._pause = connect, on_configuration, pause
        self._woken = threading.Condition()
        self._is_running, self._is_stopped = False, False
        self._answered = threading.Event()
        self._complaints: set[str] = set()
        """What the log has said since the last connection: a nucleus that stays away is no flood."""
        self._thread = threading.Thread(target=self._keep, name="greengrass", daemon=True)

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread to be had
            log.warning("the Greengrass configuration is not followed: %s", error)
            self._answered.set()

    def wait_for_configuration(self, limit: float, gives_up: Callable[[], bool]) -> bool:
        """Returns when the first configuration has been told, the nucleus has refused it, or `gives_up()`.

        False where nothing of that came about within `limit` seconds.
        """
        deadline = time.monotonic() + limit
        while not self._answered.wait(LOOKING_STEP) and not gives_up():
            if time.monotonic() >= deadline:
                return False
        return True

    def report_running(self) -> None:
        """Clients can call: tells the nucleus so, once on each connection."""
        with self._woken:
            self._is_running = True
            self._woken.notify_all()

    def stop(self) -> None:
        with self._woken:
            self._is_stopped = True
            self._woken.notify_all()
        if self._thread.is_alive():
            self._thread.join(CLOSE_LIMIT)

    # --- the thread ---

    def _keep(self) -> None:
        failures = 0
        while not self._is_stopped:
            began = time.monotonic()
            try:
                self._converse()
            except NucleusRefuses as refusal:
                self._complain(f"the nucleus refuses this component: {refusal}; trying again")
                self._answered.set()
            except NucleusGone as error:
                self._complain(f"no connection to the nucleus: {error}; trying again")
            except Exception:
                log.exception("talking to the nucleus failed; trying again")
            failures = 0 if time.monotonic() - began >= STEADY else failures + 1
            with self._woken:
                self._woken.wait_for(lambda: self._is_stopped, self._pause(failures))

    def _converse(self) -> None:
        """Serves one connection until it ends.

        Raises:
            NucleusRefuses, NucleusGone: there is none, or it is of no use any more.
        """
        connection = self._connect(self._wake)
        try:
            # In this order: a change in between is told twice, and not never.
            self._ask("the configuration is not followed", connection.subscribe)
            self._read(connection)
            log.info("connected to the nucleus")
            self._complaints.clear()
            is_reported = False
            while self._next_event(connection, is_reported):
                if connection.is_outdated:
                    self._read(connection)
                if self._is_running and not is_reported:
                    is_reported = True
                    self._ask("the component's state is not reported", connection.report_running)
        finally:
            connection.close()

    def _read(self, connection: Connection) -> None:
        self._ask("the configuration is not read", lambda: self._on_configuration(connection.configuration()))
        self._answered.set()

    def _ask(self, otherwise: str, ask: Callable[[], None]) -> None:
        """A refusal of one thing ends nothing else."""
        try:
            ask()
        except NucleusRefuses as refusal:
            log.warning("%s: the nucleus answers %s", otherwise, refusal)

    def _next_event(self, connection: Connection, is_reported: bool) -> bool:
        """Waits for something to do; False when the agent ends. Raises NucleusGone when the connection has ended."""
        with self._woken:
            self._woken.wait_for(
                lambda: (
                    self._is_stopped
                    or connection.has_ended
                    or connection.is_outdated
                    or (self._is_running and not is_reported)
                )
            )
            if connection.has_ended and not self._is_stopped:
                raise NucleusGone("it has ended the connection")
            return not self._is_stopped

    def _wake(self) -> None:
        with self._woken:
            self._woken.notify_all()

    def _complain(self, text: str) -> None:
        log.log(logging.DEBUG if text in self._complaints else logging.WARNING, "%s", text)
        self._complaints.add(text)


def nucleus_of(
    environment: Mapping[str, str], on_configuration: Callable[[Mapping[str, object]], None]
) -> Nucleus | None:
    """The nucleus whose component we are, not started yet; None where we are none's, or cannot talk to it."""
    socket, token = environment.get(SOCKET), environment.get(TOKEN)
    if not socket or not token:
        return None
    try:
        # Only now: on other devices there is no SDK, and here it takes its time.
        from agent.greengrass.ipc import IpcConnection
    except ImportError as error:
        log.warning(
            "this is a Greengrass component, but the SDK cannot be imported (%s): the Greengrass configuration has no "
            "effect; install vision-edge-agent[greengrass]",
            error,
        )
        return None
    return Nucleus(lambda wake: IpcConnection(socket, token, wake), on_configuration)
