"""Messages through the Greengrass nucleus: to AWS IoT Core, or to a local topic for other components."""

from __future__ import annotations

import threading

from awsiot.greengrasscoreipc.model import BinaryMessage, PublishMessage

from camera_client.greengrass_ipc import Nucleus, NucleusFailed, Question
from camera_client.settings import Messages, Settings
from camera_client.sinks.messages import NotSent
from camera_client.sinks.outbox import Message


class _ThroughNucleus:
    def __init__(self, settings: Settings, asked: Messages) -> None:
        self._nucleus, self._asked = Nucleus(), asked

    def send(self, messages: list[Message], stop: threading.Event) -> int:
        taken = 0
        try:
            for _ in self._nucleus.ask(*(self._publish(message.payload) for message in messages)):
                taken += 1
        except NucleusFailed as problem:
            if not taken:
                raise NotSent(str(problem)) from None
        return taken

    def close(self) -> None:
        self._nucleus.close()

    def _publish(self, payload: bytes) -> Question:
        raise NotImplementedError


class IotCoreTransport(_ThroughNucleus):
    """The nucleus acknowledges what it has put into its own queue for AWS IoT Core."""

    def _publish(self, payload: bytes) -> Question:
        topic, qos = self._asked.topic, str(self._asked.qos)
        return lambda client: client.publish_to_iot_core_async(topic_name=topic, qos=qos, payload=payload)


class LocalTopicTransport(_ThroughNucleus):
    """For other components of this device."""

    def _publish(self, payload: bytes) -> Question:
        message = PublishMessage(binary_message=BinaryMessage(message=payload))
        return lambda client: client.publish_to_topic_async(topic=self._asked.topic, publish_message=message)
