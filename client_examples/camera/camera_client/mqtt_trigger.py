"""Triggers that come as messages from a plain MQTT broker."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from camera_client.settings import Broker
from camera_client.sinks.mqtt import connect


def subscribe(broker: Broker, topic: str, on_message: Callable[[], None]) -> None:
    """Call `on_message` for each message on a topic from now on. Raises WrongSetting.

    At QoS 0: a trigger that comes late is worth nothing. As a client of its own, with a name of its own.
    """
    broker = msgspec.structs.replace(broker, client_id=f"{broker.client_id}-trigger")
    client = connect(broker, on_connect=lambda client: client.subscribe(topic, qos=0))
    client.on_message = lambda client, data, message: on_message()
