"""The thread that asks the agent for its models."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

import grpc
from edge_agent_client import EdgeAgentClient, Model

from dashboard.complaint import Complaint

LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class AgentView:
    """What is known of the agent."""

    models: tuple[Model, ...] = ()  # by name; as they were when the agent answered last
    problem: str = ""  # why it does not answer; empty while it does
    since: float | None = None  # when it began to answer, or ceased to; seconds since 1970; None: not asked yet

    @property
    def failed(self) -> list[Model]:
        """Models that need somebody to look after them; none while the agent does not answer."""
        return [] if self.problem else [model for model in self.models if model.status == "FAILED"]


class AgentWatch:
    """Only asks: models are started and stopped by those who use them."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._complaint = Complaint("agent")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)
        self.view = AgentView()

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self, patience: float) -> None:
        """End within `patience` seconds."""
        self._stop.set()
        self._thread.join(patience)

    def _run(self) -> None:
        with EdgeAgentClient(self._socket) as agent:
            while not self._stop.is_set():
                try:
                    self._look(agent)
                except Exception as error:  # the page goes on with what is known
                    self._fails(f"{error!r}, which nobody foresaw; asked again, and the log says more", traceback=True)
                self._stop.wait(LOOK_EVERY_S)

    def _look(self, agent: EdgeAgentClient) -> None:
        try:
            models = tuple(sorted(agent.models(), key=lambda model: model.component))
        except grpc.RpcError as error:
            self._fails(self._sentence(error))
        else:
            self._complaint.is_over()
            self._note(AgentView(models))

    def _fails(self, problem: str, traceback: bool = False) -> None:
        self._complaint.say(problem, traceback)
        self._note(replace(self.view, problem=problem))

    def _note(self, now: AgentView) -> None:
        changed = self.view.since is None or bool(self.view.problem) != bool(now.problem)
        self.view = replace(now, since=time.time() if changed else self.view.since)

    def _sentence(self, error: grpc.RpcError) -> str:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return f"nobody is at {self._socket}; is it running, and may this user open its socket?"
        return f"{error.code().name}: {error.details()}"
