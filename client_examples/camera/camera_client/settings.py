"""What can be configured: one JSON object, the same in a file and in a Greengrass component's configuration."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from camera_client.wrong_setting import sentence

Fraction = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Verdicts = tuple[Literal["pass", "reject", "uncertain"], ...]
ALL: Verdicts = ("pass", "reject", "uncertain")
NOT_PASSED: Verdicts = ("reject", "uncertain")


class WrongSetting(Exception):
    """A setting is missing, unknown or out of range. Its text names it and says what is allowed."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every part of the settings: cannot be changed, and knows no keys but its own."""


class Source(Part):
    """Where frames come from."""

    address: str
    """camera:/dev/video0, rtsp://..., gstreamer:PIPELINE, video:FILE or folder:FOLDER."""
    reader: Literal["opencv", "gstreamer"] = "opencv"
    """What reads cameras, RTSP and video files."""
    width: Annotated[int, Meta(ge=0)] = 0
    height: Annotated[int, Meta(ge=0)] = 0
    """What a camera is asked for, in pixels; 0: as it is."""
    pixel_format: Annotated[str, Meta(pattern="^([A-Z0-9]{4})?$", description="four capitals or digits")] = ""
    """What a camera is asked for, as V4L2 calls it: MJPG, YUYV, ...; empty: what the reader prefers."""
    frame_rate: NotNegative = 0.0
    """Frames a second: asked of a camera; the pace of a folder or a video. 0: a camera's or video's own; no pace."""
    skip_frames: bool | None = None
    """Whether a newer frame takes the place of one nobody has had time for. Default: yes, but for folders no."""
    at_end: Literal["exit", "repeat", "wait"] = "exit"
    """What happens after a recording's last frame; `wait` looks for new pictures in a folder."""
    silence_s: Positive = 10.0
    """A camera without frames for so long is opened anew."""
    reconnect_s: Positive = 2.0
    """Between two attempts to open a camera."""

    @property
    def kind(self) -> str:
        """camera, rtsp, gstreamer, video or folder."""
        return self.address.partition(":")[0]

    @property
    def place(self) -> str:
        """What the source itself is told: the address, for RTSP with its kind; `camera:0` is /dev/video0."""
        if self.kind == "rtsp":
            return self.address
        place = self.address.partition(":")[2]
        return f"/dev/video{place}" if self.kind == "camera" and place.isdigit() else place

    @property
    def shown(self) -> str:
        """`place` for people: without the user and password that an RTSP address may carry."""
        return re.sub(r"^rtsp://[^/]*@", "rtsp://", self.place)

    @property
    def is_camera(self) -> bool:
        """Whether it never ends: then the end is a fault."""
        return self.kind in ("camera", "rtsp")

    @property
    def skips_frames(self) -> bool:
        """`skip_frames`, or its default."""
        return self.kind != "folder" if self.skip_frames is None else self.skip_frames


class Trigger(Part):
    """Which frames are inspected."""

    kind: Literal["every_frame", "interval", "file", "greengrass", "mqtt"] = "every_frame"
    every_ms: Positive = 1000.0
    """`interval`: at most one frame in this time."""
    path: str = ""
    """`file`: the next frame after this file has appeared; the file is removed."""
    topic: str = ""
    """`greengrass`, `mqtt`: the next frame after a message on this (local) topic."""
    valid_ms: Positive = 1000.0
    """A message that found no frame for so long is forgotten: the part has gone."""


class Crop(Part):
    """The part of the frame that is inspected, in pixels."""

    x: Annotated[int, Meta(ge=0)]
    y: Annotated[int, Meta(ge=0)]
    width: AtLeastOne
    height: AtLeastOne


class Picture(Part):
    """How a frame becomes the picture that the model was trained on: cropped, then rotated."""

    crop: Crop | None = None
    rotate: Literal[0, 90, 180, 270] = 0
    """Degrees, clockwise."""


class Rules(Part):
    """When a part is rejected. The first three are those of `edge-agent evaluate`."""

    confidence: Fraction = 0.0
    """An anomalous answer counts from this confidence on; below, the verdict is uncertain."""
    area_limits: dict[str, Fraction] = {}
    """Anomaly type to the fraction of the picture that it may cover; more is rejected."""
    most_types: Annotated[int, Meta(ge=0)] | None = None
    """How many anomaly types a picture may show; more are rejected."""
    uncertain_band: Fraction = 0.0
    """A score nearer to the threshold than this is uncertain, whatever the model says."""
    reject_after: AtLeastOne = 1
    out_of: AtLeastOne = 1
    """Rejected where this many of the last so many pictures would be; 2 and 3 forgive a single outlier."""


class Messages(Part):
    """Verdicts as messages that wait on disk while nobody takes them."""

    topic: Annotated[str, Meta(pattern="^[^+#]+$", description="a topic without the wildcards + and #")]
    """Where they are published."""
    verdicts: Verdicts = ALL
    qos: Literal[0, 1] = 1
    most_waiting: AtLeastOne = 10_000
    """Messages that wait at most, of up to 7 KB; beyond, the oldest go, and are counted."""


