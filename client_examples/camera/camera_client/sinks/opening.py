"""Makes the sinks that the settings ask for; each one's library is imported only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from camera_client.settings import Messages, Settings, WrongSetting
from camera_client.sinks import Sink
from camera_client.sinks.messages import MessageSink, Transport
from camera_client.sinks.outbox import Outbox
from camera_client.sinks.queued import QueuedSink

WRITERS = {
    "json_lines": "camera_client.sinks.json_lines:JsonLinesWriter",
    "overlays": "camera_client.sinks.overlays:OverlayWriter",
    "gate": "camera_client.sinks.gate:GateWriter",
    "capture": "camera_client.sinks.capture:CaptureWriter",
}


def open_sinks(settings: Settings) -> Iterator[Sink]:
    """One after the other. Raises WrongSetting where a library is not installed."""
    for name, writer in WRITERS.items():
        asked = getattr(settings, name)
        if asked is not None:
            module, _, writer_class = writer.partition(":")
            yield QueuedSink(name, getattr(import_module(module), writer_class)(asked))
    for name, transport in TRANSPORTS.items():
        asked = getattr(settings, name)
        if asked is not None:
            outbox = Outbox(Path(settings.waiting_folder) / f"{name}.sqlite", asked.most_waiting)
            yield MessageSink(name, asked, transport(settings, asked), outbox)


def _mqtt(settings: Settings, asked: Messages) -> Transport:
    try:
        from camera_client.sinks.mqtt import MqttTransport
    except ImportError as error:
        raise WrongSetting(f"mqtt: this needs paho-mqtt (requirements-mqtt.txt): {error}") from None
    return MqttTransport(settings.broker, asked.topic, asked.qos)


def _iot_core(settings: Settings, asked: Messages) -> Transport:
    try:
        from camera_client.greengrass_ipc import Nucleus
        from camera_client.sinks.greengrass import IotCoreTransport
    except ImportError as error:
        raise WrongSetting(f"iot_core: {NEEDS_SDK}: {error}") from None
    return IotCoreTransport(Nucleus(), asked.topic, asked.qos)


def _local_topic(settings: Settings, asked: Messages) -> Transport:
    try:
        from camera_client.greengrass_ipc import Nucleus
        from camera_client.sinks.greengrass import LocalTopicTransport
    except ImportError as error:
        raise WrongSetting(f"local_topic: {NEEDS_SDK}: {error}") from None
    return LocalTopicTransport(Nucleus(), asked.topic)


NEEDS_SDK = "this needs awsiotsdk (requirements-greengrass.txt)"
TRANSPORTS: dict[str, Callable[[Settings, Messages], Transport]] = {
    "iot_core": _iot_core,
    "local_topic": _local_topic,
    "mqtt": _mqtt,
}
