"""What the rows on packages share: a model whose package they spoil, a canary that notices readers, sentences."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from agent.backends.base import BackendSettings
from agent.errors import Refusal
from agent.packages.package import read_package
from agent.pipeline import Pipeline
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.clients import has_loaded, registered, start, stop
from tests.faults.processes_support import Clients
from tests.faults.row import CLASSIFIER, Run
from tests.support.agent_process import AgentProcess, describe
from tests.support.packages import make_package

MAX_SENTENCE = 700
"""Characters: a field, its value and a reason, or what a runtime says, each cut where it is long."""
PAUSE = 0.05
"""Seconds between two calls of the client of the other model."""
TURNS = 6
"""The agent tries one case of so many in a round."""
IN_ACCESS, IN_OPEN = 0x1, 0x20
"""From linux/inotify.h."""


class Suspect:
    """A model of an agent, registered once; its package is what a row makes of `folder`, a good one at first."""

    def __init__(self, run: Run, stub: EdgeAgentStub, component: str, folder: Path) -> None:
        self._run, self._stub, self.component, self.folder = run, stub, component, folder

    def start(self) -> tuple[int, str]:
        """RUNNING or FAILED, with the package as it lies there now, and what is said of it. Stopped again."""
        start(self._stub, self.component)
        came_to = has_loaded(self._stub, self.component)
        said = describe(self._stub, self.component).status_message
        check_sentence(said, self.folder)
        self._run.saw(wire.ModelStatus.Name(came_to))
        if came_to == wire.RUNNING:
            stop(self._stub, self.component)
        return came_to, said

    def is_refused(self) -> str:
        """Why; it must be."""
        came_to, said = self.start()
        assert came_to == wire.FAILED, said
        return said

    def serves(self) -> None:
        came_to, said = self.start()
        assert came_to == wire.RUNNING, said

    def leads_to(self, expected: str, *, through_agent: bool) -> None:
        """To a refusal that holds `expected`, or to a model that serves where that is empty.

        The package is opened here, as a worker does, and by the agent where it has the turn.
        """
        refused_with = [_refusal_of(self.folder)]
        if through_agent:
            came_to, said = self.start()
            refused_with.append("" if came_to == wire.RUNNING else said)
        for said in refused_with:
            assert expected in said if expected else not said, said


def has_turn(number: int, cases: int) -> bool:
    """Whether the agent tries a case in this round: a worker takes half a second. All have their turn."""
    turn, case = divmod(number, cases)
    return (turn + case) % TURNS == 0


def _refusal_of(folder: Path) -> str:
    """Why the package there cannot be served; empty where it can."""
    try:
        Pipeline(read_package(folder), BackendSettings()).self_test()
    except Refusal as refusal:
        check_refusal(refusal, folder)
        return str(refusal)
    return ""


@contextlib.contextmanager
def suspect(run: Run, agent: AgentProcess | None = None) -> Iterator[Suspect]:
    """A suspect in the shared agent, or in `agent`; a client of the model CLASSIFIER beside it is answered throughout.

    It serves in the end: so it is the package, and nothing else, that is refused meanwhile.
    """
    agent = agent or run.agent
    # A name of its own for each row: an agent starts again what was once wanted.
    component, folder = f"suspect-{run.folder.name}", run.folder / "suspect"
    good = make_package(run.folder / "good", task="classification")
    put(good, folder)
    with registered(agent, {component: folder}) as stub, Clients(run, agent, CLASSIFIER, 1, pause=PAUSE) as others:
        model = Suspect(run, stub, component, folder)
        yield model
        put(good, folder)
        model.serves()
        others.wait_for_answers()


def put(package: Path, folder: Path) -> None:
    """Makes `folder`, which goes on being the same folder, a copy of a package."""
    folder.mkdir(exist_ok=True)
    empty(folder)
    for file in package.rglob("*"):
        if file.is_file():
            (folder / file.relative_to(package)).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.relative_to(package)).write_bytes(file.read_bytes())


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            empty(path)
            path.rmdir()
        else:
            path.unlink()


def check_sentence(said: str, *folders: Path) -> None:
    """One line of bounded length that people can read, and no path of this device in it."""
    assert said.isprintable(), repr(said)
    assert 0 < len(said) <= MAX_SENTENCE, f"{len(said)} characters: {said[:200]}"
    for secret in (*map(str, folders), "Traceback"):
        assert secret not in said, said


def check_refusal(refusal: Refusal, *folders: Path) -> None:
    check_sentence(str(refusal), *folders)


class Canary:
    """Files that nobody may open or read; it notices whoever does. Source: inotify(7)."""

    def __init__(self, *files: Path) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._events = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._events >= 0, os.strerror(ctypes.get_errno())
        for file in files:
            watch = library.inotify_add_watch(self._events, os.fsencode(file), IN_ACCESS | IN_OPEN)
            assert watch >= 0, os.strerror(ctypes.get_errno())
        files[0].read_bytes()
        assert self.was_touched(), "it notices nothing"

    def was_touched(self) -> bool:
        """Since it was last asked."""
        try:
            return len(os.read(self._events, 1 << 16)) > 0
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._events)
