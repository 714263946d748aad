"""Messages through the Greengrass nucleus: to AWS IoT Core, or to a local topic for other components."""

from __future__ import annotations

import threading
from collections.abc import Callable

from awsiot.greengrasscoreipc.model import BinaryMessage, PublishMessage

from camera_client.greengrass_ipc import Nucleus, NucleusFailed, Question
from camera_client.settings import Messages, Settings
from camera_client.sinks.messages import NotSent
from camera_client.sinks.outbox import Message


class IotCoreTransport:
    """The nucleus acknowledges what it has put into its own queue for AWS IoT Core."""

    def __init__(self, settings: Settings, asked: Messages) -> None:
        self._nucleus, self._topic, self._qos = Nucleus(), asked.topic, str(asked.qos)

    def send(self, messages: list[Message], stop: threading.Event) -> int:
        return _ask(self._nucleus, messages, self._publish)

    def close(self) -> None:
        self._nucleus.close()

    def _publish(self, payload: bytes) -> Question:
        return lambda client: client.publish_to_iot_core_async(topic_name=self._topic, qos=self._qos, payload=payload)


class LocalTopicTransport:
    """For other components of this device."""

    def __init__(self, settings: Settings, asked: Messages) -> None:
        self._nucleus, self._topic = Nucleus(), asked.topic

    def send(self, messages: list[Message], stop: threading.Event) -> int:
        return _ask(self._nucleus, messages, self._publish)

    def close(self) -> None:
        self._nucleus.close()

    def _publish(self, payload: bytes) -> Question:
        message = PublishMessage(binary_message=BinaryMessage(message=payload))
        return lambda client: client.publish_to_topic_async(topic=self._topic, publish_message=message)


def _ask(nucleus: Nucleus, messages: list[Message], publish: Callable[[bytes], Question]) -> int:
    """How many were taken, before one that was not."""
    taken = 0
    try:
        for _ in nucleus.ask(*(publish(message.payload) for message in messages)):
            taken += 1
    except NucleusFailed as problem:
        if not taken:
            raise NotSent(str(problem)) from None
    return taken
