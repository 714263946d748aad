"""A client of the edge agent: the part to copy into your own program.

    with EdgeAgentClient() as agent:
        agent.start("SolderJoints", timeout=60, on_progress=print)
        result = agent.detect("SolderJoints", pixels)         # pixels: (height, width, 3) uint8, RGB
        print(result.is_anomalous, result.anomaly_score, result.mask)

For large pictures send the pixels through shared memory instead: `with agent.shared_segment() as segment:` and
`agent.detect(component, pixels, segment)`.

Needs grpcio, protobuf, numpy, and the two generated files beside this one.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import edge_agent_pb2 as messages
import grpc
import numpy as np
from edge_agent_pb2_grpc import EdgeAgentStub
from numpy.typing import NDArray

DEFAULT_SOCKET = "unix:///tmp/aws.iot.lookoutvision.EdgeAgent.sock"

SHARED_MEMORY, SEGMENT = Path("/dev/shm"), "edge-agent-client"
"""Where segments are, and what their names begin with."""

LARGEST_MESSAGE = 4096 * 4096 * 3 + 64 * 1024
"""Bytes. The largest picture's mask; gRPC's own limit of 4 MiB refuses masks beyond about 1180 x 1180 pixels."""

CHANNEL_OPTIONS = [
    # After a restart of the agent gRPC's defaults reconnect only after seconds. On a local socket trying often is free.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Also how long one attempt may take: with 100 ms a starved device does not always connect at all.
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
]


DETAILS = "edge-agent-"
"""What the keys of the agent's response metadata begin with."""


class ModelCannotStart(Exception):
    """The model is FAILED, or was not RUNNING in time. Its text says why."""


@dataclass(frozen=True)
class Model:
    """What the agent says of a model."""

    component: str
    status: str  # STOPPED, STARTING, RUNNING, FAILED or STOPPING
    status_message: str


@dataclass(frozen=True)
class AnomalyType:
    """One kind of anomaly that the model found in a picture."""

    name: str
    total_percentage_area: float  # in spite of its name (it is the wire's) a fraction, 0 to 1, of all pixels
    hex_color: str  # of this type in the mask, "#RRGGBB"


@dataclass(frozen=True)
class Result:
    """The answer for one picture."""

    is_anomalous: bool
    confidence: float  # of the verdict, 0 to 1
    anomaly_score: float  # 0 to 1
    anomaly_threshold: float  # anomalous from this score on
    anomalies: list[AnomalyType]  # "background" first; empty for classification models
    mask: NDArray[np.uint8] | None
    """(height, width, 3) RGB, white is background; None for classification models.

    Of a picture in shared memory it lies there, too, and the segment's next picture overwrites it: copy what you keep.
    """
    milliseconds: float  # from the call to the answer
    details: dict[str, str]  # model version, runtime, device, milliseconds of each step; empty with other agents


class SharedSegment:
    """A piece of shared memory that carries pictures to the agent, and masks back behind them.

    It is a plain file in /dev/shm. Do not use `multiprocessing.shared_memory` for this: before Python 3.13 each process
    that opens such a segment deletes it when it ends, whoever made it.

    One segment serves all pictures; it grows when a larger one comes, and its name goes when the block is left.
    """

    def __init__(self, group: int | None = None) -> None:
        """`group`: id of a group that the agent's user is in, where client and agent run as different users."""
        self.name = f"{SEGMENT}-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = SHARED_MEMORY / self.name
        self._memory: mmap.mmap | None = None
        self._room: NDArray[np.uint8] | None = None
        unfinished = self._path.with_name(f".{self.name}")
        self._descriptor = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)  # as long as this process lives: see remove_abandoned_segments
        unfinished.rename(self._path)
        if group is not None:
            self.share_with(group)
        os.fchmod(self._descriptor, 0o660)  # whatever the umask is: the agent reads the picture and writes the mask

    def __enter__(self) -> SharedSegment:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back."""
        self._path.unlink(missing_ok=True)
        self._memory = self._room = None  # unmapped as soon as nobody holds a picture in it any more
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def share_with(self, group: int) -> None:
        """Let a group that the agent's user is in use the segment."""
        # Not a member of that group: then the agent has to be the same user.
        with contextlib.suppress(PermissionError):
            os.chown(self._descriptor, -1, group)

    def room(self, height: int, width: int) -> NDArray[np.uint8]:
        """The place of a picture, (height, width, 3) RGB, to write into: `detect` then copies nothing."""
        if self._room is None or self._room.shape != (height, width, 3):
            size = height * width * 3
            self._room = np.frombuffer(self._at_least(2 * size), np.uint8, count=size).reshape(height, width, 3)
        return self._room

    def put(self, pixels: NDArray[np.uint8]) -> tuple[messages.SharedMemoryHandle, messages.SharedMemoryHandle]:
        """Copy a picture in, if it is not there already (`room`).

        Returns where it lies, and a place of the same size right behind it for its mask.
        """
        room = self.room(*pixels.shape[:2])
        if pixels is not room:
            room[:] = pixels
        size = pixels.nbytes
        return (
            messages.SharedMemoryHandle(name=self.name, size=size, offset=0),
            messages.SharedMemoryHandle(name=self.name, size=size, offset=size),
        )

    def get(self, handle: messages.SharedMemoryHandle) -> memoryview:
        """What lies at the handle, in the segment itself."""
        assert self._memory is not None, "put a picture in first"
        return memoryview(self._memory)[handle.offset : handle.offset + handle.size]

    def _at_least(self, size: int) -> mmap.mmap:
        if self._memory is None or len(self._memory) < size:
            # Not ftruncate alone: where /dev/shm is full it succeeds, and the first write kills the process.
            os.posix_fallocate(self._descriptor, 0, size)
            self._memory = mmap.mmap(self._descriptor, size)
        return self._memory


