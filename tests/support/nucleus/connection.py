"""One component's connection: it says who it is, asks on streams, and is answered.

The two nuclei differ (source: their public repositories, aws-greengrass-nucleus and aws-greengrass-lite): lite ends the
connection without a word where the Java nucleus refuses, leaves a stream open after its one answer, takes no pings,
puts an error's sentence under another key, and has room for 10,000 bytes a message, in and out.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.nucleus.framing import (
    MOST_BYTES,
    BadFrame,
    Message,
    MessageFlags,
    MessageType,
    encode,
    read_message,
)
from tests.support.nucleus.operations import OperationError, Operations, Subscription

NAMESPACE = "aws.greengrass#"
MOST_BYTES_LITE = 10_000
ENDS_STREAM = MessageFlags.TERMINATE_STREAM


@dataclass
class Behaviour:
    """How the server treats its clients."""

    token: str
    lite: bool
    accepts: bool = True
    """Else it takes a connection and never says a word."""
    mute: set[str] = field(default_factory=set)
    """Operations that are never answered."""

    @property
    def most_bytes(self) -> int:
        """Of a message."""
        return MOST_BYTES_LITE if self.lite else MOST_BYTES

    @property
    def last_answer(self) -> MessageFlags:
        """Flags of the one answer of an operation without events."""
        return MessageFlags.NONE if self.lite else ENDS_STREAM


class _Dismissed(Exception):
    """The nucleus ends the connection without a word."""


class Connection:
    """From a client's first byte to its last."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        operations: Operations,
        behaviour: Behaviour,
    ) -> None:
        self._reader, self._writer, self._operations, self._behaviour = reader, writer, operations, behaviour
        self.is_connected = False
        self._subscriptions: dict[int, Subscription] = {}
        """By stream."""

    async def serve(self) -> None:
        try:
            while True:
                message = await read_message(self._reader, self._behaviour.most_bytes)
                self._take(message)
                await self._writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, BadFrame, _Dismissed):
            pass
        finally:
            self.is_connected = False
            for stream in list(self._subscriptions):
                self._unsubscribe(stream)
            self.close()

    def close(self) -> None:
        with suppress(RuntimeError):  # the loop has ended already
            self._writer.close()

    def ping(self) -> None:
        self._send(Message(MessageType.PING))

    def end_streams(self) -> None:
        for stream in list(self._subscriptions):
            self._unsubscribe(stream)
            self._send(Message(MessageType.APPLICATION_MESSAGE, stream, ENDS_STREAM))

    def _take(self, message: Message) -> None:
        if message.kind is MessageType.PING and self._behaviour.lite:
            raise _Dismissed
        if message.kind is MessageType.PING:
            self._send(Message(MessageType.PING_RESPONSE, payload=message.payload))
        elif message.kind is MessageType.CONNECT and self._behaviour.accepts:
            self._connect(message)
        elif message.kind is MessageType.APPLICATION_MESSAGE and self.is_connected:
            if message.flags & ENDS_STREAM:
                self._unsubscribe(message.stream)
            else:
                self._answer(message)

    def _connect(self, message: Message) -> None:
        """Lets the client in or not; one that the Java nucleus refuses leaves by itself."""
        named = json.loads(message.payload) if message.payload else {}
        self.is_connected = (
            named.get("authToken") == self._behaviour.token and message.headers.get(":version") == "0.1.0"
        )
        if not self.is_connected and self._behaviour.lite:
            raise _Dismissed
        flags = MessageFlags.CONNECTION_ACCEPTED if self.is_connected else MessageFlags.NONE
        self._send(Message(MessageType.CONNECT_ACK, flags=flags))

    def _answer(self, message: Message) -> None:
        operation = str(message.headers["operation"]).removeprefix(NAMESPACE)
        assert message.headers["service-model-type"] == f"{NAMESPACE}{operation}Request", message.headers
        if operation in self._behaviour.mute:
            return
        request, stream = json.loads(message.payload), message.stream
        try:
            response = self._operations.answer(operation, request)
            if len(json.dumps(response)) > self._behaviour.most_bytes:
                raise OperationError("ServiceError", "the answer is too long")
        except OperationError as error:
            content = {"_message" if self._behaviour.lite else "message": error.message}
            self._send_shape(stream, error.name, content, MessageType.APPLICATION_ERROR, ENDS_STREAM)
            return
        if operation.startswith("SubscribeTo"):
            self._send_shape(stream, f"{operation}Response", response)
            self._subscriptions[stream] = self._operations.subscribe(
                operation, request, lambda shape, event: self._send_shape(stream, shape, event)
            )
        else:
            self._send_shape(stream, f"{operation}Response", response, flags=self._behaviour.last_answer)

    def _unsubscribe(self, stream: int) -> None:
        if (subscription := self._subscriptions.pop(stream, None)) is not None:
            self._operations.unsubscribe(subscription)

    def _send_shape(
        self,
        stream: int,
        shape: str,
        content: dict[str, Any],
        kind: MessageType = MessageType.APPLICATION_MESSAGE,
        flags: MessageFlags = MessageFlags.NONE,
    ) -> None:
        headers: dict[str, Any] = {":content-type": "application/json", "service-model-type": NAMESPACE + shape}
        self._send(Message(kind, stream, flags, headers, json.dumps(content).encode()))

    def _send(self, message: Message) -> None:
        self._writer.write(encode(message))
