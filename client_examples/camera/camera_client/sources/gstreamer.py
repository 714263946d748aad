"""Anything that GStreamer can read: cameras, RTSP streams, video files, and pipelines of one's own."""

from __future__ import annotations

import threading
from collections.abc import Generator

import gi
import numpy as np
from numpy.typing import NDArray

from camera_client.settings import Source
from camera_client.sources import Frame, SourceFailed

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import GLib, Gst, GstApp  # noqa: E402 (versions first; GstApp gives the sink its methods)

LOOK_EVERY_S = 0.25
GSTREAMERS_NAME = {"YUYV": "YUY2", "GREY": "GRAY8", "YU12": "I420"}
"""Of pixel formats that V4L2 calls otherwise."""


class GStreamerSource:
    """Runs a pipeline that ends in packed RGB. GStreamer pads each row to a multiple of 4 bytes."""

    def __init__(self, settings: Source) -> None:
        Gst.init(None)
        self._settings = settings

    def frames(self, stop: threading.Event) -> Generator[Frame, None, None]:
        try:
            pipeline = Gst.parse_launch(self._description())
        except GLib.Error as error:
            raise SourceFailed(f"GStreamer does not take the pipeline: {error.message}") from None
        sink = pipeline.get_by_name("frames")
        pipeline.set_state(Gst.State.PLAYING)
        try:
            while (sample := self._pull(pipeline, sink, stop)) is not None:
                buffer = sample.get_buffer()
                is_mapped, memory = buffer.map(Gst.MapFlags.READ)
                if not is_mapped:
                    raise SourceFailed("a frame's memory cannot be read")
                try:
                    yield Frame(_pixels(sample, memory.data))
                finally:
                    buffer.unmap(memory)
        finally:
            pipeline.set_state(Gst.State.NULL)

    def write_rgb(self, pixels: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
        np.copyto(target, pixels)

    def _description(self) -> str:
        skips = "true" if self._settings.skips_frames else "false"
        keeps_pace = "true" if self._settings.skips_frames and not self._settings.is_camera else "false"
        return (
            f"{self._front()} ! videoconvert ! video/x-raw,format=RGB ! "
            f"appsink name=frames max-buffers=1 drop={skips} sync={keeps_pace}"
        )

    def _front(self) -> str:
        settings, place = self._settings, _quoted(self._settings.place)
        if settings.kind == "gstreamer":
            return settings.place
        if settings.kind == "rtsp":
            # By TCP: lost packets would show as anomalies.
            return f"rtspsrc location={place} protocols=tcp latency=100 ! application/x-rtp,media=video ! decodebin"
        if settings.kind == "video":
            return f"filesrc location={place} ! decodebin"
        return f"v4l2src device={place} ! capsfilter caps={_quoted(_camera_caps(settings))} ! decodebin"

    def _pull(self, pipeline: Gst.Pipeline, sink: GstApp.AppSink, stop: threading.Event) -> Gst.Sample | None:
        """The next frame; None after the last one, or when everything stops."""
        silent = 0.0
        while not stop.is_set():
            # With each frame, for that also throws away all other messages, which would pile up.
            self._raise_what_went_wrong(pipeline)
            sample = sink.try_pull_sample(int(LOOK_EVERY_S * Gst.SECOND))
            if sample is not None:
                return sample
            if sink.is_eos():
                if self._settings.is_camera:
                    raise SourceFailed(f"{self._settings.shown} gives no more frames")
                return None
            silent += LOOK_EVERY_S
            if silent >= self._settings.silence_s:
                raise SourceFailed(f"no frame for {silent:g} s")
        return None

    @staticmethod
    def _raise_what_went_wrong(pipeline: Gst.Pipeline) -> None:
        message = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
        if message is not None:
            error, _ = message.parse_error()
            raise SourceFailed(f"{message.src.get_name()}: {error.message}")


def _pixels(sample: Gst.Sample, memory: bytes | memoryview) -> NDArray[np.uint8]:
    caps = sample.get_caps().get_structure(0)
    width, height = caps.get_value("width"), caps.get_value("height")
    rows = np.frombuffer(memory, np.uint8).reshape(height, -1)
    return rows[:, : 3 * width].reshape(height, width, 3)


def _camera_caps(settings: Source) -> str:
    """What a camera is asked for."""
    asked = "".join(
        f",{key}=(int){value}" for key, value in (("width", settings.width), ("height", settings.height)) if value
    )
    if settings.frame_rate:
        asked += f",framerate=(fraction){round(settings.frame_rate * 1000)}/1000"
    if settings.pixel_format == "MJPG":
        return f"image/jpeg{asked}"
    if settings.pixel_format:
        return f"video/x-raw,format={GSTREAMERS_NAME.get(settings.pixel_format, settings.pixel_format)}{asked}"
    return f"video/x-raw{asked};image/jpeg{asked}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
