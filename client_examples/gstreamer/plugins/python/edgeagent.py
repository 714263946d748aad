"""`edgeagent`, a GStreamer element that inspects frames with the vision edge agent and passes them on.

    export GST_PLUGIN_PATH=/path/to/client_examples/gstreamer/plugins
    gst-inspect-1.0 edgeagent

GStreamer's loader for Python finds it here because the folder is called `python`, and imports every file in it: what
the element needs lies outside.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstBase", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GObject, Gst, GstBase, GstVideo  # noqa: E402 (versions first)

FOLDER = Path(__file__).resolve().parents[2]
sys.path.append(str(FOLDER))

if TYPE_CHECKING:
    from frame_inspector import FrameInspector, Inspection

DEFAULT_SOCKET = "unix:///tmp/aws.iot.lookoutvision.EdgeAgent.sock"
CAPS = Gst.Caps.from_string("video/x-raw,format=RGB")


class EdgeAgent(GstBase.BaseTransform):
    """Frames in, the same frames out; for each an element message `edge-agent` with the verdict."""

    __gstmetadata__ = (
        "Vision edge agent",
        "Filter/Analyzer/Video",
        "Asks the vision edge agent whether a frame shows an anomaly",
        "Vision edge agent contributors",
    )
    __gsttemplates__ = (
        Gst.PadTemplate.new("sink", Gst.PadDirection.SINK, Gst.PadPresence.ALWAYS, CAPS),
        Gst.PadTemplate.new("src", Gst.PadDirection.SRC, Gst.PadPresence.ALWAYS, CAPS),
    )

    model = GObject.Property(
        type=str, default="", nick="Model", blurb="Name of the model component; started where it does not run"
    )
    socket = GObject.Property(type=str, default=DEFAULT_SOCKET, nick="Socket", blurb="Where the agent listens")
    patience = GObject.Property(
        type=float,
        default=5.0,
        minimum=0.1,
        maximum=3600.0,
        nick="Patience",
        blurb="Seconds that a frame waits for its answer, for the model to load, for an agent that restarts meanwhile",
    )
    draw = GObject.Property(
        type=bool, default=True, nick="Draw", blurb="Tint what was found and frame the picture in the verdict's colour"
    )
    stop_on_error = GObject.Property(
        type=bool,
        default=False,
        nick="Stop on error",
        blurb="End the pipeline with an error where a frame has no answer",
    )

    def __init__(self) -> None:
        super().__init__()
        self._inspector: FrameInspector | None = None
        self._info: GstVideo.VideoInfo | None = None
        self._problem = ""

    def do_start(self) -> bool:
        if not self.model:
            self._fail("No model is set: edgeagent model=NAME")
            return False
        try:
            # Not at the top of the file: an element that cannot be imported would be unknown, without a reason.
            from frame_inspector import FrameInspector

            self._inspector = FrameInspector(self.model, self.socket, self.patience)
        except ImportError as error:
            self._fail(
                f"{error}: install {FOLDER}/requirements.txt where {sys.version.split()[0]}, the Python of GStreamer, "
                "finds it; the README says how"
            )
            return False
        except OSError as error:
            self._fail(f"No segment can be made in /dev/shm: {error}")
            return False
        # Where nothing is drawn, frames are passed on as they are, without a copy even where others hold them too.
        self.set_passthrough(not self.draw)
        return True

    def do_stop(self) -> bool:
        if self._inspector is not None:
            self._inspector.close()
            self._inspector = None
        return True

    def do_change_state(self, transition: Gst.StateChange) -> Gst.StateChangeReturn:
        # Stopping waits for the frame in hand, and that one for the agent.
        if transition == Gst.StateChange.PAUSED_TO_READY and self._inspector is not None:
            self._inspector.hang_up()
        return GstBase.BaseTransform.do_change_state(self, transition)

    def do_set_caps(self, incoming: Gst.Caps, outgoing: Gst.Caps) -> bool:
        self._info = GstVideo.VideoInfo.new_from_caps(incoming)
        return True

    def do_transform_ip(self, buffer: Gst.Buffer) -> Gst.FlowReturn:
        from frame_inspector import draw, view

        assert self._inspector is not None
        access = Gst.MapFlags.READ | Gst.MapFlags.WRITE if self.draw else Gst.MapFlags.READ
        layout = GstVideo.buffer_get_video_meta(buffer) or self._info  # a frame may come with rows of its own length
        with buffer.map(access) as memory:
            pixels = view(memory.data, self._info.height, self._info.width, layout.offset[0], layout.stride[0])
            inspection = self._inspector.inspect(pixels)
            if self.draw:
                draw(pixels, inspection)
        self._tell(inspection, buffer.pts)
        if inspection.problem and self.stop_on_error:
            self._fail(inspection.problem)
            return Gst.FlowReturn.ERROR
        return Gst.FlowReturn.OK

    def _tell(self, inspection: Inspection, pts: int) -> None:
        if inspection.problem != self._problem:  # when it begins, changes and is over, not with every frame
            self._problem = inspection.problem
            if self._problem:
                self._post(Gst.MessageType.WARNING, self._problem)
            else:
                self._post(Gst.MessageType.INFO, "The agent answers again")
        self.post_message(Gst.Message.new_element(self, _structure(self.model, inspection, pts)))

    def _fail(self, text: str) -> None:
        self._post(Gst.MessageType.ERROR, text)

    def _post(self, kind: Gst.MessageType, text: str) -> None:
        code = Gst.ResourceError.FAILED
        self.message_full(kind, Gst.ResourceError.quark(), code, text, None, __file__, self.get_name(), 0)


def _structure(model: str, inspection: Inspection, pts: int) -> Gst.Structure:
    """The message's fields. Their names are those of the camera client's messages."""
    structure = Gst.Structure.new_empty("edge-agent")
    structure.set_value("model", model)
    structure.set_value("pts", GObject.Value(GObject.TYPE_UINT64, pts))
    structure.set_value("verdict", inspection.verdict)
    structure.set_value("reason", inspection.problem)
    result = inspection.result
    if result is not None:
        structure.set_value("is_anomalous", result.is_anomalous)
        structure.set_value("confidence", result.confidence)
        structure.set_value("anomaly_score", result.anomaly_score)
        structure.set_value("anomaly_threshold", result.anomaly_threshold)
        structure.set_value("anomalies", json.dumps([asdict(anomaly) for anomaly in result.anomalies]))
        structure.set_value("milliseconds", result.milliseconds)
    return structure


GObject.type_register(EdgeAgent)
__gstelementfactory__ = ("edgeagent", Gst.Rank.NONE, EdgeAgent)
