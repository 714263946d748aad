"""A connection to the Greengrass nucleus that comes back: the SDK's client waits for ever and never reconnects."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # on Python 3.10 not the built-in one
from functools import cache
from typing import Any

from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup, SocketDomain, SocketOptions
from awsiot import eventstreamrpc
from awsiot.greengrasscoreipc.client import GreengrassCoreIPCClient
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

from camera_client.complaint import Complaint

ANSWER_LIMIT_S = 5.0
AGAIN_AFTER_S = 1.0
SOCKET = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"
TOKEN = "SVCUID"
Question = Callable[[GreengrassCoreIPCClientV2], "Future[Any]"]
REFUSALS = (eventstreamrpc.EventStreamOperationError, eventstreamrpc.UnmappedDataError)
"""An operation failed, and the connection is as good as before."""

# It says each failure several times, and we once.
logging.getLogger("awsiot.eventstreamrpc").setLevel(logging.CRITICAL)


class NucleusFailed(Exception):
    """The nucleus is away or refuses. Its text says which and why."""


class Nucleus:
    """Connects when it is asked for something, and again after a connection has ended. Safe to share among threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the SDK may tell of an end from within `close`
        self._connection: eventstreamrpc.Connection | None = None
        self._client: GreengrassCoreIPCClientV2 | None = None

    def ask(self, *questions: Question) -> Iterator[Any]:
        """The answers, in order; all questions are on the way at once. Raises NucleusFailed at the first that fails."""
        client = self._connected()
        try:
            futures = [question(client) for question in questions]
            for future in futures:
                yield future.result(ANSWER_LIMIT_S)
        except REFUSALS as error:
            raise NucleusFailed(f"the nucleus refuses: {_sentence(error)}") from error
        except FutureTimeout as error:
            self.close()
            raise NucleusFailed(f"no answer from the nucleus within {ANSWER_LIMIT_S:g} s") from error
        except Exception as error:  # the SDK has many ways to say that there is no connection
            self.close()
            raise NucleusFailed(f"the nucleus is away: {_sentence(error)}") from error

    def configuration(self) -> dict[str, Any]:
        """The component's whole configuration. Raises NucleusFailed."""
        [answer] = self.ask(lambda client: client.get_configuration_async(key_path=[]))
        return dict(answer.value)

    def close(self) -> None:
        """Hang up; the next question connects anew."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = self._client = None

    def _connected(self) -> GreengrassCoreIPCClientV2:
        with self._lock:
            if self._client is None:
                self._connect()
            return self._client

    def _connect(self) -> None:
        if SOCKET not in os.environ or TOKEN not in os.environ:
            raise NucleusFailed("this is no Greengrass component: the environment names no nucleus")
        options = SocketOptions()
        options.domain = SocketDomain.Local
        connection = eventstreamrpc.Connection(
            host_name=os.environ[SOCKET],
            port=0,
            bootstrap=_bootstrap(),
            socket_options=options,
            connect_message_amender=eventstreamrpc.MessageAmendment.create_static_authtoken_amender(os.environ[TOKEN]),
        )
        handler = eventstreamrpc.LifecycleHandler()
        handler.on_disconnect = lambda reason: self._forget(connection)
        try:
            connection.connect(handler).result(ANSWER_LIMIT_S)
        except Exception as error:
            connection.close()
            raise NucleusFailed(f"the nucleus is away: {_sentence(error)}") from error
        # Callbacks only leave word, so they may run in the SDK's own thread.
        self._connection = connection
        self._client = GreengrassCoreIPCClientV2(GreengrassCoreIPCClient(connection), executor=None)

    def _forget(self, connection: eventstreamrpc.Connection) -> None:
        with self._lock:
            if self._connection is connection:
                self._connection = self._client = None


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


def _sentence(error: Exception) -> str:
    message = getattr(error, "message", None) or (error.args[-1] if error.args else "")
    return f"{type(error).__name__} {str(message)[:300]}".strip()


@cache
def _bootstrap() -> ClientBootstrap:
    """One thread of the SDK's for all connections there will be."""
    loops = EventLoopGroup(num_threads=1)
    return ClientBootstrap(loops, DefaultHostResolver(loops))
