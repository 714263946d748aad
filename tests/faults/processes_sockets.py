"""Rows D: one agent per socket, whatever lies at its path and whoever comes second."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.processes_support import listener, serves, spread, start_over, unstarted_agent
from tests.faults.row import Run, row
from tests.support.agent_process import PATIENCE, RECONNECT, names, wait_for

TOGETHER = 50
"""Agents started at once."""
NOBODY = 65534
NOT_ALMIGHTY = ("setpriv", "--bounding-set=-fowner,-dac_override")
"""Runs a command as a root to whom the rights of files apply."""
WRONG_SETTING, ANOTHER_AGENT = 2, 4
"""Exit codes of `edge-agent serve`."""


# --- what may lie where the socket is to be ---


def _stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


def _file(path: Path) -> None:
    path.write_text("precious")


def _link_to_file(path: Path) -> None:
    path.with_name("target").write_text("precious")
    path.symlink_to("target")


def _link_as_lock(path: Path) -> None:
    path.with_name("target").write_text("precious")
    path.with_name("s.lock").symlink_to("target")


Obstacle = Callable[[Path], object]
REFUSED: dict[str, tuple[Obstacle, str]] = {
    "file": (_file, "no socket"),
    "folder": (Path.mkdir, "no socket"),
    "FIFO": (os.mkfifo, "no socket"),
    "link": (_link_to_file, "no socket"),
    "link as lock": (_link_as_lock, "lock file"),
}
"""What lies there, and what the agent says of it."""


@row(
    "D7",
    "something at the socket's path: a stale socket is replaced, anything else refused and left alone",
    unit="starts",
    full=1000,
    short=len(REFUSED) + 1,
    uses_shared_agent=False,
)
def obstacles(run: Run) -> None:
    took = []
    for _ in run.steps(each=len(REFUSED) + 1):
        for name, (put, said) in REFUSED.items():
            took.append(_refuses(name, put, said))
            run.saw("refused")
        with unstarted_agent() as agent:
            _stale(agent.socket)
            start_over(agent)
            assert names(agent.stub()) == []
            run.saw("replaced")
        if os.geteuid() == 0 and shutil.which("setpriv"):  # only root can make what belongs to another
            _refuses_sockets_of_others()
            run.saw("of another user: refused")
    run.figures["exit after"] = spread(took)


def _refuses(name: str, put: Obstacle, said: str) -> float:
    """Seconds until the agent left."""
    with unstarted_agent() as agent:
        put(agent.socket)
        before = _contents(agent.folder)
        began = time.monotonic()
        assert agent.launch().wait(PATIENCE) == WRONG_SETTING, name
        took = time.monotonic() - began
        (line,) = agent.log_text().splitlines()
        assert said in line, line
        after = _contents(agent.folder)
        assert {path: after[path] for path in before} == before, name
        assert after.keys() - before.keys() <= {"log", "s.lock"}, name
    return took


def _contents(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Kind, inode and content of all that lies in a folder."""
    found = {}
    for path in folder.iterdir():
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[path.name] = (status.st_mode, status.st_ino, content)
    return found


def _refuses_sockets_of_others() -> None:
    """In a folder like /tmp, where everybody may write and nobody but root may remove what is another's."""
    with unstarted_agent(through=NOT_ALMIGHTY) as agent:
        agent.folder.chmod(0o1777)
        _stale(agent.socket)
        for path in (agent.folder, agent.socket):
            os.chown(path, NOBODY, NOBODY)
        inode = agent.socket.stat().st_ino
        assert agent.launch().wait(PATIENCE) == WRONG_SETTING, agent.log_text()
        assert "who owns what lies there" in agent.log_text()
        assert agent.socket.stat().st_ino == inode


@row(
    "D8",
    "50 agents started at once: one serves, the others leave with their own code, its socket stays",
    unit="rounds",
    full=200,
    short=1,
    uses_shared_agent=False,
)
def many_agents(run: Run) -> None:
    """Each round begins with what the killed winner of the last one left behind."""
    left: list[float] = []
    processor_time = 0.0
    with unstarted_agent() as agent:
        for _ in run.steps():
            before = _processor_time_of_ended()
            racers = [agent.launch() for _ in range(TOGETHER)]
            winner = _only_one_left(racers, left)
            processor_time += _processor_time_of_ended() - before
            assert [racer.returncode for racer in racers if racer is not winner] == [ANOTHER_AGENT] * (TOGETHER - 1)
            agent.process = winner
            wait_for("the winner to serve", lambda: serves(agent))
            inode = agent.socket.stat().st_ino
            # One that comes later leaves too.
            assert agent.launch().wait(PATIENCE) == ANOTHER_AGENT
            assert (listener(agent.socket), agent.socket.stat().st_ino) == (winner.pid, inode)
            agent.process = winner
            assert names(agent.stub(RECONNECT)) == []
            run.saw("one served")
            agent.close_channels()
            agent.kill()
    run.figures["losers leave after"] = spread(left)
    run.figures["processor time of a loser"] = f"{1000 * processor_time / len(left):.0f} ms"
    assert processor_time / len(left) < 1


def _only_one_left(racers: list[subprocess.Popen[bytes]], left: list[float]) -> subprocess.Popen[bytes]:
    """The last one; `left` gets the seconds after which the others ended."""
    began, running = time.monotonic(), set(racers)

    def one_is_left() -> bool:
        ended = {racer for racer in running if racer.poll() is not None}
        left.extend([time.monotonic() - began] * len(ended))
        running.difference_update(ended)
        return len(running) == 1

    wait_for("all but one to leave", one_is_left, patience=3 * PATIENCE)
    (winner,) = running
    return winner


def _processor_time_of_ended() -> float:
    """Seconds that the ended processes we started have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- what may happen to the socket while an agent serves it ---


def _another_socket(path: Path) -> None:
    _stale(path.with_name("other"))
    path.with_name("other").replace(path)


def _moved(path: Path) -> None:
    path.rename(path.with_name("moved"))


def _a_file(path: Path) -> None:
    path.unlink()
    path.write_text("precious")


LOSSES = (_another_socket, Path.unlink, _moved, _a_file)


@row(
    "D9",
    "socket deleted, moved or replaced while the agent runs: it comes back, but no file is deleted for it",
    unit="losses",
    full=400,
    short=1,
)
def lost_sockets(run: Run) -> None:
    took, agent = [], run.agent
    connected = agent.stub()
    names(connected)
    for number in run.steps():
        loss = LOSSES[number % len(LOSSES)]
        loss(agent.socket)
        began = time.monotonic()
        if loss is _a_file:
            wait_for("the agent to complain", lambda: "cannot be put back" in agent.log_text())
            assert agent.socket.read_text() == "precious"
            agent.socket.unlink()
        assert names(connected)
        wait_for("the socket to come back", lambda: serves(agent))
        took.append(time.monotonic() - began)
        agent.folder.joinpath("moved").unlink(missing_ok=True)
        run.saw(loss.__name__.strip("_"))
    assert names(agent.stub())
    run.figures["back after"] = spread(took)