def remove_abandoned_segments() -> None:
    """Remove the segments of clients that were killed.

    Their process is gone, and nobody holds a lock: in another container a process may be there that we do not see.
    """
    for path in SHARED_MEMORY.glob(f"{SEGMENT}-*"):
        if Path("/proc", path.name.split("-")[3]).exists():
            continue
        with contextlib.suppress(OSError):  # it is another user's, or in use, or gone meanwhile
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


class EdgeAgentClient:
    """The agent on the other side of a unix socket. Every method raises `grpc.RpcError` where the agent refuses."""

    def __init__(self, socket: str = DEFAULT_SOCKET, patience: float = 15.0, starts_again: bool = False) -> None:
        """`patience`: seconds for which a detection is tried again while the agent restarts.

        `starts_again`: whether a detection also starts a model that somebody has stopped, or that never ran.
        """
        self.socket = socket
        self.patience = patience
        self.starts_again = starts_again
        self._channel = grpc.insecure_channel(socket, options=CHANNEL_OPTIONS)
        self._stub = EdgeAgentStub(self._channel)

    def __enter__(self) -> EdgeAgentClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def socket_path(self) -> Path:
        """The socket in the file system."""
        return Path(self.socket.removeprefix("unix:").removeprefix("//"))

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def shared_segment(self) -> SharedSegment:
        """A segment that this agent may open: it gets the group of the agent's socket."""
        try:
            return SharedSegment(group=self.socket_path.stat().st_gid)
        except FileNotFoundError:
            return SharedSegment()

    def models(self) -> list[Model]:
        """All models on this device."""
        response = self._stub.ListModels(messages.ListModelsRequest(), timeout=5)
        return [_model(metadata) for metadata in response.models]

    def describe(self, component: str, wait_for_agent: bool = False) -> Model:
        """One model."""
        request = messages.DescribeModelRequest(model_component=component)
        response = self._stub.DescribeModel(request, timeout=5, wait_for_ready=wait_for_agent)
        return _model(response.model_description)

    def start(self, component: str, timeout: float, on_progress: Callable[[Model], None] = lambda model: None) -> Model:
        """Wait until the model is RUNNING, starting it where it is not. `on_progress` sees every change.

        Raises ModelCannotStart when it becomes FAILED, or is not RUNNING after `timeout` seconds.
        """
        give_up = time.monotonic() + timeout
        model = self.describe(component)
        asked = False
        seen: Model | None = None
        while model.status != "RUNNING":
            if model != seen:
                on_progress(model)
                seen = model
            if model.status == "FAILED" and asked:
                raise ModelCannotStart(f"{component} is FAILED: {model.status_message}")
            if model.status in ("STOPPED", "FAILED") and not asked:
                self._ask_to_start(component)
                asked = True
            if time.monotonic() > give_up:
                raise ModelCannotStart(
                    f"{component} is still {model.status} after {timeout:g} s. {model.status_message}".rstrip()
                )
            # Loading takes seconds to minutes (an engine that is built): ask now and then, not continuously.
            time.sleep(0.1)
            model = self.describe(component, wait_for_agent=True)
        on_progress(model)
        return model

    def _ask_to_start(self, component: str) -> None:
        try:
            self._stub.StartModel(messages.StartModelRequest(model_component=component), timeout=10)
            logging.getLogger("model").info(f"{component} did not run: it is started")
        except grpc.RpcError as error:
            # Somebody else started it in between: as good.
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise

    def stop(self, component: str) -> None:
        """Unload the model; returns when its memory is given back."""
        self._stub.StopModel(messages.StopModelRequest(model_component=component), timeout=60)

    def detect(
        self, component: str, pixels: NDArray[np.uint8], segment: SharedSegment | None = None, timeout: float = 30.0
    ) -> Result:
        """Ask whether a picture shows an anomaly. `pixels`: (height, width, 3), RGB (not BGR, which OpenCV gives)."""
        height, width, _ = pixels.shape
        request = messages.DetectAnomaliesRequest(model_component=component)
        request.bitmap.width, request.bitmap.height = width, height
        if segment is None:
            request.bitmap.byte_data = pixels.tobytes()
        else:
            picture, mask = segment.put(pixels)
            request.bitmap.shared_memory_handle.CopyFrom(picture)
            request.anomaly_mask_params.shared_memory_handle.CopyFrom(mask)
        begin = time.perf_counter()
        answer, details = self._detect_patiently(request, timeout)
        milliseconds = (time.perf_counter() - begin) * 1000
        return _result(answer.detect_anomaly_result, segment, milliseconds, details)

    def _detect_patiently(
        self, request: messages.DetectAnomaliesRequest, timeout: float
    ) -> tuple[messages.DetectAnomaliesResponse, dict[str, str]]:
        """Detections can be asked twice without harm, so an agent that restarts costs seconds and not a picture."""
        give_up = time.monotonic() + self.patience
        interrupted = False
        while True:
            try:
                answer, call = self._stub.DetectAnomalies.with_call(request, timeout=timeout)
                return answer, _details(call)
            except grpc.RpcError as error:
                if time.monotonic() > give_up:
                    raise
                interrupted = interrupted or error.code() is grpc.StatusCode.UNAVAILABLE
                if not self._may_pass(error, request.model_component, interrupted):
                    raise
            time.sleep(0.1)  # the channel reconnects as often as this

    def _may_pass(self, error: grpc.RpcError, component: str, interrupted: bool) -> bool:
        """Whether the same call may succeed soon: the agent is away, or back and its model is not yet RUNNING.

        A model that the restart left STOPPED is started again; one that somebody stopped only where that is asked for.
        """
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return True
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            return False
        try:
            status = self.describe(component).status
            if status == "STOPPED" and (interrupted or self.starts_again):
                self._ask_to_start(component)
                return True
            return status in ("STARTING", "RUNNING") or (status == "STOPPING" and self.starts_again)
        except grpc.RpcError as second:
            return second.code() is grpc.StatusCode.UNAVAILABLE


