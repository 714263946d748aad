"""Makes the sinks that the settings ask for; each one's library is imported only then."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from camera_client.settings import Settings, WrongSetting
from camera_client.sinks import Sink
from camera_client.sinks.messages import MessageSink
from camera_client.sinks.outbox import Outbox
from camera_client.sinks.queued import QueuedSink

OURS = "requirements.txt"
SDK = "awsiotsdk (requirements-greengrass.txt)"
PAHO = "paho-mqtt (requirements-mqtt.txt)"
WRITERS = {
    "json_lines": ("camera_client.sinks.json_lines", "JsonLinesWriter", OURS),
    "overlays": ("camera_client.sinks.overlays", "OverlayWriter", OURS),
    "gate": ("camera_client.sinks.gate", "GateWriter", OURS),
    "capture": ("camera_client.sinks.capture", "CaptureWriter", OURS),
}
TRANSPORTS = {
    "iot_core": ("camera_client.sinks.greengrass", "IotCoreTransport", SDK),
    "local_topic": ("camera_client.sinks.greengrass", "LocalTopicTransport", SDK),
    "mqtt": ("camera_client.sinks.mqtt", "MqttTransport", PAHO),
}


def open_sinks(settings: Settings) -> Iterator[Sink]:
    """One after the other. Raises WrongSetting where a library is not installed."""
    for name, writer in WRITERS.items():
        asked = getattr(settings, name)
        if asked is not None:
            yield QueuedSink(name, _class(name, *writer)(asked))
    for name, transport in TRANSPORTS.items():
        asked = getattr(settings, name)
        if asked is not None:
            outbox = Outbox(Path(settings.waiting_folder) / f"{name}.sqlite", asked.most_waiting)
            yield MessageSink(name, asked, _class(name, *transport)(settings, asked), outbox)


def _class(sink: str, module: str, name: str, library: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise WrongSetting(f"{sink}: this needs {library}: {error}") from None
