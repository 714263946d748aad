"""The threads that ask the agent: several at once, and yet verdicts come in the order of the frames."""

from __future__ import annotations

import logging
import secrets
import threading
import time

import grpc
from edge_agent_client import EdgeAgentClient, Result

from camera_client import refusal
from camera_client.complaint import Complaint
from camera_client.frame_ring import FrameRing, Slot
from camera_client.inspection import Decision, Inspection
from camera_client.model_keeper import ModelKeeper
from camera_client.rates import Rates
from camera_client.rules import Debounce, decide
from camera_client.settings import Settings
from camera_client.sinks import Sinks

PAUSE_S = 0.2
"""After a frame without an answer: the next ones will hardly have one at once."""


class Inspecting:
    """Takes frames from the ring, has them answered, decides, and hands the verdicts to the sinks."""

    def __init__(
        self,
        settings: Settings,
        ring: FrameRing,
        agent: EdgeAgentClient,
        keeper: ModelKeeper,
        sinks: Sinks,
        rates: Rates,
    ) -> None:
        self._settings, self._ring, self._agent, self._keeper = settings, ring, agent, keeper
        self._sinks, self._rates = sinks, rates
        self._debounce = Debounce(settings.rules)
        self._complaint = Complaint("agent")
        self._run_id = f"{settings.name}-{secrets.token_hex(4)}"
        self._stop = threading.Event()
        self._taking = threading.Lock()
        self._turn = threading.Condition()
        self._taken = self._told = 0
        self._threads = [
            threading.Thread(target=self._run, name=f"inspect-{number}", daemon=True)
            for number in range(settings.in_flight)
        ]

    def start(self) -> None:
        """Begin to inspect."""
        for thread in self._threads:
            thread.start()

    def is_done(self, patience: float) -> bool:
        """Wait until the ring has ended and its last frame has its verdict, for at most `patience` seconds."""
        deadline = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self, patience: float) -> None:
        """Finish what is in hand, for at most `patience` seconds; a frame without an answer by then has no verdict."""
        self._stop.set()
        self.is_done(patience)

    def _run(self) -> None:
        while True:
            with self._taking:
                slot = self._ring.take()
                turn = self._taken
                self._taken += 1
            if slot is None:
                return
            result, problem = self._ask(slot)
            if problem and self._stop.is_set():
                return  # without a verdict; those behind it have none either
            with self._turn:
                while self._told != turn:
                    self._turn.wait()
                try:
                    self._tell(slot, result, problem)
                except Exception:  # the line goes on
                    logging.getLogger("agent").exception("an error nobody foresaw: this frame has no verdict")
                finally:
                    self._told += 1
                    self._ring.give_back(slot)
                    self._turn.notify_all()
            if problem:
                self._keeper.look()
                self._stop.wait(PAUSE_S)

    def _ask(self, slot: Slot) -> tuple[Result | None, str]:
        """The answer, or why there is none."""
        assert slot.pixels is not None
        try:
            return self._agent.detect(self._settings.model, slot.pixels, slot.segment), ""
        except grpc.RpcError as error:
            return None, refusal.sentence(error, self._agent)
        except Exception as error:  # whatever it is: the frames behind this one wait for their turn
            if not self._stop.is_set():  # else it is how gRPC says that the channel is closed
                logging.getLogger("agent").exception("an error nobody foresaw")
            return None, f"{error!r}"[: refusal.LONGEST]

    def _tell(self, slot: Slot, result: Result | None, problem: str) -> None:
        if result is None:
            self._complaint.say(problem)
            own = Decision("uncertain", f"no answer: {problem}")
        else:
            self._complaint.is_over()
            own = decide(result, self._settings.rules)
        inspection = self._inspection(slot, result, self._debounce.confirm(own))
        self._rates.count(inspection)
        self._sinks.put(inspection, slot.pixels)

    def _inspection(self, slot: Slot, result: Result | None, decision: Decision) -> Inspection:
        assert slot.pixels is not None
        height, width, _ = slot.pixels.shape
        return Inspection(
            id=f"{self._run_id}-{slot.number}",
            camera=self._settings.name,
            model=self._settings.model,
            captured_on=slot.captured_on,
            captured_at=slot.captured_at,
            file=slot.name,
            width=width,
            height=height,
            decision=decision,
            result=result,
            pixels=None,
        )
