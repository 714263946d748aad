"""A real agent as a process, in a folder of its own with a short path (unix socket paths end at 107 bytes)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import grpc
import numpy as np
from numpy.typing import NDArray

from agent.models.registry import Record, remove_record, write_record
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub

PATIENCE = 20.0
"""Seconds a test waits for what must happen."""
# The sample client's: an agent that comes back is found at once.
RECONNECT = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
]
LARGE_REPLIES = [("grpc.max_receive_message_length", -1)]


def wait_for(what: str, holds: Callable[[], bool], patience: float = PATIENCE, every: float = 0.01) -> None:
    """Returns as soon as `holds()`, which is asked again `every` so many seconds; fails after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"waited {patience} s in vain for: {what}"
        time.sleep(every)


class AgentProcess:
    """`python -m agent serve` on a socket and a registry of its own; ended, and its folder removed, on leaving."""

    def __init__(self, *flags: str, environment: Mapping[str, str] | None = None, through: Sequence[str] = ()) -> None:
        """`through`: a command that becomes the one after it, such as setpriv or unshare."""
        self.folder = Path(tempfile.mkdtemp(prefix="ea-"))
        self.socket, self.registry, self.log = self.folder / "s", self.folder / "registry", self.folder / "log"
        self._flags, self.through = flags, through
        self._environment = {"TMPDIR": str(self.folder), **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self._channels: list[grpc.Channel] = []

    def __enter__(self) -> AgentProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_channels()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if kind is not None:
            print(self.log_text())
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        self.launch()
        wait_for("the agent's socket", lambda: self.socket.exists() or self.running.poll() is not None)
        assert self.running.poll() is None, self.log_text()

    def launch(self) -> subprocess.Popen[bytes]:
        """Starts the process and waits for nothing."""
        command = [*self.through, sys.executable, "-m", "agent", "serve", "--socket", f"unix://{self.socket}"]
        command += ["--registry", str(self.registry), *self._flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stderr=log, stdout=log, stdin=subprocess.DEVNULL, env=os.environ | self._environment
            )
        return self.process

    @property
    def running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def stop(self) -> int:
        """Asks it to stop; its exit code."""
        self.running.send_signal(signal.SIGTERM)
        return self.running.wait(PATIENCE)

    def kill(self) -> None:
        self.running.kill()
        self.running.wait()

    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def register(self, component: str, package: Path, version: str = "1.0.0") -> None:
        write_record(self.registry, Record(component, version, str(package)))

    def remove(self, component: str) -> None:
        remove_record(self.registry, component)

    def stub(self, options: list[tuple[str, int]] | None = None) -> EdgeAgentStub:
        """A client on a channel of its own, with default options where none are given."""
        channel = grpc.insecure_channel(f"unix:{self.socket}", options=options)
        self._channels.append(channel)
        return EdgeAgentStub(channel)

    def close_channels(self) -> None:
        """Closes what `stub` opened; stubs made before are of no use any more."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()

    def worker_pids(self) -> list[int]:
        """Processes this agent has started."""
        pids = []
        for task in Path(f"/proc/{self.running.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                pids += [int(pid) for pid in (task / "children").read_text().split()]
        return pids

    def run_model(self, component: str, package: Path) -> None:
        """Registers and starts a model; returns when it is RUNNING."""
        self.register(component, package)
        stub = self.stub()
        wait_for(f"{component} to be listed", lambda: component in names(stub))
        stub.StartModel(wire.StartModelRequest(model_component=component))
        wait_for(f"{component} to run", lambda: status(stub, component) != wire.STARTING)
        described = describe(stub, component)
        assert described.status == wire.RUNNING, described.status_message


def names(stub: EdgeAgentStub) -> list[str]:
    return [model.model_component for model in stub.ListModels(wire.ListModelsRequest()).models]


def describe(stub: EdgeAgentStub, component: str) -> wire.ModelDescription:
    return stub.DescribeModel(wire.DescribeModelRequest(model_component=component)).model_description


def status(stub: EdgeAgentStub, component: str) -> int:
    return describe(stub, component).status


def processor_time(pid: int) -> float:
    """Seconds of processor time the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def freeze(pid: int) -> None:
    """Stops a process; the signal alone reaches its threads a little later, and one may answer a call meanwhile."""
    os.kill(pid, signal.SIGSTOP)

    def states() -> Iterator[str]:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it ended before the signal reached it
                yield (thread / "stat").read_text().rpartition(")")[2].split()[0]

    wait_for("all its threads to stop", lambda: set(states()) == {"T"})


def gone(pid: int) -> bool:
    """Ended; a process nobody has reaped yet counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def inline_request(component: str, pixels: NDArray[np.uint8]) -> wire.DetectAnomaliesRequest:
    height, width = pixels.shape[:2]
    bitmap = wire.Bitmap(width=width, height=height, byte_data=pixels.tobytes())
    return wire.DetectAnomaliesRequest(model_component=component, bitmap=bitmap)


def segment_request(
    component: str, width: int, height: int, name: str, *, offset: int = 0, mask_offset: int | None = None
) -> wire.DetectAnomaliesRequest:
    size = width * height * 3
    handle = wire.SharedMemoryHandle(name=name, size=size, offset=offset)
    request = wire.DetectAnomaliesRequest(model_component=component)
    request.bitmap.CopyFrom(wire.Bitmap(width=width, height=height, shared_memory_handle=handle))
    if mask_offset is not None:
        mask = wire.SharedMemoryHandle(name=name, size=size, offset=mask_offset)
        request.anomaly_mask_params.shared_memory_handle.CopyFrom(mask)
    return request


def detect(stub: EdgeAgentStub, request: wire.DetectAnomaliesRequest) -> wire.DetectAnomalyResult:
    return stub.DetectAnomalies(request, timeout=PATIENCE).detect_anomaly_result


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Code and sentence of the refusal that `call` must get."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError(f"answered: {answer}")


def answers(call: Callable[[], bool]) -> bool:
    """What `call` says; False where nobody answers."""
    try:
        return call()
    except grpc.RpcError:
        return False


@contextlib.contextmanager
def segment(content: bytes, size: int | None = None) -> Iterator[str]:
    """A client's shared-memory segment (never multiprocessing's: it deletes segments); its name, for shm_open."""
    name = f"/ea-test-{os.getpid()}-{time.monotonic_ns()}"
    path = Path("/dev/shm") / name.removeprefix("/")
    path.write_bytes(content)
    os.truncate(path, size or len(content))
    try:
        yield name
    finally:
        path.unlink(missing_ok=True)