class Broker(Part):
    """Where the plain MQTT broker is."""

    host: str = "localhost"
    port: Annotated[int, Meta(ge=1, le=65535)] = 1883
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    """Certificates to trust, PEM; given, the connection is by TLS."""
    client_id: str = ""
    """Unique on the broker: it throws out the older of two clients with one name. Default: NAME@HOST."""


class JsonLines(Part):
    """Verdicts in a file, one JSON object a line."""

    path: str
    verdicts: Verdicts = ALL
    most_megabytes: Positive = 100.0
    """Beyond half of it the file is put aside as PATH.1, in place of the one before."""


class Overlays(Part):
    """Pictures with what was found drawn over them."""

    folder: str
    verdicts: Verdicts = NOT_PASSED
    most_megabytes: Positive = 500.0
    """Beyond, the oldest go."""


class Gate(Part):
    """A program that is run for a verdict: it moves the reject gate, by GPIO or as it likes."""

    command: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Program and arguments; the environment tells it VERDICT, REASON and ID."""
    verdicts: Verdicts = ("reject",)
    within_ms: Positive = 1000.0
    """A verdict that is later than this after its frame moves nothing: the gate would hit the next part."""
    timeout_ms: Positive = 2000.0


class Capture(Part):
    """Pictures kept for the next model, as a Ground Truth manifest."""

    folder: str
    uncertain_band: Fraction = 0.1
    """Kept is every picture with a score nearer to the threshold than this, or an uncertain verdict,"""
    one_in: Annotated[int, Meta(ge=0)] = 100
    """and one in so many of the others; 0: none of them."""
    most_megabytes: Positive = 2000.0
    """Beyond, the oldest go."""


class Settings(Part):
    """All of it."""

    model: str
    """The model component's name, as `detect.py --list` shows it."""
    source: Source
    name: Annotated[str, Meta(pattern="^[^/]{1,100}$", description="a name without /, of at most 100 characters")] = (
        "camera"
    )
    """Of this camera, in every message and in the names of pictures."""
    socket: str = "unix:///tmp/aws.iot.lookoutvision.EdgeAgent.sock"
    patience_s: NotNegative = 5.0
    """For how long an answer is asked for while the agent restarts; then the verdict is uncertain."""
    in_flight: Annotated[int, Meta(ge=1, le=8)] = 3
    """Pictures the agent has at a time: the model runs on one, the next is prepared, one is ready behind them."""
    report_every_s: Positive = 60.0
    """How often rates are logged."""
    waiting_folder: str = "waiting"
    """Where messages wait that could not be sent."""
    trigger: Trigger = Trigger()
    picture: Picture = Picture()
    rules: Rules = Rules()
    broker: Broker = Broker()
    iot_core: Messages | None = None
    local_topic: Messages | None = None
    mqtt: Messages | None = None
    json_lines: JsonLines | None = None
    overlays: Overlays | None = None
    gate: Gate | None = None
    capture: Capture | None = None


def read_file(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises WrongSetting."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongSetting(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WrongSetting(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise WrongSetting(f"{path} holds no JSON object")
    return values


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Checks everything, so that nobody has to later. Raises WrongSetting.

    Not strict about types: Greengrass hands out numbers as text (nucleus lite) or as floating point (Java).
    """
    try:
        settings = msgspec.convert(_whole(values), Settings, strict=False)
    except msgspec.ValidationError as error:
        raise WrongSetting(sentence(error, Settings)) from None
    if not settings.broker.client_id:
        own = msgspec.structs.replace(settings.broker, client_id=f"{settings.name}@{platform.node()}")
        settings = msgspec.structs.replace(settings, broker=own)
    _check_source(settings)
    _check_trigger(settings)
    if settings.rules.reject_after > settings.rules.out_of:
        raise WrongSetting("rules.reject_after: not more than rules.out_of")
    return settings


def _whole(value: Any) -> Any:
    """Whole numbers as such: 90.0 is none of the angles that `rotate` may have."""
    if isinstance(value, Mapping):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_source(settings: Settings) -> None:
    source = settings.source
    if source.kind not in ("camera", "rtsp", "gstreamer", "video", "folder") or not source.place:
        raise WrongSetting(
            f"source.address: {source.address!r} is none of camera:DEVICE, rtsp://..., gstreamer:PIPELINE, "
            "video:FILE, folder:FOLDER"
        )
    if source.is_camera and not source.skips_frames:
        raise WrongSetting("source.skip_frames: a camera does not wait; false is for recordings")
    if source.kind == "folder" and source.skips_frames and not source.frame_rate:
        raise WrongSetting("source.skip_frames: a folder has a pace to keep only with source.frame_rate")


def _check_trigger(settings: Settings) -> None:
    trigger, source = settings.trigger, settings.source
    if trigger.kind == "file" and not trigger.path:
        raise WrongSetting("trigger.path: name the file that triggers")
    if trigger.kind in ("greengrass", "mqtt") and not trigger.topic:
        raise WrongSetting("trigger.topic: name the topic that triggers")
    if trigger.kind != "every_frame" and not source.skips_frames:
        raise WrongSetting("trigger.kind: only every_frame where source.skip_frames is false")
