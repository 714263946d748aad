"""Inspecting through a running agent, as a camera application does. The one module of the workbench that knows gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from agent.images.bitmap import MAX_BYTES
from agent.images.detection import SCORE_DECIMALS, Detection, Region
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from agent.workbench.errors import AgentRefuses, ImageNotInspected, ModelCannotStart
from agent.workbench.inspection.inspector import InspectedModel
from agent.workbench.inspection.segment import Segment

OPTIONS = [
    # gRPC's own limit of 4 MiB refuses masks beyond about 1180 x 1180 pixels.
    ("grpc.max_receive_message_length", MAX_BYTES + (64 << 10)),
    ("grpc.max_send_message_length", MAX_BYTES + (64 << 10)),
    # On a local socket trying often is free, and an agent that comes back is found at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
]
CONTROL_LIMIT = 10.0
"""Seconds for an answer that needs no model."""
DETECT_LIMIT = 120.0
"""Seconds for one image; the agent ends a run by itself long before."""
PATIENCE = 20.0
"""Seconds for which a call that finds the agent away or busy is made again."""
PAUSE = 0.1
"""Seconds between looks at a model that loads, and between attempts."""
VERSION_KEY = "edge-agent-model-version"
"""Of the metadata that comes with each answer."""
OF_THE_IMAGE = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)
"""Refusals of one image: its size, or what the model made of it."""
MAY_PASS = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
)
"""The agent restarts, others keep it busy, or it is back and the model is not yet."""


class AgentInspector:
    """A model component of an agent. `start` comes first."""

    def __init__(self, stub: EdgeAgentStub, socket: str, component: str, segment: Segment | None) -> None:
        """`socket` is for people; `segment` carries images and masks where it is given, else messages do."""
        self._stub, self._socket, self._component, self._segment = stub, socket, component, segment
        self.model = InspectedModel(component)

    def start(self, tell: Callable[[str], None]) -> None:
        """Returns when the model is RUNNING; starts it where it is not. `tell` hears of every change.

        Raises:
            AgentRefuses: nobody answers, or there is no such component.
            ModelCannotStart: it is FAILED, or was stopped while it loaded.
        """
        status, asked = self._status(), False
        while status.status != wire.RUNNING:
            if status.status in (wire.STOPPED, wire.FAILED):
                if asked:
                    raise ModelCannotStart(self._component, wire.ModelStatus.Name(status.status), status.status_message)
                self._ask_to_start()
                asked = True
            time.sleep(PAUSE)  # loading takes seconds to minutes, and the agent limits it
            before, status = status, self._status()
            if status.status != before.status:
                tell(f"{self._component} is {wire.ModelStatus.Name(status.status)}")
        self.model = replace(self.model, arn=status.lookout_vision_model_arn)

    def inspect(self, pixels: NDArray[np.uint8]) -> Detection:
        """See Inspector. Raises ImageNotInspected and AgentRefuses."""
        answer, call = self._detect(self._request(pixels))
        result = answer.detect_anomaly_result
        threshold = round(result.anomaly_threshold, SCORE_DECIMALS)  # a float32 on the wire, of 4 decimals
        version = dict(call.trailing_metadata() or ()).get(VERSION_KEY, self.model.version)
        self.model = replace(self.model, threshold=threshold, version=str(version))
        return Detection(
            is_anomalous=result.is_anomalous,
            confidence=round(result.confidence, SCORE_DECIMALS),
            score=round(result.anomaly_score, SCORE_DECIMALS),
            threshold=threshold,
            regions=tuple(
                Region(found.name, found.pixel_anomaly.total_percentage_area, found.pixel_anomaly.hex_color)
                for found in result.anomalies
            ),
            mask=self._mask(result.anomaly_mask) if result.HasField("anomaly_mask") else None,
        )

    def _status(self) -> wire.ModelDescription:
        try:
            request = wire.DescribeModelRequest(model_component=self._component)
            return self._stub.DescribeModel(request, timeout=CONTROL_LIMIT).model_description
        except grpc.RpcError as error:
            raise self._refusal(error) from None

    def _ask_to_start(self) -> None:
        try:
            self._stub.StartModel(wire.StartModelRequest(model_component=self._component), timeout=CONTROL_LIMIT)
        except grpc.RpcError as error:
            # Somebody else has started it in between: as good.
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise self._refusal(error) from None

    def _request(self, pixels: NDArray[np.uint8]) -> wire.DetectAnomaliesRequest:
        height, width = pixels.shape[:2]
        request = wire.DetectAnomaliesRequest(model_component=self._component)
        request.bitmap.width, request.bitmap.height = width, height
        if self._segment is None:
            request.bitmap.byte_data = pixels.tobytes()
            return request
        self._segment.put(pixels)
        image, mask = request.bitmap.shared_memory_handle, request.anomaly_mask_params.shared_memory_handle
        image.name = mask.name = self._segment.name
        image.size = mask.size = mask.offset = pixels.nbytes
        return request

    def _detect(self, request: wire.DetectAnomaliesRequest) -> tuple[wire.DetectAnomaliesResponse, grpc.Call]:
        """An image can be inspected twice without harm, so an agent that restarts costs seconds and no image."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                return self._stub.DetectAnomalies.with_call(request, timeout=DETECT_LIMIT)
            except grpc.RpcError as error:
                if error.code() in OF_THE_IMAGE:
                    raise ImageNotInspected(str(error.details())) from None
                if error.code() not in MAY_PASS or time.monotonic() > give_up:
                    raise self._refusal(error) from None
            time.sleep(PAUSE)

    def _mask(self, bitmap: wire.Bitmap) -> NDArray[np.uint8]:
        if self._segment is not None and bitmap.HasField("shared_memory_handle"):
            handle = bitmap.shared_memory_handle
            content = self._segment.read(handle.offset, handle.size)
        else:
            content = bitmap.byte_data
        return np.frombuffer(content, np.uint8).reshape(bitmap.height, bitmap.width, 3)

    def _refusal(self, error: grpc.RpcError) -> AgentRefuses:
        code = error.code()
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            what_to_do = "Is `edge-agent serve` running, and may your user open its socket? Name another with --agent"
        elif code is grpc.StatusCode.NOT_FOUND:
            what_to_do = "`edge-agent models list` shows what is registered"
        else:
            what_to_do = "The agent's log says more"
        return AgentRefuses(self._socket, code.name, str(error.details()), what_to_do)


@contextmanager
def agent_inspector(
    component: str, socket: str, shared_memory: bool, tell: Callable[[str], None]
) -> Iterator[AgentInspector]:
    """The inspector of a component that is RUNNING, for as long as the block lasts.

    `socket`: the agent's address, or the path of its socket. The model is started where it is not running, and then
    stays so: others may have begun to use it. Raises what `AgentInspector.start` does.
    """
    address = socket if socket.startswith("unix:") else f"unix:{Path(socket).absolute()}"
    path = Path(address.removeprefix("unix:").removeprefix("//"))
    group = path.stat().st_gid if path.exists() else None
    segment = Segment(group) if shared_memory else None
    try:
        with grpc.insecure_channel(address, options=OPTIONS) as channel:
            inspector = AgentInspector(EdgeAgentStub(channel), address, component, segment)
            inspector.start(tell)
            yield inspector
    finally:
        if segment is not None:
            segment.close()
