"""The thread that sees to it that the model runs: at the beginning, and after every answer that did not come."""

from __future__ import annotations

import contextlib
import logging
import threading

import grpc
from edge_agent_client import EdgeAgentClient, Model, ModelCannotStart

from camera_client import refusal
from camera_client.complaint import Complaint
from camera_client.frame_ring import FrameRing

START_LIMIT_S = 180.0
AGAIN_AFTER_S = 2.0


class ModelKeeper:
    """Starts the model where it does not run. The line needs it: one that somebody stopped is started again, too."""

    def __init__(self, agent: EdgeAgentClient, model: str, ring: FrameRing) -> None:
        self._agent, self._model, self._ring = agent, model, ring
        self._needed, self._stopped = threading.Event(), threading.Event()
        self._complaint = Complaint("model")
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Look after the model, from now on."""
        self._needed.set()
        self._thread.start()

    def stop(self) -> None:
        """Leave it as it is."""
        self._stopped.set()
        self._needed.set()

    def look(self) -> None:
        """Somebody had no answer."""
        self._needed.set()

    def _run(self) -> None:
        while self._needed.wait() and not self._stopped.is_set():
            self._needed.clear()
            try:
                self._agent.start(self._model, START_LIMIT_S, on_progress=self._tell)
            except grpc.RpcError as error:
                self._again(refusal.sentence(error, self._agent))
            except ModelCannotStart as problem:
                self._again(str(problem))
            except Exception as error:  # the model has to be looked after whatever happens
                if not self._stopped.is_set():  # else it is how gRPC says that the channel is closed
                    self._again(f"an error nobody foresaw ({error!r})")
            else:
                self._complaint.is_over()
                # Only now is it sure that the agent's socket is there, and tells its group.
                with contextlib.suppress(OSError):
                    self._ring.share_with(self._agent.socket_path.stat().st_gid)
            self._stopped.wait(AGAIN_AFTER_S)

    def _again(self, problem: str) -> None:
        self._complaint.say(problem)
        self._needed.set()

    def _tell(self, model: Model) -> None:
        logging.getLogger("model").info(f"{model.component} {model.status} {model.status_message}".rstrip())
