"""One connection to the nucleus, by Greengrass IPC. The only file that knows the SDK (awsiotsdk).

The SDK's client waits for ever for answers and says at every failure what we say once: both are put right here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # on Python 3.10 not the built-in one
from functools import cache
from typing import Any

from awscrt.exceptions import AwsCrtError
from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup, SocketDomain, SocketOptions
from awsiot import eventstreamrpc
from awsiot.greengrasscoreipc.client import GreengrassCoreIPCClient
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2
from awsiot.greengrasscoreipc.model import ResourceNotFoundError

from agent.greengrass.connection import NucleusGone, NucleusRefuses

CONNECT_LIMIT = 5.0
ANSWER_LIMIT = 5.0
"""Seconds the nucleus has to answer; a connection without answers is given up."""
REFUSALS = (
    eventstreamrpc.EventStreamOperationError,
    eventstreamrpc.UnmappedDataError,
    eventstreamrpc.DeserializeError,
)
"""An operation failed, and the connection is as good as before."""
CLOSED = "AWS_IO_SOCKET_CLOSED"
NOT_ACCEPTED = "it ended the connection before it accepted it; it restarts, or does not know this component's SVCUID"
"""Nucleus lite says no more."""
WHOLE: list[str] = []
"""The key path of all there is."""

logging.getLogger("awsiot.eventstreamrpc").setLevel(logging.CRITICAL)


class IpcConnection:
    """A connection, from the moment the nucleus has accepted us. `wake` is called from the SDK's thread."""

    def __init__(
        self,
        socket: str,
        token: str,
        wake: Callable[[], None],
        *,
        connect_limit: float = CONNECT_LIMIT,
        answer_limit: float = ANSWER_LIMIT,
    ) -> None:
        """Raises NucleusGone or NucleusRefuses."""
        self._wake, self._answer_limit = wake, answer_limit
        self._subscription: Future[Any] | None = None
        self.has_ended = False
        self.is_outdated = False
        """Whether the configuration has changed since `configuration` was called."""
        options = SocketOptions()
        options.domain = SocketDomain.Local
        self._connection = eventstreamrpc.Connection(
            host_name=socket,
            port=0,
            bootstrap=_bootstrap(),
            socket_options=options,
            connect_message_amender=eventstreamrpc.MessageAmendment.create_static_authtoken_amender(token),
        )
        handler = eventstreamrpc.LifecycleHandler()
        handler.on_disconnect = lambda reason: self._end()
        try:
            self._answer(lambda: self._connection.connect(handler), connect_limit)
        except BaseException as error:
            self.close()
            if isinstance(error.__cause__, AwsCrtError) and error.__cause__.name == CLOSED:
                raise NucleusGone(NOT_ACCEPTED) from error
            raise
        # Callbacks only leave word, so they may run in the SDK's own thread.
        self._client = GreengrassCoreIPCClientV2(GreengrassCoreIPCClient(self._connection), executor=None)

    def configuration(self) -> Mapping[str, object]:
        """The component's whole configuration.

        Raises:
            NucleusRefuses, NucleusGone: it is not given.
        """
        self.is_outdated = False
        try:
            response = self._answer(lambda: self._client.get_configuration_async(key_path=WHOLE), self._answer_limit)
        except NucleusRefuses as refusal:
            if isinstance(refusal.__cause__, ResourceNotFoundError):  # a component without any configuration
                return {}
            raise
        if not isinstance(response.value, dict):
            raise NucleusRefuses("with something that is no object")
        return response.value

    def subscribe(self) -> None:
        """Sets `is_outdated` from now on whenever the configuration changes; raises NucleusRefuses or NucleusGone."""

        def ask() -> Future[Any]:
            self._subscription, _ = self._client.subscribe_to_configuration_update_async(
                key_path=WHOLE,
                on_stream_event=lambda event: self._update(),
                on_stream_error=lambda error: True,  # then the stream is closed
                on_stream_closed=self._unsubscribed,
            )
            return self._subscription

        self._answer(ask, self._answer_limit)

    def report_running(self) -> None:
        """The component's state is RUNNING; raises NucleusRefuses or NucleusGone."""
        self._answer(lambda: self._client.update_state_async(state="RUNNING"), self._answer_limit)

    def close(self) -> None:
        """Waits for nothing."""
        self._connection.close()

    def _answer(self, ask: Callable[[], Future[Any]], limit: float) -> Any:
        try:
            return ask().result(limit)
        except REFUSALS as error:
            raise NucleusRefuses(_sentence(error)) from error
        except FutureTimeout as error:
            raise NucleusGone(f"no answer within {limit:g} s") from error
        except Exception as error:  # the SDK's many ways to say that there is no connection
            raise NucleusGone(_sentence(error)) from error

    def _update(self) -> None:
        self.is_outdated = True
        self._wake()

    def _unsubscribed(self) -> None:
        # Also called where the nucleus has refused to subscribe us; only what was once granted is missed.
        granted = self._subscription
        if granted is not None and granted.done() and granted.exception() is None:
            self._end()

    def _end(self) -> None:
        self.has_ended = True
        self._wake()


def _sentence(error: Exception) -> str:
    """An error of the SDK with its name; where it has several texts, the last one says most."""
    message = getattr(error, "message", None) or (error.args[-1] if error.args else "")
    return f"{type(error).__name__} {str(message)[:300]}".strip()


@cache
def _bootstrap() -> Any:
    """One thread of the SDK's for all connections there will be; `connect` of the SDK would start one for each."""
    loops = EventLoopGroup(num_threads=1)
    return ClientBootstrap(loops, DefaultHostResolver(loops))