def _model(description: messages.ModelDescription | messages.ModelMetadata) -> Model:
    status = messages.ModelStatus.Name(description.status)
    return Model(description.model_component, status, description.status_message)


def _details(call: grpc.Call) -> dict[str, str]:
    metadata = call.trailing_metadata() or ()
    return {key.removeprefix(DETAILS): value for key, value in metadata if key.startswith(DETAILS)}


def _result(
    answer: messages.DetectAnomalyResult, segment: SharedSegment | None, milliseconds: float, details: dict[str, str]
) -> Result:
    return Result(
        is_anomalous=answer.is_anomalous,
        confidence=answer.confidence,
        anomaly_score=answer.anomaly_score,
        anomaly_threshold=answer.anomaly_threshold,
        anomalies=[
            AnomalyType(found.name, found.pixel_anomaly.total_percentage_area, found.pixel_anomaly.hex_color)
            for found in answer.anomalies
        ],
        mask=_mask(answer.anomaly_mask, segment) if answer.HasField("anomaly_mask") else None,
        milliseconds=milliseconds,
        details=details,
    )


def _mask(bitmap: messages.Bitmap, segment: SharedSegment | None) -> NDArray[np.uint8]:
    if segment is not None and bitmap.HasField("shared_memory_handle"):
        data = segment.get(bitmap.shared_memory_handle)
    else:
        data = bitmap.byte_data
    return np.frombuffer(data, np.uint8).reshape(bitmap.height, bitmap.width, 3)
