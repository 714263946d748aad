"""Messages to a plain MQTT broker (paho-mqtt)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from camera_client.complaint import Complaint
from camera_client.settings import Broker, Messages, Settings, WrongSetting
from camera_client.sinks.messages import NotSent
from camera_client.sinks.outbox import Message

LOOK_EVERY_S = 0.2


def connect(broker: Broker, on_connect: Callable[[mqtt.Client], object] = lambda client: None) -> mqtt.Client:
    """A client that connects, and connects again, by itself. Raises WrongSetting.

    The session outlives connections (no clean session): paho then sends again what was not acknowledged, once.
    """
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=broker.client_id, clean_session=False)
    complaint = Complaint("broker")

    def connected(client: mqtt.Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            complaint.say(f"{broker.host}:{broker.port} does not let us in: {code}")
        else:
            complaint.is_over()
            on_connect(client)

    def disconnected(_client: mqtt.Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            complaint.say(f"{broker.host}:{broker.port} is gone; tried again until it is back")

    client.on_connect, client.on_disconnect = connected, disconnected
    client.on_connect_fail = lambda _client, _data: complaint.say(f"nobody answers at {broker.host}:{broker.port}")
    client.reconnect_delay_set(1, 5)
    try:
        if broker.user:
            password = Path(broker.password_file).read_text().rstrip("\n") if broker.password_file else None
            client.username_pw_set(broker.user, password)
        if broker.ca_file:
            client.tls_set(broker.ca_file)
    except OSError as error:
        file = error.filename or broker.ca_file  # an SSL error names none
        raise WrongSetting(f"broker: {file} cannot be read: {error.strerror}") from None
    client.connect_async(broker.host, broker.port)
    client.loop_start()
    return client


class MqttTransport:
    """Publishes; at QoS 1 the broker's acknowledgement is waited for, also across its restarts."""

    def __init__(self, settings: Settings, asked: Messages) -> None:
        self._topic, self._qos = asked.topic, asked.qos
        self._client = connect(settings.broker)
        self._acknowledged: set[int] = set()
        self._changed = threading.Condition()
        self._client.on_publish = self._acknowledge

    def send(self, messages: list[Message], stop: threading.Event) -> int:
        # Not before the broker has let us in: paho would send what it is given meanwhile, and then once more.
        if not self._client.is_connected():
            raise NotSent("the broker is away")
        handed_over = [self._client.publish(self._topic, message.payload, self._qos) for message in messages]
        if self._qos == 0:
            handed_over = list(takewhile(lambda one: one.rc == mqtt.MQTT_ERR_SUCCESS, handed_over))
        return self._acknowledged_of([one.mid for one in handed_over], stop)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _acknowledged_of(self, numbers: list[int], stop: threading.Event) -> int:
        count = 0
        with self._changed:
            for number in numbers:
                while number not in self._acknowledged:
                    if stop.is_set() or self._has_lost_them():
                        return count
                    self._changed.wait(LOOK_EVERY_S)
                self._acknowledged.remove(number)
                count += 1
        return count

    def _has_lost_them(self) -> bool:
        """Whether nothing more will be heard of messages that were handed over.

        At QoS 1 paho keeps them until they are acknowledged, and sends them again under their old packet ids: to give
        up and hand them over once more would double them. Other messages wait in the outbox meanwhile.
        """
        return self._qos == 0 and not self._client.is_connected()

    def _acknowledge(self, _client: mqtt.Client, _data: Any, number: int, _code: Any, _properties: Any) -> None:
        with self._changed:
            self._acknowledged.add(number)
            self._changed.notify_all()
