"""What the element does with a frame: ask the agent, and draw the answer. Knows nothing of GStreamer."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Literal

import grpc
import numpy as np
from edge_agent_client import EdgeAgentClient, ModelCannotStart, Result
from numpy.typing import NDArray

START_AGAIN_AFTER_S = 2.0
"""Between two attempts to start a model that does not start: frames in between do not wait for it."""
OPACITY = 0.4
FRAME_COLOURS = {"pass": (30, 123, 52), "reject": (179, 38, 30), "uncertain": (230, 160, 0)}


@dataclass(frozen=True)
class Inspection:
    """What became of one frame."""

    verdict: Literal["pass", "reject", "uncertain"]
    problem: str  # why there is no answer; empty where there is one
    result: Result | None


class FrameInspector:
    """Asks the agent, frame by frame, and survives its absence: such frames are uncertain."""

    def __init__(self, model: str, socket: str, patience: float) -> None:
        """`patience`: seconds that one frame waits for its answer, for the model to load, for an agent that restarts
        meanwhile. An agent that is away already is asked once.

        Raises OSError where there is no room for a segment in /dev/shm.
        """
        self._model, self._patience = model, patience
        self._agent = EdgeAgentClient(socket, patience)
        self._segment = self._agent.shared_segment()
        self._is_running = False
        self._problem, self._try_again_at = "", 0.0

    def hang_up(self) -> None:
        """From another thread: a call that waits ends now, and no other begins."""
        self._agent.close()

    def close(self) -> None:
        """Give the shared memory back."""
        self._agent.close()
        self._segment.close()

    def inspect(self, pixels: NDArray[np.uint8]) -> Inspection:
        """Ask about a frame, (height, width, 3) RGB; the rows may be padded. Starts the model where it does not run."""
        try:
            if not self._is_running:
                self._start()
            result = self._agent.detect(self._model, self._in_segment(pixels), self._segment, timeout=self._patience)
        except grpc.RpcError as error:
            # A frame that is refused says nothing about the model; after anything else it may have to be started.
            self._is_running = error.code() is grpc.StatusCode.INVALID_ARGUMENT
            return Inspection("uncertain", f"{error.code().name}: {error.details()}", None)
        except OSError as error:
            return Inspection(
                "uncertain", f"There is no room for a frame in /dev/shm (df /dev/shm shows it): {error}", None
            )
        except (ModelCannotStart, ValueError) as error:  # ValueError: how gRPC says that we have hung up
            return Inspection("uncertain", str(error), None)
        return Inspection("reject" if result.is_anomalous else "pass", "", result)

    def _start(self) -> None:
        if time.monotonic() < self._try_again_at:
            raise ModelCannotStart(self._problem)
        try:
            self._agent.start(self._model, self._patience)
        except ModelCannotStart as problem:
            self._problem, self._try_again_at = str(problem), time.monotonic() + START_AGAIN_AFTER_S
            raise
        self._is_running = True
        # Only now is it sure that the agent's socket is there, and tells its group.
        with contextlib.suppress(OSError):
            self._segment.share_with(self._agent.socket_path.stat().st_gid)

    def _in_segment(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame where the agent reads it, rows packed: the only copy."""
        room = self._segment.room(*pixels.shape[:2])
        room[:] = pixels
        return room


def draw(pixels: NDArray[np.uint8], inspection: Inspection) -> None:
    """Tint in place what was found, and put a frame in the verdict's colour around the picture."""
    if inspection.result is not None and inspection.result.mask is not None:
        mask = inspection.result.mask
        found = (mask != 255).any(axis=2)
        pixels[found] = ((1 - OPACITY) * pixels[found] + OPACITY * mask[found]).astype(np.uint8)
    width = max(2, pixels.shape[0] // 100)
    colour = FRAME_COLOURS[inspection.verdict]
    for side in (pixels[:width], pixels[-width:], pixels[:, :width], pixels[:, -width:]):
        side[:] = colour


def view(memory: memoryview, height: int, width: int, offset: int, stride: int) -> NDArray[np.uint8]:
    """The pixels of a frame where they lie, (height, width, 3). `offset`, `stride`: bytes to and between its rows."""
    return np.ndarray((height, width, 3), np.uint8, memory, offset, (stride, 3, 1))
