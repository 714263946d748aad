"""Models in-process, with workers that do what the test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agent.errors import (
    ModelNotLoaded,
)
from agent.models.admission import Caller
from agent.models.keeper import ModelSettings
from agent.models.lifecycle import ModelStatus
from agent.models.registry import Record
from agent.models.served_model import ServedModel
from tests.support.fake_worker import (
    PATIENCE,
    FakeWorkers,
    Plan,
    eventually,
    happens,
    image_request,
)

STOPPED, STARTING, RUNNING, FAILED, STOPPING = (
    ModelStatus.STOPPED,
    ModelStatus.STARTING,
    ModelStatus.RUNNING,
    ModelStatus.FAILED,
    ModelStatus.STOPPING,
)
SETTINGS = ModelSettings(slots=2, queue_length=4, load_time_limit=PATIENCE, run_time_limit=PATIENCE)
ARN = "arn:aws:lookoutvision:eu-central-1:123456789012:model/tiny/{}"


class Bench:
    """Models of one test; all are closed at its end, and no worker and no thread of theirs is left."""

    def __init__(self, workers: FakeWorkers, packages: Path) -> None:
        self.workers, self.packages = workers, packages
        self.models: list[ServedModel] = []
        self.gates: list[threading.Event] = []
        self.threads = ThreadPoolExecutor(16)
        self.looked_closely: list[bool] = []
        """For each call that reached a worker, whether it was to tell images apart."""
        self.is_short = False
        """Whether the device is to have no memory left, for tests that ask."""

    def record(self, package: str = "1", component: str = "model") -> Record:
        return Record(component, f"{package}.0.0", str(self.packages / package))

    def model(self, package: str = "1", settings: ModelSettings = SETTINGS) -> ServedModel:
        model = ServedModel(self.record(package), self.workers, settings)
        self.models.append(model)
        return model

    def running(self, package: str = "1", settings: ModelSettings = SETTINGS) -> ServedModel:
        model = self.model(package, settings)
        model.start()
        becomes(model, RUNNING)
        return model

    def gate(self) -> threading.Event:
        """A closed gate; it is opened at the end of the test at the latest."""
        self.gates.append(threading.Event())
        return self.gates[-1]

    def close(self) -> None:
        for gate in self.gates:
            gate.set()
        for model in self.models:
            model.close()
        self.threads.shutdown()
        for worker in self.workers.opened:
            assert worker.ended.is_set(), "a worker was left behind"
        eventually("the threads of the models to end", lambda: not keepers())


def threads_of_models(*beginnings: str) -> list[str]:
    """Names of threads that are still there."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(beginnings)]


def keepers() -> list[str]:
    return threads_of_models("keeper-", "close-", "retire-")


def becomes(model: ServedModel, status: ModelStatus) -> None:
    eventually(f"it to be {status.value}", lambda: model.describe().status is status)


def says(model: ServedModel, text: str) -> None:
    eventually(f"it to say '{text}'", lambda: text in model.describe().message)


def wait_in_line(model: ServedModel, count: int) -> None:
    eventually(f"{count} calls to wait", lambda: len(model._admission._queue) == count)


@contextmanager
def model_in(status: ModelStatus, bench: Bench) -> Iterator[ServedModel]:
    """A model that stays in `status` meanwhile."""
    with ExitStack() as after:
        gate = bench.gate()
        after.callback(gate.set)
        if status is STARTING:
            bench.workers.plan = Plan(may_open=gate)
        elif status is FAILED:
            bench.workers.plan = Plan(refuses_to_open=ModelNotLoaded("Runtime", "it is odd"))
        elif status is STOPPING:
            bench.workers.plan = Plan(may_answer=gate)
        model = bench.model()
        if status is not STOPPED:
            model.start()
            becomes(model, RUNNING if status is STOPPING else status)
            happens(bench.workers.number(0).opening)
        if status is STOPPING:
            bench.threads.submit(model.detect, image_request(), Caller())
            bench.workers.number(0).wait_for_calls(1)
            bench.threads.submit(model.stop)
            becomes(model, STOPPING)
        yield model
