"""The nucleus as tests see it: a server in a thread, started and stopped at will."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.support.nucleus.configuration import ConfigurationStore
from tests.support.nucleus.connection import Behaviour, Connection
from tests.support.nucleus.operations import OperationError, Operations

TOKEN = "token-of-the-agent"
PATIENCE = 10.0
"""Seconds its own thread has for what it is asked."""
Answer = TypeVar("Answer")


class Nucleus:
    """A nucleus, `lite` or Java, with one component: the agent. Runs from `with` on, but for `stop` to `start`."""

    def __init__(self, configuration: dict[str, Any] | None = None, *, lite: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nu-"))
        self.socket = self._folder / "ipc.socket"
        self._operations = Operations(ConfigurationStore(configuration or {}), lite=lite)
        self._behaviour = Behaviour(TOKEN, lite)
        self._connections: list[Connection] = []
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.AbstractServer | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="nucleus", daemon=True)

    def __enter__(self) -> Nucleus:
        self._thread.start()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        shutil.rmtree(self._folder)

    @property
    def is_lite(self) -> bool:
        return self._behaviour.lite

    @property
    def environment(self) -> dict[str, str]:
        """What a component finds in its own."""
        return {"SVCUID": TOKEN, "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(self.socket)}

    @property
    def states(self) -> list[str]:
        """As reported, in order."""
        return list(self._operations.states)

    @property
    def published(self) -> list[tuple[str, bytes]]:
        """Topics and payloads of what was sent to AWS IoT Core and to local topics, in order."""
        return list(self._operations.published)

    def publish(self, topic: str, payload: bytes) -> None:
        """As another component does, on a local topic."""
        message = {"binaryMessage": {"message": base64.b64encode(payload).decode()}}
        self._do(lambda: self._operations.answer("PublishToTopic", {"topic": topic, "publishMessage": message}))

    @property
    def calls(self) -> list[str]:
        """Operations, in the order they were asked for."""
        return list(self._operations.calls)

    @property
    def clients(self) -> int:
        """Connections that are accepted and have not ended."""
        return sum(connection.is_connected for connection in list(self._connections))

    @property
    def connections(self) -> int:
        """Those that nobody has ended, accepted or not."""
        return len(self._connections)

    def start(self) -> None:
        async def start() -> None:
            self.socket.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, str(self.socket))

        asyncio.run_coroutine_threadsafe(start(), self._loop).result(PATIENCE)

    def stop(self) -> None:
        """Ends all connections, as a nucleus that restarts does."""

        async def stop() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
            self.socket.unlink(missing_ok=True)
            for connection in self._connections:
                connection.close()
            while self._connections:
                await asyncio.sleep(0.001)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(PATIENCE)

    def change(self, **values: Any) -> None:
        """Merges values into the configuration, as a deployment does; who has subscribed is told."""
        self._do(lambda: self._operations.configuration_changed(self._operations.configuration.merge(values)))

    def reset(self, key: str) -> None:
        """Removes a key from the configuration; who has subscribed is told."""
        self._do(lambda: self._operations.configuration_changed(self._operations.configuration.remove(key)))

    def refuse(self, operation: str, error: str = "UnauthorizedError") -> None:
        self._operations.refusals[operation] = OperationError(error, f"{operation} is not for you")

    def answer(self, operation: str, content: dict[str, Any]) -> None:
        """Answers it with `content`, whatever is asked."""
        self._operations.answers[operation] = content

    def never_answer(self, operation: str) -> None:
        self._behaviour.mute.add(operation)

    def answer_again(self) -> None:
        """As it should be, from now on; a connection is accepted, by the right token."""
        self._operations.refusals.clear()
        self._operations.answers.clear()
        self._behaviour.mute.clear()
        self._behaviour.accepts, self._behaviour.token = True, TOKEN

    def accept_nobody(self) -> None:
        """New connections are taken, and never hear a word."""
        self._behaviour.accepts = False

    def know_nobody(self) -> None:
        """No token is right."""
        self._behaviour.token = os.urandom(8).hex()

    def ping(self) -> None:
        """Sends one to every client."""
        self._do(lambda: [connection.ping() for connection in self._connections])

    def end_streams(self) -> None:
        """Ends every subscription; connections stay."""
        self._do(lambda: [connection.end_streams() for connection in self._connections])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, self._operations, self._behaviour)
        self._connections.append(connection)
        try:
            await connection.serve()
        finally:
            self._connections.remove(connection)

    def _do(self, action: Callable[[], Answer]) -> Answer:
        """In the server's thread, where all else happens."""

        async def act() -> Answer:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(PATIENCE)
