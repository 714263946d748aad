"""Wire messages to the agent's own types and back."""

from __future__ import annotations

from typing import Any

from agent.errors import BothMaskHandles, NoImage
from agent.images.bitmap import BitmapLayout
from agent.images.detection import Detection
from agent.images.shared_memory import SegmentRange
from agent.models.lifecycle import ModelStatus
from agent.models.request import DetectRequest
from agent.models.served_model import ModelDescription
from agent.wire import edge_agent_pb2 as wire

STATUS = {status: wire.ModelStatus.Value(status.value) for status in ModelStatus}


def detect_request(request: wire.DetectAnomaliesRequest) -> DetectRequest:
    """The request, its sizes checked.

    Raises:
        NoImage: neither bytes nor a segment.
        ImageSizeOutOfRange, WrongByteCount: width, height and size do not describe an image.
        BothMaskHandles: both numberings of the mask's handle are set.
    """
    bitmap = request.bitmap
    source = bitmap.WhichOneof("data")
    if source is None:
        raise NoImage
    if source == "byte_data":
        content = bitmap.byte_data
        return DetectRequest(BitmapLayout.of(bitmap.width, bitmap.height, len(content)), content, _mask(request))
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


def detect_response(detection: Detection, request: DetectRequest) -> wire.DetectAnomaliesResponse:
    """The detection as the client asked for it: its mask inline, or an echo of where it was written."""
    result = wire.DetectAnomalyResult(
        is_anomalous=detection.is_anomalous,
        confidence=detection.confidence,
        anomaly_score=detection.score,
        anomaly_threshold=detection.threshold,
    )
    for region in detection.regions:
        area = wire.PixelAnomaly(total_percentage_area=region.area, hex_color=region.color)
        result.anomalies.add(name=region.name, pixel_anomaly=area)
    if detection.regions:
        layout, mask = request.layout, result.anomaly_mask
        mask.width, mask.height = layout.width, layout.height
        if detection.mask is not None:
            mask.byte_data = detection.mask.tobytes()
        elif request.mask is not None:
            mask.shared_memory_handle.name = request.mask.name
            mask.shared_memory_handle.offset = request.mask.offset
            mask.shared_memory_handle.size = layout.packed_size
    return wire.DetectAnomaliesResponse(detect_anomaly_result=result)


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
