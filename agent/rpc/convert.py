"""Wire messages to the agent's own types and back."""

from __future__ import annotations

import re
from typing import Any

from agent.errors import BothMaskHandles, NoImage
from agent.images.bitmap import BitmapLayout
from agent.images.detection import Detection
from agent.images.shared_memory import SegmentRange
from agent.models.lifecycle import ModelStatus
from agent.models.request import DetectRequest
from agent.models.served_model import Inspection, ModelDescription
from agent.rpc.request_parser import ReceivedRequest, length_delimited
from agent.wire import edge_agent_pb2 as wire

METADATA = "edge-agent-"
"""What the keys of our response metadata begin with."""
NEEDS_NO_ESCAPES = re.compile("[!-~]+")
STATUS = {status: wire.ModelStatus.Value(status.value) for status in ModelStatus}


def detect_request(received: ReceivedRequest) -> DetectRequest:
    """The request, its sizes checked.

    Raises:
        NoImage: neither bytes nor a segment.
        ImageSizeOutOfRange, WrongByteCount: width, height and size do not describe an image.
        BothMaskHandles: both numberings of the mask's handle are set.
    """
    request, content = received.message, received.pixels
    bitmap = request.bitmap
    if content is not None:
        return DetectRequest(BitmapLayout.of(bitmap.width, bitmap.height, len(content)), content, _mask(request))
    if not bitmap.HasField("shared_memory_handle"):
        raise NoImage
    segment = _range(bitmap.shared_memory_handle)
    return DetectRequest(BitmapLayout.of(bitmap.width, bitmap.height, segment.size), segment, _mask(request))


def _mask(request: wire.DetectAnomaliesRequest) -> SegmentRange | None:
    params = request.anomaly_mask_params
    new, legacy = params.HasField("shared_memory_handle"), params.HasField("legacy_shared_memory_handle")
    if new and legacy:
        raise BothMaskHandles
    if new or legacy:
        return _range(params.shared_memory_handle if new else params.legacy_shared_memory_handle)
    return None


def _range(handle: wire.SharedMemoryHandle) -> SegmentRange:
    return SegmentRange(handle.name, handle.size, handle.offset)


def detect_response(detection: Detection, request: DetectRequest) -> bytes:
    """The detection as the client asked for it, serialised: its mask inline, or an echo of where it was written."""
    result = wire.DetectAnomalyResult(
        is_anomalous=detection.is_anomalous,
        confidence=detection.confidence,
        anomaly_score=detection.score,
        anomaly_threshold=detection.threshold,
    )
    for region in detection.regions:
        area = wire.PixelAnomaly(total_percentage_area=region.area, hex_color=region.color)
        result.anomalies.add(name=region.name, pixel_anomaly=area)
    if not detection.regions:
        return _response(result.SerializeToString())
    mask = wire.Bitmap(width=request.layout.width, height=request.layout.height)
    if request.mask is not None:
        mask.shared_memory_handle.name = request.mask.name
        mask.shared_memory_handle.offset = request.mask.offset
        mask.shared_memory_handle.size = request.layout.packed_size
    if detection.mask is None:
        result.anomaly_mask.CopyFrom(mask)
        return _response(result.SerializeToString())
    # protobuf would copy the mask twice; a field's place in its message does not matter, so it is written here, last.
    pixels = detection.mask.data.cast("B")
    bitmap = mask.SerializeToString() + length_delimited(wire.Bitmap.BYTE_DATA_FIELD_NUMBER, len(pixels))
    field = length_delimited(wire.DetectAnomalyResult.ANOMALY_MASK_FIELD_NUMBER, len(bitmap) + len(pixels))
    return _response(result.SerializeToString(), field, bitmap, pixels)


def _response(*result: bytes | memoryview) -> bytes:
    """DetectAnomaliesResponse from the pieces of its result."""
    number = wire.DetectAnomaliesResponse.DETECT_ANOMALY_RESULT_FIELD_NUMBER
    return b"".join((length_delimited(number, sum(map(len, result))), *result))


def how_it_came_about(inspection: Inspection) -> tuple[tuple[str, str], ...]:
    """Trailing metadata of an answer: what answered, in place of which device where that one could not, and the
    milliseconds that each step took.

    Header values are printable ASCII only; what is not (a version may be any text) is escaped.
    """
    served_by, times = inspection.served_by, inspection.detection.times
    told = {
        "model-version": served_by.version,
        "runtime": served_by.runs_on.runtime,
        "device": served_by.runs_on.device,
        "waiting-ms": _milliseconds(inspection.waited),
        "preprocessing-ms": _milliseconds(times.preprocessing),
        "inferring-ms": _milliseconds(times.inferring),
        "postprocessing-ms": _milliseconds(times.postprocessing),
    }
    if served_by.runs_on.instead_of:
        told["instead-of"] = served_by.runs_on.instead_of
    if NEEDS_NO_ESCAPES.fullmatch(served_by.arn):  # as ARNs do not; clients take some 8 KB of metadata
        told["model-arn"] = served_by.arn
    return tuple((METADATA + name, ascii(value)[1:-1].strip()) for name, value in told.items())


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"


def description(model: ModelDescription) -> wire.ModelDescription:
    return wire.ModelDescription(**_told(model))


def metadata(model: ModelDescription) -> wire.ModelMetadata:
    return wire.ModelMetadata(**_told(model))


def _told(model: ModelDescription) -> dict[str, Any]:
    """The four fields that both messages have."""
    return {
        "model_component": model.component,
        "lookout_vision_model_arn": model.arn,
        "status": STATUS[model.status],
        "status_message": model.message,
    }
