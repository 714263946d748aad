"""Row G7: what a worker gets of the agent: its own link and memory, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.wire import edge_agent_pb2 as wire
from tests.faults.row import Run, row
from tests.support.agent_process import AgentProcess, detect, segment, segment_request, status, wait_for
from tests.support.packages import HEIGHT, WIDTH, grey, make_package

BUSY, RESTARTED = "busy", "restarted"
SECRETS = {
    "SVCUID": "the nucleus's own token",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": "credentials",
    "AWS_SECRET_ACCESS_KEY": "a key",
}
STANDARD = ("0", "1", "2")
"""Input, output and error."""


@row(
    "G7",
    "descriptors and secrets do not reach workers, also where they start while others are busy",
    unit="workers",
    full=100,
    short=2,
    uses_shared_agent=False,
)
def inheritance(run: Run) -> None:
    with AgentProcess(environment=SECRETS) as agent:
        for component in (BUSY, RESTARTED):
            agent.run_model(component, make_package(run.folder / component, any_size=True))
        stub = agent.stub()
        # Descriptors come and go in the agent while it starts workers.
        with calls_through_a_segment(agent, BUSY):
            for _ in run.steps():
                before = set(agent.worker_pids())
                stub.StopModel(wire.StopModelRequest(model_component=RESTARTED))
                stub.StartModel(wire.StartModelRequest(model_component=RESTARTED))
                wait_for("the model to run again", lambda: status(stub, RESTARTED) == wire.RUNNING)
                (worker,) = set(agent.worker_pids()) - before
                check_environment(worker)
                run.saw(f"{len(private_files(worker))} descriptors of its own")
        first, second = (private_files(worker).keys() for worker in agent.worker_pids())
        assert first.isdisjoint(second), "two workers share a file"


@contextmanager
def calls_through_a_segment(agent: AgentProcess, component: str) -> Iterator[None]:
    stop = threading.Event()
    pixels = grey(0)

    def call(name: str) -> None:
        stub = agent.stub()
        while not stop.is_set():
            detect(stub, segment_request(component, WIDTH, HEIGHT, name, mask_offset=pixels.nbytes))

    with segment(pixels.tobytes(), 2 * pixels.nbytes) as name:
        caller = threading.Thread(target=call, args=[name])
        caller.start()
        try:
            yield
        finally:
            stop.set()
            caller.join()


def check_environment(worker: int) -> None:
    environment = Path(f"/proc/{worker}/environ").read_bytes().decode()
    for name, secret in SECRETS.items():
        assert name not in environment, f"{name} reached a worker"
        assert secret not in environment, f"what is in {name} reached a worker"


def private_files(worker: int) -> dict[tuple[int, int], str]:
    """Device, inode and kind of what it holds beside its standard descriptors: one link, and memory for pixels."""
    files = {}
    for descriptor in Path(f"/proc/{worker}/fd").iterdir():
        if descriptor.name in STANDARD:
            continue
        kind, held = descriptor.readlink().as_posix(), descriptor.stat()
        kind = "link" if kind.startswith("socket:") else kind
        assert kind in ("link", "/memfd:pixels (deleted)"), f"descriptor {descriptor.name} is {kind}"
        files[held.st_dev, held.st_ino] = kind
    assert list(files.values()).count("link") == 1, files
    return files
